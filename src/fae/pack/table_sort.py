"""The compiled loops that sort the lookups of one table of a batch by storage rank.

A stable radix sort. A table whose ranks have one digit needs no more than counting: its lookups go to their places at
once. For others the last pass writes lookups where they belong in the batch's order, hot ones and cold ones apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fae.artifacts.row_layout import RowLayout
from fae.core.compiled import Int64, njit

Int32 = npt.NDArray[np.int32]

_DIGIT_BITS = 12  # of the radix sort: 4,096 counters of 4 bytes stay in a core's first-level cache
_SMALL_DIGIT_BITS = 8  # for few lookups, where clearing the counters would cost more than the sorting
_SMALL_SORT = 4096  # lookups from which the larger digit pays
_MOST_DIGITS = 4  # of 8 bits: a rank has 31


class SortScratch(NamedTuple):
    """What one thread needs to compose a batch.

    Attributes
    ----------
    columns
        int32 ``[S, B]``: the ranks of each slot.
    keys, lookups
        int32: the ranks and lookups of a table of which some slot may be unused; then the sorted ranks of any table.
    pairs, other_pairs
        int64: rank and lookup of each lookup of a table, ``rank << 32 | lookup``.
    counters
        int32 ``[4, 4096]``: of each digit.
    hot_lookups, least_rank, largest_rank
        int64 ``[S]``: of each slot.
    rows, begins
        int32: the ranks that occur in a table, and where the lookups of each begin among the sorted ones.
    cold_starts, cold_addresses
        int32: the segments of cold rows until those of hot rows are complete.
    """

    columns: Int32
    keys: Int32
    lookups: Int32
    pairs: Int64
    other_pairs: Int64
    counters: Int32
    hot_lookups: Int64
    least_rank: Int64
    largest_rank: Int64
    rows: Int32
    begins: Int32
    cold_starts: Int32
    cold_addresses: Int32


def make_sort_scratch(layout: RowLayout, batch_size: int) -> SortScratch:
    """Buffers for the longest column of a batch."""
    num_slots = layout.num_slots
    longest = batch_size * max(layout.slots.table_first_slot[1:] - layout.slots.table_first_slot[:-1])
    keys, lookups = np.empty((2, longest), np.int32)
    pairs, other_pairs = np.empty((2, longest), np.int64)
    hot_lookups, least_rank, largest_rank = np.empty((3, num_slots), np.int64)
    rows, begins = np.empty((2, longest + 2), np.int32)
    cold_starts, cold_addresses = np.empty((2, batch_size * num_slots), np.int32)
    return SortScratch(
        columns=np.empty((num_slots, batch_size), np.int32),
        keys=keys,
        lookups=lookups,
        pairs=pairs,
        other_pairs=other_pairs,
        counters=np.empty((_MOST_DIGITS, 1 << _DIGIT_BITS), np.int32),
        hot_lookups=hot_lookups,
        least_rank=least_rank,
        largest_rank=largest_rank,
        rows=rows,
        begins=begins,
        cold_starts=cold_starts,
        cold_addresses=cold_addresses,
    )


@njit(cache=True, nogil=True)
def count_digits(keys: Int32, count: int, largest: int, counters: Int32) -> tuple[int, int]:
    """Count the digits of the first `count` keys, none above `largest`; returns how many digits, and bits of each."""
    most_bits = _DIGIT_BITS if count >= _SMALL_SORT else _SMALL_DIGIT_BITS
    width = 1
    while (largest >> width) > 0:
        width += 1
    digits = (width + most_bits - 1) // most_bits
    bits = (width + digits - 1) // digits
    mask = np.int32((1 << bits) - 1)
    counters[:digits, : mask + 1] = 0
    if digits == 1:
        for i in range(count):
            counters[0, keys[i]] += 1
    elif digits == 2:
        for i in range(count):
            counters[0, keys[i] & mask] += 1
            counters[1, keys[i] >> bits] += 1
    else:
        for i in range(count):
            for digit in range(digits):
                counters[digit, (keys[i] >> (bits * digit)) & mask] += 1
    return digits, bits


@njit(cache=True, nogil=True)
def sort_pairs(
    keys: Int32, lookups: Int32, step: int, first: int, count: int, digits: int, bits: int, scratch: SortScratch
) -> Int64:
    """Sort by all digits but the last, stably; returns the buffer that holds the pairs.

    Parameters
    ----------
    keys
        int32 ``[>= count]``: ranks.
    lookups, step, first
        Lookup i is ``lookups[i]``, or ``first + i * step`` where a step is given.
    digits, bits
        Of `count_digits`, which has counted; two digits at least.
    """
    pairs, other = scratch.pairs, scratch.other_pairs
    mask = np.int64((1 << bits) - 1)
    for digit in range(digits - 1):
        counters, place = scratch.counters[digit], 0
        for value in range(mask + 1):
            here = counters[value]
            counters[value] = place
            place += here
        if digit == 0:
            for i in range(count):
                key = np.int64(keys[i])
                lookup = np.int64(first + i * step) if step > 0 else np.int64(lookups[i])
                place = counters[key & mask]
                counters[key & mask] = place + 1
                pairs[place] = key << 32 | lookup
        else:
            shift = 32 + bits * digit
            for i in range(count):
                pair = pairs[i]
                place = counters[(pair >> shift) & mask]
                counters[(pair >> shift) & mask] = place + 1
                other[place] = pair
            pairs, other = other, pairs
    return pairs


@njit(cache=True, nogil=True)
def sort_table(
    keys: Int32, lookups: Int32, step: int, first: int, count: int, largest: int, num_hot: int,
    scratch: SortScratch, hot_order: Int32, cold_order: Int32,
) -> int:  # fmt: skip
    """Sort the lookups of a table by rank, stably.

    Parameters
    ----------
    keys, lookups, step, first
        As for `sort_pairs`; `keys` is not the scratch that is filled, or nothing of it is needed any more.
    num_hot
        How many of them are hot: they come first.
    hot_order, cold_order
        Filled with the sorted lookups, the hot ones and the others.

    Returns
    -------
    The number of digits. Of one digit, its counters say how often each rank occurs, and no ranks are sorted; else the
    ranks, sorted, are in ``scratch.keys``.
    """
    digits, bits = count_digits(keys, count, largest, scratch.counters)
    mask = np.int64((1 << bits) - 1)
    counters = scratch.counters[digits - 1]
    if digits == 1:
        places, place = scratch.counters[1], 0
        for value in range(largest + 1):
            places[value] = place
            place += counters[value]
        for i in range(count):
            place = places[keys[i]]
            places[keys[i]] = place + 1
            lookup = first + i * step if step > 0 else lookups[i]
            if place < num_hot:
                hot_order[place] = lookup
            else:
                cold_order[place - num_hot] = lookup
        return int(digits)
    pairs = sort_pairs(keys, lookups, step, first, count, digits, bits, scratch)
    place = 0
    for value in range(mask + 1):
        here = counters[value]
        counters[value] = place
        place += here
    shift = 32 + bits * (digits - 1)
    for i in range(count):
        pair = pairs[i]
        place = counters[(pair >> shift) & mask]
        counters[(pair >> shift) & mask] = place + 1
        scratch.keys[place] = pair >> 32
        if place < num_hot:
            hot_order[place] = pair & 0xFFFFFFFF
        else:
            cold_order[place - num_hot] = pair & 0xFFFFFFFF
    return int(digits)
