"""What values of JSON lines become: Arrow arrays of text, of lists of text and of numbers.

Text stays as it is, a whole number is its decimal text however it is written (``7.0`` is ``7``), booleans are ``true``
and ``false``. As in Parquet files, an id may not be a fraction. Each value is converted by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from fae.ingest.config import LogConfig
from fae.ingest.readers.file_columns import FileColumns
from fae.ingest.readers.text_faults import SPACES

_EXACT_FLOAT = 2.0**53
_TEXTS, _NUMBERS, _LISTS = ({kind, type(None)} for kind in (str, float, list))


class RefusedValue(Exception):
    """What is wrong with a value or a line, without a place."""


def list_runs(config: LogConfig, objects: Sequence[dict[str, Any]]) -> Iterator[tuple[int, int]]:
    """Ranges of objects in which each list column has lists alone, or scalars alone; nulls are either."""
    names = [column.name for column in config.categorical_columns() if column.max_length > 1]
    values = [[found.get(name) for found in objects] for name in names]
    kinds = [[None if value is None else isinstance(value, list) for value in column] for column in values]
    if all(not ({True, False} <= set(column)) for column in kinds):
        yield 0, len(objects)
        return
    current: list[bool | None] = [None] * len(names)
    start = 0
    for row, found in enumerate(zip(*kinds, strict=True)):
        if any(new is not None and old is not None and new != old for new, old in zip(found, current, strict=True)):
            yield start, row
            start, current = row, [None] * len(names)
        current = [old if new is None else new for new, old in zip(found, current, strict=True)]
    yield start, len(objects)


def to_arrays(
    config: LogConfig, columns: FileColumns, objects: Sequence[dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any], tuple[int, str] | None]:
    """The wanted columns as text or lists of text, the dense ones as float64, and the first bad row with its fault."""
    lists = {column.name for column in config.categorical_columns() if column.max_length > 1}
    ids = {column.name for column in config.categorical_columns() if column.from_ is None} - {*config.copied_columns()}
    arrays: dict[str, Any] = {}
    numbers: dict[str, Any] = {}
    bad: tuple[int, str] | None = None
    missing = {"", *config.missing}
    nan_is_missing = any(word.lower() == "nan" for word in config.missing)
    for name in columns.names:
        values = [found.get(name) for found in objects]
        if nan_is_missing:
            values = list(map(_without_nan, values))
        jobs: list[tuple[dict[str, Any], Callable[[Any], Any], Any]] = []
        if name in columns.dense:
            jobs.append((numbers, lambda value: _to_number(value, missing), pa.float64()))
        if not columns.dense_only(name):
            if name in lists and any(isinstance(value, list) for value in values):
                jobs.append((arrays, _to_list, pa.list_(pa.string())))
            else:
                jobs.append((arrays, _to_id if name in ids else _to_text, pa.string()))
        for target, convert, kind in jobs:
            try:
                plain = _plain_array(values, kind)
                target[name] = pa.array(list(map(convert, values)), kind) if plain is None else plain
            except (RefusedValue, UnicodeEncodeError):
                row, reason = _first_refused(values, convert)
                if bad is None or row < bad[0]:
                    bad = row, f"the column {name!r} is {_brief(values[row])}, {reason}"
    return arrays, numbers, bad


def _plain_array(values: Sequence[Any], kind: pa.DataType) -> Any:
    """The array where Arrow itself makes of each value what the functions below do, at once; else None."""
    types = {*map(type, values)}
    if kind == pa.float64():
        with contextlib.suppress(pa.ArrowInvalid):  # whole numbers of more than 53 bits
            return pa.array(values, kind) if types - {int} <= _NUMBERS else None
        return None
    if kind == pa.string():
        return pa.array(values, kind) if types <= _TEXTS else None
    if not types <= _LISTS:
        return None
    items = {type(item) for value in values if value for item in value}
    return pa.array(values, kind) if items <= _TEXTS else None


def _without_nan(value: Any) -> Any:
    if isinstance(value, list):
        return list(map(_without_nan, value))
    return None if isinstance(value, float) and value != value else value


def _first_refused(values: Sequence[Any], convert: Callable[[Any], Any]) -> tuple[int, str]:
    for row, value in enumerate(values):
        try:
            pa.array([convert(value)])
        except RefusedValue as error:
            return row, str(error)
        except UnicodeEncodeError:
            return row, "which holds half of a surrogate pair and no text; fix the line"
    raise AssertionError("a value was refused once and taken again")


def _to_text(value: Any) -> str | None:
    """The text of a scalar: a number that is not whole is written with the fewest digits that are exactly it."""
    if value is None or isinstance(value, str):
        return value
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int):
        return _digits(value)
    if isinstance(value, float):
        return _digits(int(value)) if abs(value) <= _EXACT_FLOAT and value == int(value) else repr(value)
    raise RefusedValue("expected text, a number or a boolean; fix the line, or write the file without nesting")


def _digits(value: int) -> str:
    try:
        return str(value)
    except ValueError:
        raise RefusedValue("a whole number of too many digits; write it as text") from None


def _to_id(value: Any) -> str | None:
    if isinstance(value, float) and not (abs(value) <= _EXACT_FLOAT and value == int(value)):
        if value != value:
            raise RefusedValue(
                'expected a whole number or text; name "nan" in [log] missing if it means a missing value'
            )
        raise RefusedValue("expected a whole number or text; write it as text, or list the column as dense")
    if isinstance(value, list):
        raise RefusedValue("expected text or a whole number; set its max_length to keep a list")
    return _to_text(value)


def _to_list(value: Any) -> list[str | None] | None:
    if value is None or not isinstance(value, list):
        return None if value is None else [_to_id(value)]
    if any(isinstance(item, list) for item in value):
        raise RefusedValue("expected a list of text or whole numbers; fix the line")
    return list(map(_to_id, value))


def _to_number(value: Any, missing: set[str]) -> float | None:
    if value is None or (isinstance(value, str) and value in missing):
        return None
    try:
        if isinstance(value, (int, float)):
            return float(value)
        if isinstance(value, str) and value.isascii() and "_" not in value:
            text = value.strip(SPACES)
            return float(text if text == text.strip() else "no number")
    except OverflowError:
        raise RefusedValue("expected a number that a float can hold; fix the line") from None
    except ValueError:
        pass
    raise RefusedValue("expected a number; fix the line, or list the column as categorical")


def _brief(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return "a value that is too long to show"
    if isinstance(value, str):
        return ascii(value if len(value) <= 40 else value[:40] + "...")
    return text if len(text) <= 40 else text[:40] + "..."
