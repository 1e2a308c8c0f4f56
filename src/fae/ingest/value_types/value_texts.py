"""The text of a scalar of each Arrow type: one text a value, whatever its type and unit, or an error.

Whole floats and decimals are the whole number's text; a point in time is written with as much of a fraction of a
second as it has.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fae.core.errors import LogError
from fae.ingest.readers.line_blocks import shown
from fae.ingest.value_types.type_classes import is_bytes, is_list, is_text, is_uuid

Place = Callable[[int], str]

_EXACT = {16: 2.0**11, 32: 2.0**24, 64: 2.0**53}
"""Largest whole number up to which a float with that number of bits has all whole numbers."""
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def plain_array(array: Any) -> Any:
    """An array without extension type and run-end encoding: its stored values; UUIDs become their text."""
    kind = array.type
    if is_uuid(kind):
        values = [None if value is None else str(uuid.UUID(bytes=value)) for value in array.storage.to_pylist()]
        return pa.array(values, pa.string())
    if isinstance(kind, pa.BaseExtensionType):
        return plain_array(array.storage)
    if pa.types.is_run_end_encoded(kind):
        return plain_array(pc.run_end_decode(array))
    return array


def nested_fault(kind: Any) -> str:
    """What is wrong with a nested type as the value of one input or as an item; empty if it is not nested."""
    types = pa.types
    if types.is_map(kind):
        return "maps are not read, nor are weights of items; write the keys as a list"
    if types.is_struct(kind) or types.is_union(kind):
        return "structs are not read; write each of its fields as a column of its own"
    if is_list(kind):
        inner = kind.value_type
        if is_list(inner):
            return "lists of lists are not read; write one list an input"
        if nested_fault(inner):
            return f"in its lists {nested_fault(inner)}"
        return "a list"
    return ""


def texts(array: Any, column: str, locate: Place, missing: Sequence[str]) -> Any:
    """An Arrow string array ``[n]`` of a plain array of scalars, nulls kept.

    Raises
    ------
    LogError
        If a value has no text, or none that is its own; it names the first.
    """
    kind, types = array.type, pa.types
    if types.is_floating(kind):
        return _whole_floats(array, column, locate, missing)
    if types.is_decimal(kind):
        return _whole_decimals(array, column, locate)
    if is_text(kind) or is_bytes(kind):
        return _decoded(array, column, locate)
    if types.is_temporal(kind):
        return _times(array, column, locate)
    if types.is_integer(kind) or types.is_boolean(kind) or types.is_null(kind):
        return array.cast(pa.string())
    fault = nested_fault(kind)
    if fault == "a list":
        fault = "expected one value; set its max_length to keep a list"
    raise LogError(f"{locate(0)}: column {column!r} is of type {kind}; {fault or 'expected text or whole numbers'}")


def first_bad(array: Any, convert: Callable[[Any], Any]) -> int:
    """Index of the first value that `convert` refuses, by halving; the array must have one."""
    start, stop = 0, len(array)
    while stop - start > 1:
        middle = (start + stop) // 2
        try:
            convert(array.slice(start, middle - start))
            start = middle
        except (pa.ArrowException, UnicodeError):
            stop = middle
    return start


def _decoded(array: Any, column: str, locate: Place) -> Any:
    try:
        return array.cast(pa.string())
    except pa.ArrowInvalid as error:
        row = first_bad(array, lambda part: part.cast(pa.string()))
        value = array[row].as_py()
        if not isinstance(value, bytes):
            raise LogError(f"{locate(0)}: column {column!r} of type {array.type} is not text ({error})") from error
        raise LogError(f"{locate(row)}: column {column!r} is not UTF-8 ({shown(value)}); write it as text") from error


def _whole_floats(array: Any, column: str, locate: Place, missing: Sequence[str]) -> Any:
    exact = _EXACT[array.type.bit_width]
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    numbers = np.where(valid, array.cast(pa.float64()).fill_null(0.0).to_numpy(), 0.0)
    if any(word.lower() == "nan" for word in missing):
        valid = valid & ~np.isnan(numbers)
        numbers = np.where(valid, numbers, 0.0)
    bad = ~((np.abs(numbers) <= exact) & (numbers == np.floor(numbers)))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        number = numbers[row]
        if np.isfinite(number) and number == np.floor(number):
            raise LogError(
                f"{locate(row)}: the categorical column {column!r} is {number:.0f} as {array.type}, which cannot tell "
                f"whole numbers above {exact:.0f} apart; store it as whole numbers or text"
            )
        advice = "store it as text, or list it as dense"
        if np.isnan(number):
            advice = 'name it in [log] missing (["nan"]) if it means a missing value, or store it as text'
        raise LogError(
            f"{locate(row)}: the categorical column {column!r} is {number}, expected a whole number or text; {advice}"
        )
    return pa.array(numbers.astype(np.int64), mask=~valid).cast(pa.string())


def _whole_decimals(array: Any, column: str, locate: Place) -> Any:
    def whole(part: Any) -> Any:
        return part.cast(pa.decimal256(76, 0))

    try:
        return whole(array).cast(pa.string())
    except pa.ArrowInvalid as error:
        row = first_bad(array, whole)
        raise LogError(
            f"{locate(row)}: the categorical column {column!r} is {array[row].as_py()}, expected a whole number or "
            "text; store it as text, or list it as dense"
        ) from error


def _times(array: Any, column: str, locate: Place) -> Any:
    kind, types = array.type, pa.types
    if types.is_duration(kind):
        return _seconds(array)
    if types.is_timestamp(kind) and kind.tz is not None:
        utc = _without_zeros(array.cast(pa.timestamp(kind.unit)).cast(pa.string()))
        text = pc.binary_join_element_wise(utc, "Z", "")
    elif types.is_date(kind):
        text = array.cast(pa.date32()).cast(pa.string())
    elif types.is_timestamp(kind) or types.is_time(kind):
        text = _without_zeros(array.cast(pa.string()))
    else:
        raise LogError(f"{locate(0)}: column {column!r} is of type {kind}; expected text or whole numbers")
    # Arrow prints what its calendar does not have as a remark in angle brackets.
    bad = np.asarray(pc.starts_with(text, "<").fill_null(False))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise LogError(f"{locate(row)}: column {column!r} of type {kind} has a time that no calendar has; correct it")
    return text


def _without_zeros(text: Any) -> Any:
    """Times of day with a fraction no longer than needed."""
    return pc.replace_substring_regex(text, pattern=r"(:\d\d)(?:\.0*|(\.\d*[1-9])0*)$", replacement=r"\1\2")


def _seconds(array: Any) -> Any:
    """Durations in seconds, with a fraction no longer than needed."""
    unit = _PER_SECOND[array.type.unit]
    digits = len(str(unit)) - 1
    coded = array.cast(pa.int64()).dictionary_encode()

    def written(number: int) -> str:
        whole, part = divmod(abs(number), unit)
        fraction = f".{part:0{digits}d}".rstrip("0") if part else ""
        return f"{'-' if number < 0 else ''}{whole}{fraction}"

    values = pa.array([written(number) for number in coded.dictionary.to_pylist()], pa.string())
    return pa.DictionaryArray.from_arrays(coded.indices, values).dictionary_decode()
