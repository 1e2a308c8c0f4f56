"""The text of a raw value, by the rules in schema.json: 7, "7", 7.0 and a decimal 7 are one value."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_EXACT = {16: 2**11, 32: 2**24, 64: 2**53}
"""Largest whole number up to which a float of that many bits has all whole numbers."""
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class InputError(ValueError):
    """What is wrong with an input, in one line."""


def is_text_type(kind: Any) -> bool:
    """Whether an Arrow type is text or bytes of any layout."""
    names = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
    return str(kind) in names or bool(pa.types.is_fixed_size_binary(kind))


def is_list_type(kind: Any) -> bool:
    """Whether an Arrow type is a list of any layout."""
    types = pa.types
    named = str(kind).startswith(("list_view<", "large_list_view<"))
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) or named)


def plain_values(array: Any) -> Any:
    """An array without dictionary, run-end encoding and extension type; UUIDs become their text."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        if kind.extension_name == "arrow.uuid":
            found = [None if each is None else str(uuid.UUID(bytes=each)) for each in array.storage.to_pylist()]
            return pa.array(found, pa.string())
        return plain_values(array.storage)
    if pa.types.is_run_end_encoded(kind):
        return plain_values(pc.run_end_decode(array))
    return plain_values(array.dictionary_decode()) if pa.types.is_dictionary(kind) else array


def to_text(array: Any, column: str, missing: Sequence[str]) -> Any:
    """Arrow string array ``[n]`` without nulls of an array of scalars; a missing value is the empty text.

    Raises
    ------
    InputError
        For a value that has no text: a fraction, bytes that are not UTF-8, a nested value.
    """
    array = plain_values(array)
    try:
        text = _texts(array, missing)
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"column {column!r} of type {array.type}: {' '.join(str(error).split())}") from None
    if missing:
        text = pc.if_else(pc.is_in(text, value_set=pa.array(list(missing), pa.string())), "", text)
    return text.fill_null("")


def _texts(array: Any, missing: Sequence[str]) -> Any:
    kind, types = array.type, pa.types
    if is_text_type(kind) or types.is_integer(kind) or types.is_boolean(kind) or types.is_null(kind):
        return array.cast(pa.string())
    if types.is_floating(kind):
        return _whole_floats(array, missing)
    if types.is_decimal(kind):
        return array.cast(pa.decimal256(76, 0)).cast(pa.string())
    if types.is_duration(kind):
        return pa.array([_seconds(each, _PER_SECOND[kind.unit]) for each in array.cast(pa.int64()).to_pylist()])
    if types.is_date(kind):
        return array.cast(pa.date32()).cast(pa.string())
    if types.is_timestamp(kind) and kind.tz is not None:
        return pc.binary_join_element_wise(_short_times(array.cast(pa.timestamp(kind.unit))), "Z", "")
    if types.is_temporal(kind):
        return _short_times(array)
    raise ValueError("expected text or whole numbers")


def _whole_floats(array: Any, missing: Sequence[str]) -> Any:
    most = _EXACT[array.type.bit_width]
    numbers = array.cast(pa.float64())
    if any(word.lower() == "nan" for word in missing):
        numbers = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less_equal(pc.abs(numbers), float(most)))
    if not pc.all(whole, min_count=0).as_py():
        raise ValueError(f"expected whole numbers up to {most}, or text")
    return numbers.cast(pa.int64()).cast(pa.string())


def _short_times(array: Any) -> Any:
    """Times with a fraction of a second no longer than needed."""
    text = array.cast(pa.string())
    return pc.replace_substring_regex(text, pattern=r"(:\d\d)(?:\.0*|(\.\d*[1-9])0*)$", replacement=r"\1\2")


def _seconds(number: int | None, unit: int) -> str | None:
    if number is None:
        return None
    whole, part = divmod(abs(number), unit)
    fraction = f".{part:0{len(str(unit)) - 1}d}".rstrip("0") if part else ""
    return f"{'-' if number < 0 else ''}{whole}{fraction}"
