"""The order of scores, sorted once for all figures that need it, and which of them are tied."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.compiled import Int64, compiled

TIE = 2.0**-14
"""Far above rounding (some 2**-22 of a logit near 1), far below a difference that predicts anything."""
_DIGIT_BITS = 11
"""Three digits are a float32; their counts fit the first cache."""


def ascending_order(scores: npt.NDArray[np.floating[Any]]) -> Int64:
    """int64 ``[n]``: numbers of the scores in ascending order; equal ones (0 and -0, too) keep theirs, NaN is last.

    Scores in float32 are sorted by their bits, in a tenth of the time of a sort by comparisons.

    >>> ascending_order(np.array([2.0, -1.0, 0.0, -0.0], np.float32)).tolist()
    [1, 2, 3, 0]
    """
    if scores.dtype != np.float32 or len(scores) >= 1 << 32:
        found: Int64 = np.argsort(scores, kind="stable")
        return found
    bits = np.ascontiguousarray(scores).view(np.uint32)
    bits.flags.writeable = False  # one type for the compiled loop, however the scores were made
    order, keys = np.empty(len(bits), np.int64), np.empty((2, len(bits)), np.uint64)
    sort_by_bits(bits, keys, order)
    return order


@compiled
def sort_by_bits(bits: npt.NDArray[np.uint32], keys: npt.NDArray[np.uint64], order: Int64) -> None:
    """Sort float32 values, given as their `bits`, digit by digit; `keys` ``[2, n]`` is scratch.

    A key is the value's rank among all float32 values in its upper half and the value's number in the lower one.
    """
    size, digits = len(bits), 1 << _DIGIT_BITS
    mask = np.uint64(digits - 1)
    counts = np.zeros((3, digits), np.int64)
    for number in range(size):
        value = np.uint64(bits[number])
        magnitude = value & np.uint64(0x7FFFFFFF)
        if magnitude > np.uint64(0x7F800000):  # NaN
            rank = np.uint64(0xFFFFFFFF)
        elif value != magnitude and magnitude != np.uint64(0):
            rank = np.uint64(0x80000000) - magnitude
        else:
            rank = np.uint64(0x80000000) + magnitude
        keys[0, number] = rank << np.uint64(32) | np.uint64(number)
        for digit in range(3):
            counts[digit, np.int64(rank >> np.uint64(digit * _DIGIT_BITS) & mask)] += 1
    source = 0
    for digit in range(3):
        if counts[digit].max() == size:
            continue
        shift, place = np.uint64(32 + digit * _DIGIT_BITS), np.int64(0)
        for value_of_digit in range(digits):
            count = counts[digit, value_of_digit]
            counts[digit, value_of_digit] = place
            place += count
        target = 1 - source
        for at in range(size):
            key = keys[source, at]
            value_of_key = np.int64(key >> shift & mask)
            keys[target, counts[digit, value_of_key]] = key
            counts[digit, value_of_key] += 1
        source = target
    for at in range(size):
        order[at] = np.int64(keys[source, at] & np.uint64(0xFFFFFFFF))


def tie_groups(scores: npt.NDArray[np.floating[Any]], order: Int64 | None = None) -> Int64:
    """int64 ``[n]``: number of each score's group of ties, from 0, ascending with the scores.

    Parameters
    ----------
    order
        As `ascending_order` has it; None sorts.

    >>> tie_groups(np.array([0.5, -1.0, 0.5000001, 3e8, 3e8 + 64]))
    array([1, 0, 1, 2, 2])
    """
    order = ascending_order(scores) if order is None else order
    groups = np.empty(len(order), np.int64)
    number_ties(scores[order].astype(np.float64), order, groups)
    return groups


@compiled
def number_ties(ascending: npt.NDArray[np.float64], order: Int64, groups: Int64) -> None:
    """Write to `groups` ``[n]`` the group of ties of each score; `ascending` are the scores in their `order`."""
    group, last = -1, 0.0
    for at in range(len(ascending)):
        value = ascending[at]
        if at == 0 or not (value <= last or (value != value and last != last)):
            width = TIE * max(1.0, abs(value)) if np.isfinite(value) else 0.0
            group, last = group + 1, value + width
        groups[order[at]] = group
