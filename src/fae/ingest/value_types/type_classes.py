"""Classes of Arrow types whose values have the same text, and a check that all files of a log agree on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fae.core.errors import LogError
from fae.ingest.config import LogConfig

_FREE = ("text", "nothing", "other")
"""Classes that agree with every other: text may hold the same texts, and what holds no values is refused elsewhere."""


def is_text(kind: Any) -> bool:
    """Whether the Arrow type is text of any layout. Compared by name: older releases lack a predicate for some."""
    return str(kind) in ("string", "large_string", "string_view")


def is_bytes(kind: Any) -> bool:
    """Whether the Arrow type is bytes of any layout."""
    return str(kind) in ("binary", "large_binary", "binary_view") or bool(pa.types.is_fixed_size_binary(kind))


def is_list(kind: Any) -> bool:
    """Whether the Arrow type is a list of any layout."""
    types = pa.types
    return bool(
        types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        or str(kind).startswith(("list_view<", "large_list_view<"))
    )  # fmt: skip


def is_uuid(kind: Any) -> bool:
    """Whether the Arrow type is the extension type of UUIDs."""
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.uuid"


def type_class(kind: Any) -> str:
    """Name of the class of an Arrow type: values of two types of one class have the same texts.

    >>> type_class(pa.int8()), type_class(pa.list_(pa.float32())), type_class(pa.bool_())
    ('numbers', 'numbers', 'booleans')
    """
    types = pa.types
    if types.is_dictionary(kind) or is_list(kind) or types.is_run_end_encoded(kind):
        return type_class(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return "text" if is_uuid(kind) else type_class(kind.storage_type)
    if types.is_timestamp(kind):
        return "times without a zone" if kind.tz is None else "times with a zone"
    checks = {
        "text": is_text(kind) or is_bytes(kind),
        "nothing": types.is_null(kind),
        "booleans": types.is_boolean(kind),
        "numbers": types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind),
        "dates": types.is_date(kind),
        "times of day": types.is_time(kind),
        "durations": types.is_duration(kind),
    }
    return next((name for name, holds in checks.items() if holds), "other")


class TypeGuard:
    """Sees the type of each column in each file, and refuses two whose values cannot have the same text.

    Parameters
    ----------
    columns
        Names of the columns whose values are compared as text.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = tuple(dict.fromkeys(columns))
        self._first: dict[str, tuple[Path, Any, str]] = {}

    def add(self, path: Path, schema: Any) -> None:
        """Take note of a file's Arrow schema.

        Raises
        ------
        LogError
            If an earlier file has a column in a type of another class; it names both files, the column and the types.
        """
        names = schema.names
        for column in self._columns:
            if names.count(column) != 1:
                continue
            kind = schema.field(column).type
            group = type_class(kind)
            if group in _FREE:
                continue
            first_path, first_kind, first_group = self._first.setdefault(column, (path, kind, group))
            if first_group != group:
                raise LogError(
                    f"{path}: the column {column!r} is of type {kind}, and in {first_path} of type {first_kind}; one "
                    "value would be two, as their texts differ; write the column in one type in all files"
                )


def check_types(config: LogConfig, paths: Sequence[Path]) -> None:
    """Look at the schemas of all files of a Parquet log: has each column types that can have the same values?

    A file that cannot be read as Parquet is left to its reader.

    Raises
    ------
    LogError
        If two files have a column in types whose texts differ.
    """
    if config.format != "parquet":
        return
    others = [name for name in (config.split_by, config.time) if name is not None]
    guard = TypeGuard([*(column.name for column in config.categorical_columns()), *others])
    for path in paths:
        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError):
            continue
        guard.add(path, schema)
