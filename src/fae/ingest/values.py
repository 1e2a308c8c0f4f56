"""Categorical values as text: the value 7 of a CSV file and of a Parquet integer are the same value.

The result has no nulls; a missing value is the empty text, an integer its decimal text. Text is never trimmed or
otherwise changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fae.core.errors import LogError

Locate = Callable[[int], str]

MAX_ENCODED_ID = 2**31 - 4
"""Ids are int32, and an encoded table has a reserved id above its largest one."""
_EXACT_FLOAT = 2.0**53


def as_text(array: Any, column: str, locate: Locate) -> Any:
    """Convert any Arrow array of scalars to an Arrow string array without nulls.

    Raises
    ------
    LogError
        For fractions, NaN and infinity (a float column holds ids only if every value is whole), text that is not
        UTF-8, and types that hold no id.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        return as_text(array.dictionary_decode(), column, locate)
    if pa.types.is_floating(kind):
        array = _whole(array, column, locate)
    elif not _holds_ids(kind):
        raise LogError(
            f"{locate(0)}: column {column!r} is of type {kind}, expected text, whole numbers"
            f"{'; set its max_length to keep a list' if is_list(kind) else ''}"
        )
    if not pa.types.is_string(kind):
        try:
            array = array.cast(pa.string())
        except pa.ArrowInvalid as error:
            raise LogError(f"{locate(0)}: column {column!r} of type {kind} is not text ({error})") from error
    return array.fill_null("") if array.null_count else array


def _holds_ids(kind: Any) -> bool:
    types = pa.types
    return bool(
        is_text(kind) or types.is_integer(kind)
        or types.is_boolean(kind) or types.is_null(kind) or types.is_temporal(kind) or types.is_decimal(kind)
        or types.is_binary(kind) or types.is_large_binary(kind)
    )  # fmt: skip


def _whole(array: Any, column: str, locate: Locate) -> Any:
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    numbers = np.where(valid, array.cast(pa.float64()).fill_null(0.0).to_numpy(), 0.0)
    bad = ~((np.abs(numbers) <= _EXACT_FLOAT) & (numbers == np.floor(numbers)))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise LogError(
            f"{locate(row)}: the categorical column {column!r} is {numbers[row]}, expected a whole number or text; "
            "store it as text, or list it as dense"
        )
    return pa.array(numbers.astype(np.int64), mask=~valid)


def is_text(kind: Any) -> bool:
    """Whether the Arrow type is text of any layout. Compared by name: older releases lack a predicate for some."""
    return str(kind) in ("string", "large_string", "string_view")


def is_list(kind: Any) -> bool:
    """Whether the Arrow type is a list of any layout."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


class Items(NamedTuple):
    """The kept items of a list column, flat.

    Attributes
    ----------
    values
        Arrow string array of ``I`` items.
    rows, slots
        int64 ``[I]``: the input that each item belongs to, and its slot there.
    """

    values: Any
    rows: npt.NDArray[np.int64]
    slots: npt.NDArray[np.int64]


def list_items(array: Any, separator: str, max_length: int, column: str, locate: Locate) -> Items:
    """The last `max_length` items of every input's list, in order.

    Text is split by `separator`; a column of scalars counts as lists of one item. Missing items (empty text, nulls)
    are left out, so that a trailing separator adds nothing.
    """
    if not is_list(array.type):
        array = pc.split_pattern(as_text(array, column, locate), pattern=separator)
    lengths = np.asarray(pc.list_value_length(array).fill_null(0), dtype=np.int64)
    rows = np.repeat(np.arange(len(array), dtype=np.int64), lengths)
    items = array.flatten()
    values = as_text(items, column, lambda index: locate(int(rows[index])) if len(rows) else locate(0))
    present = np.asarray(pc.binary_length(values)) > 0
    kept_rows = rows[present]
    lengths = np.bincount(kept_rows, minlength=len(array)).astype(np.int64)
    first = np.cumsum(lengths) - lengths
    # Slot 0 is the oldest item that is kept: items further than max_length from the end have negative slots.
    slots = np.arange(len(kept_rows)) - first[kept_rows] - np.maximum(lengths - max_length, 0)[kept_rows]
    present[present] = slots >= 0
    return Items(values.filter(pa.array(present)), kept_rows[slots >= 0], slots[slots >= 0])


def whole_numbers(values: Any, column: str, locate: Locate) -> npt.NDArray[np.int64]:
    """Convert text to ids of an encoded column: int64, -2 where the value is missing.

    Raises
    ------
    LogError
        If one is not a whole number from 0 to `MAX_ENCODED_ID`.
    """
    missing = np.asarray(pc.equal(values, ""))
    filled = pc.if_else(pa.array(missing), "0", values) if missing.any() else values
    try:
        numbers = filled.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        numbers = np.array([int(t) if t.isascii() and t.isdigit() else -1 for t in filled.to_pylist()], np.object_)
    bad = (numbers < 0) | (numbers > MAX_ENCODED_ID)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise LogError(
            f"{locate(row)}: the encoded column {column!r} is {values[row].as_py()!r}, expected a whole number from 0 "
            f"to {MAX_ENCODED_ID}; leave `encoded` out to take its values as they are"
        )
    return np.where(missing, np.int64(-2), numbers.astype(np.int64))
