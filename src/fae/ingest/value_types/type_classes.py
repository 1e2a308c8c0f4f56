"""Classes of Arrow types whose values have the same text, and a check that all files of a log agree on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fae.core.errors import LogError
from fae.ingest.config import LogConfig
from fae.ingest.readers.line_blocks import open_raw

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
    tables
        From the name of a column to the name of its table: columns of one table must agree with each other too.
    known, known_log
        `classes` of the log at a path, with which the files must agree.

    Attributes
    ----------
    classes
        From each table to the class of the types that were seen; without those that agree with all.
    """

    def __init__(
        self, tables: Mapping[str, str], *, known: Mapping[str, str] | None = None, known_log: Path | None = None
    ) -> None:
        self._tables = tables
        names = {*tables.values()}
        self.classes: dict[str, str] = {name: group for name, group in (known or {}).items() if name in names}
        self._columns: dict[str, str] = {}
        self._where = {name: f"in the log {known_log} it holds {group}" for name, group in self.classes.items()}

    def add(self, path: Path, types: Mapping[str, Any]) -> None:
        """Take note of the Arrow types of a file's columns.

        Raises
        ------
        LogError
            If a column had a type of another class before; it names both files, the column and the types.
        """
        for column, table in self._tables.items():
            if column not in types:
                continue
            kind = types[column]
            group = type_class(kind)
            if group in _FREE:
                continue
            if self.classes.setdefault(table, group) != group:
                own, where = f"the column {column!r}", self._where[table]
                if self._columns.get(table, column) != column:
                    where = f"{self._columns[table]!r}, with which it shares a table, {where}"
                raise LogError(
                    f"{path}: {own} is of type {kind}, and {where}; one value would be two, as their texts differ; "
                    "write it in one type"
                )
            self._columns.setdefault(table, column)
            self._where.setdefault(table, f"in {path} of type {kind}")


def check_types(
    config: LogConfig, paths: Sequence[Path], *, known: Mapping[str, str] | None = None, known_log: Path | None = None
) -> dict[str, str]:
    """Look at the schemas of all files of a Parquet log: has each column types that can have the same values?

    A file that cannot be read as Parquet is left to its reader.

    Returns
    -------
    The `TypeGuard.classes`, for the log's summary; empty for other formats.

    Raises
    ------
    LogError
        If two files have a column in types whose texts differ, or a file and the log `known_log`.
    """
    if config.format != "parquet":
        return {}
    # Times are compared as times and not as text: `fae.ingest.input_order.time_keys` says which agree.
    tables = {} if config.split_by is None else {config.split_by: config.split_by}
    tables |= {
        column.name: column.table or column.name for column in config.categorical_columns() if column.from_ is None
    }
    guard = TypeGuard(tables, known=known, known_log=known_log)
    for path in paths:
        try:
            with open_raw(path) as raw, pq.ParquetFile(raw) as file:
                # Writers give a part without rows any type.
                schema = file.schema_arrow if file.metadata.num_rows else pa.schema([])
                names = schema.names
        except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError):
            continue
        guard.add(path, {name: schema.field(name).type for name in names if names.count(name) == 1})
    return guard.classes
