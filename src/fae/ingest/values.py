"""Categorical values as text: the value 7 of a CSV file and of a Parquet integer are the same value.

The result has no nulls; a missing value is the empty text, an integer its decimal text. Text is never trimmed or
otherwise changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fae.core.errors import LogError
from fae.ingest.column_config import ColumnConfig
from fae.ingest.readers.line_blocks import shown
from fae.ingest.value_types.printed_lists import PrintedLists, read_printed
from fae.ingest.value_types.type_classes import is_bytes, is_list, is_text
from fae.ingest.value_types.value_texts import nested_fault, plain_array, texts

Locate = Callable[[int], str]

MAX_ENCODED_ID = 2**31 - 4
"""Ids are int32, and an encoded table has a reserved id above its largest one."""
_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?i:nan|inf|infinity)|"


def scalars(array: Any, what: str, column: str, locate: Locate) -> Any:
    """A plain array of scalars, which may be a dictionary.

    Parameters
    ----------
    what
        What the column is, for the message: ``"the label"``.

    Raises
    ------
    LogError
        If the values are lists, maps or structs.
    """
    array = plain_array(array)
    fault = nested_fault(array.type)
    if fault:
        raise LogError(
            f"{locate(0)}: {what} {column!r} is of type {array.type}, expected one value an input"
            f"{'' if fault == 'a list' else f'; {fault}'}"
        )
    return array


def as_text(array: Any, column: str, locate: Locate, missing: Sequence[str] = ()) -> Any:
    """Convert any Arrow array of scalars to an Arrow string array without nulls.

    Parameters
    ----------
    missing
        Words that mean a missing value.

    Raises
    ------
    LogError
        For fractions, NaN and infinity (a float or decimal column holds ids only if every value is whole), whole
        numbers that a float cannot tell apart, bytes that are not UTF-8, and types that hold no id.
    """
    if not pa.types.is_string(array.type):
        array = plain_array(array)
        if pa.types.is_dictionary(array.type):
            return as_text(array.dictionary_decode(), column, locate, missing)
        try:
            array = texts(array, column, locate, missing)
        except pa.ArrowException as error:
            raise LogError(f"{locate(0)}: column {column!r} of type {array.type} is not read ({error})") from error
    if missing:
        array = pc.if_else(pc.is_in(array, value_set=pa.array(missing, pa.string())), "", array)
    return array.fill_null("") if array.null_count else array


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


def list_items(
    array: Any, column: ColumnConfig, locate: Locate, missing: Sequence[str] = (), printed: PrintedLists | None = None
) -> Items:
    """The last items of every input's list, at most `max_length`, in order.

    Text is split as the column says; a column of other scalars counts as lists of one item. Weights are cut off. Then
    missing items (empty text, nulls, words of `missing`) and padding are left out, so that a trailing separator adds
    nothing.

    Parameters
    ----------
    missing
        Words that mean a missing item, or a missing list.
    printed
        Looks at lists.

    Raises
    ------
    LogError
        As `as_text`, and for lists of anything but scalars, text that is no list where `brackets` says so, and weights
        that are no numbers.
    """
    array = plain_array(array)
    if pa.types.is_dictionary(array.type):
        array = plain_array(array.dictionary_decode())
    if is_list(array.type):
        fault = nested_fault(array.type)
        if fault != "a list":
            raise LogError(f"{locate(0)}: column {column.name!r} is of type {array.type}; {fault}")
    else:
        array = _split(array, column, locate, missing, printed)
    lengths = np.asarray(pc.list_value_length(array).fill_null(0), dtype=np.int64)
    if printed is not None and (lengths > 1).any():
        printed.state["several"] = True
    rows = np.repeat(np.arange(len(array), dtype=np.int64), lengths)
    values = as_text(
        array.flatten(), column.name, lambda index: locate(int(rows[index])) if len(rows) else locate(0), missing
    )
    if column.weight_separator:
        values = _without_weights(values, column, lambda index: locate(int(rows[index])), missing)
    present = np.asarray(pc.binary_length(values)) > 0
    if column.padding is not None:
        present &= np.asarray(pc.not_equal(values, column.padding))
    kept_rows = rows[present]
    lengths = np.bincount(kept_rows, minlength=len(array)).astype(np.int64)
    first = np.cumsum(lengths) - lengths
    # Slot 0 is the oldest item that is kept: items further than max_length from the end have negative slots.
    slots = np.arange(len(kept_rows)) - first[kept_rows] - np.maximum(lengths - column.max_length, 0)[kept_rows]
    present[present] = slots >= 0
    return Items(values.filter(pa.array(present)), kept_rows[slots >= 0], slots[slots >= 0])


def _split(
    array: Any, column: ColumnConfig, locate: Locate, missing: Sequence[str], printed: PrintedLists | None
) -> Any:
    from_text = is_text(array.type) or is_bytes(array.type)
    array = as_text(array, column.name, locate, missing)
    if not from_text:
        return pa.ListArray.from_arrays(pa.array(np.arange(len(array) + 1, dtype=np.int32)), array)
    if column.brackets:
        return read_printed(array, column, locate)
    if printed is not None:
        printed.add(array, locate)
    return pc.split_pattern(array, pattern=column.separator)


def _without_weights(values: Any, column: ColumnConfig, locate: Locate, missing: Sequence[str]) -> Any:
    """Items without the last `weight_separator` and what is behind it, which must be a number or nothing."""
    separator = re.escape(column.weight_separator)
    has_weight = pc.match_substring(values, pattern=column.weight_separator)
    is_number = pc.match_substring_regex(values, pattern=rf"(?s){separator}\s*(?:{_NUMBER})\s*$")
    bad = np.asarray(pc.and_not(has_weight, is_number))
    if bad.any():
        index = int(np.flatnonzero(bad)[0])
        raise LogError(
            f"{locate(index)}: the item {shown(values[index].as_py().encode())} of {column.name!r} has no number "
            f"behind its last {column.weight_separator!r}; fix it, or leave weight_separator out"
        )
    items = pc.replace_substring_regex(values, pattern=rf"(?s)^(.*){separator}.*$", replacement=r"\1")
    return as_text(items, column.name, locate, missing)


def whole_numbers(values: Any, column: str, locate: Locate) -> npt.NDArray[np.int64]:
    """Convert text to ids of an encoded column: int64, -2 where the value is missing.

    A number is digits and nothing else; zeros in front do not count.

    Raises
    ------
    LogError
        If one is not a whole number from 0 to `MAX_ENCODED_ID`.
    """
    missing = np.asarray(pc.equal(values, ""))
    filled = pc.if_else(pa.array(missing), "0", values) if missing.any() else values
    numbers: npt.NDArray[Any]
    try:
        # The cast alone would take hexadecimal numbers and signs.
        numbers = filled.cast(pa.int64()).to_numpy() if _only_digits(filled) else _as_digits(filled)
    except pa.ArrowInvalid:
        numbers = _as_digits(filled)
    bad = (numbers < 0) | (numbers > MAX_ENCODED_ID)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise LogError(
            f"{locate(row)}: the encoded column {column!r} is {shown(values[row].as_py().encode())}, expected a whole "
            f"number from 0 to {MAX_ENCODED_ID}; leave `encoded` out to take its values as they are"
        )
    return np.where(missing, np.int64(-2), numbers.astype(np.int64))


def _only_digits(values: Any) -> bool:
    """Whether an Arrow string array without nulls has no other byte than digits."""
    if not len(values):
        return True
    _, offset_buffer, data = values.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32, len(values) + 1, 4 * values.offset)
    if data is None or offsets[-1] == offsets[0]:
        return True
    text = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]]
    return bool(((text - np.uint8(ord("0"))) <= 9).all())


def _as_digits(values: Any) -> npt.NDArray[Any]:
    return np.array(
        [int(t.lstrip("0")[:12] or "0") if t.isascii() and t.isdigit() else -1 for t in values.to_pylist()], np.int64
    )
