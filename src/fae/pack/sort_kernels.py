"""The compiled loop that translates a batch: addresses, order, segments and cold rows, by one sort a table.

Storage ranks of a batch's inputs go in, final addresses come out. Ranks below a table's ``num_hot`` come first, so one
stable sort by rank puts the table's hot lookups before its cold ones, lists its unique cold rows in ascending order and
gives the order by address, all at once. Tables are sorted one by one because one column of a batch fits a core's cache
and small tables need a single counting pass.

The loop runs on one thread; `fae.pack.compose` spreads batches over threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fae.artifacts.addressing import Addressing
from fae.artifacts.row_layout import RowLayout
from fae.core.compiled import Int64, njit

Int32 = npt.NDArray[np.int32]

_DIGIT_BITS = 11  # of the radix sort: 2,048 counters of 4 bytes stay in a core's first-level cache
_SMALL_DIGIT_BITS = 8  # for few lookups, where clearing the counters would cost more than the sorting
_SMALL_SORT = 4096  # lookups from which the larger digit pays

SEGMENT_LOOKUPS = 32
"""Most lookups of a segment: what one program of a GPU sums at a time. Part of the format version."""


class SortScratch(NamedTuple):
    """What one thread needs to compose a batch: two buffers of sort keys and of lookups, the counters of a digit, and
    the segments of cold rows until those of hot rows are complete. All int32."""

    keys: Int32
    other_keys: Int32
    lookups: Int32
    other_lookups: Int32
    counters: Int32
    cold_starts: Int32
    cold_addresses: Int32


def make_sort_scratch(layout: RowLayout, batch_size: int) -> SortScratch:
    """Buffers for the longest column of a batch."""
    longest = batch_size * max(feature.length for feature in layout.features)
    keys, other_keys, lookups, other_lookups = np.zeros((4, longest), np.int32)
    cold_starts, cold_addresses = np.zeros((2, batch_size * layout.num_slots), np.int32)
    counters = np.zeros(1 << _DIGIT_BITS, np.int32)
    return SortScratch(keys, other_keys, lookups, other_lookups, counters, cold_starts, cold_addresses)


class ComposedLists(NamedTuple):
    """What `compose_batch` fills, for N batches of B inputs; entry n of each array belongs to batch n.

    The lists of a batch's groups lie one behind the other: group g's is ``[bounds[n, g], bounds[n, g + 1])``.

    Attributes
    ----------
    addresses, order
        int32 ``[N, B * S]``.
    cold_rows, cold_bounds
        int64 ``[N, most cold rows]`` and ``[N, G + 1]``: unique cold rows of each group.
    segment_starts, segment_addresses, segment_bounds
        int32 ``[N, B * S]`` twice and int64 ``[N, G + 1]``: first place in `order`, and address, of every segment.
    long_rows, long_bounds
        int32 ``[N, B * S // SEGMENT_LOOKUPS + 1, 2]`` and int64 ``[N, G + 1]``: rows of more than one segment, as their
        first segment, counted within the group, and how many.
    """

    addresses: Int32
    order: Int32
    cold_rows: Int64
    cold_bounds: Int64
    segment_starts: Int32
    segment_addresses: Int32
    segment_bounds: Int64
    long_rows: Int32
    long_bounds: Int64


def make_composed_lists(num_batches: int, num_lookups: int, num_groups: int, most_cold_rows: int) -> ComposedLists:
    """Buffers for that many batches of ``B * S`` lookups and of at most `most_cold_rows` unique cold rows each."""
    lookups, bounds = (num_batches, num_lookups), (num_batches, num_groups + 1)
    return ComposedLists(
        addresses=np.zeros(lookups, np.int32),
        order=np.zeros(lookups, np.int32),
        cold_rows=np.zeros((num_batches, most_cold_rows), np.int64),
        cold_bounds=np.zeros(bounds, np.int64),
        segment_starts=np.zeros(lookups, np.int32),
        segment_addresses=np.zeros(lookups, np.int32),
        segment_bounds=np.zeros(bounds, np.int64),
        long_rows=np.zeros((num_batches, num_lookups // SEGMENT_LOOKUPS + 1, 2), np.int32),
        long_bounds=np.zeros(bounds, np.int64),
    )


@njit(cache=True, nogil=True)
def sort_by_rank(scratch: SortScratch, count: int, largest: int) -> tuple[Int32, Int32]:
    """Sort the first `count` keys, none above `largest`, stably by radix; return the buffers that hold the result."""
    keys, lookups, other_keys, other_lookups, counters = (
        scratch.keys, scratch.lookups, scratch.other_keys, scratch.other_lookups, scratch.counters,
    )  # fmt: skip
    bits = _DIGIT_BITS if count >= _SMALL_SORT else _SMALL_DIGIT_BITS
    mask = (1 << bits) - 1
    shift = 0
    while (largest >> shift) > 0:
        counters[: mask + 1] = 0
        for i in range(count):
            counters[(keys[i] >> shift) & mask] += 1
        place = 0
        for digit in range(mask + 1):
            here = counters[digit]
            counters[digit] = place
            place += here
        for i in range(count):
            digit = (keys[i] >> shift) & mask
            place = counters[digit]
            counters[digit] = place + 1
            other_keys[place] = keys[i]
            other_lookups[place] = lookups[i]
        keys, other_keys = other_keys, keys
        lookups, other_lookups = other_lookups, lookups
        shift += bits
    return keys, lookups


@njit(cache=True, nogil=True)
def compose_batch(
    ranks: Int32, addressing: Addressing, scratch: SortScratch, batch_size: int, lists: ComposedLists, batch: int
) -> None:
    """Translate one batch: fill entry `batch` of `lists`.

    Parameters
    ----------
    ranks
        int32 ``[n, S]``: storage ranks of its real inputs, n at most `batch_size`; -1 in unused slots.
    """
    num_inputs, num_slots = ranks.shape
    addresses, order = lists.addresses[batch], lists.order[batch]
    cold_rows, cold_bounds = lists.cold_rows[batch], lists.cold_bounds[batch]
    segment_starts, segment_addresses = lists.segment_starts[batch], lists.segment_addresses[batch]
    segment_bounds = lists.segment_bounds[batch]
    long_rows, long_bounds = lists.long_rows[batch], lists.long_bounds[batch]
    table_first_slot = addressing.slots.table_first_slot
    addresses[:] = -1
    listed, num_segments, num_long = 0, 0, 0
    cold_bounds[0] = 0
    segment_bounds[0] = 0
    long_bounds[0] = 0
    for group in range(addressing.group_num_hot_rows.size):
        group_first, group_last = addressing.group_first_slot[group], addressing.group_first_slot[group + 1]
        # Pads first, in the order of lookups; hot lookups are counted on the way, since cold ones come behind them.
        next_pad, num_hot = batch_size * group_first, 0
        for b in range(num_inputs):
            for position in range(group_first, group_last):
                s = addressing.group_slots[position]
                rank = ranks[b, s]
                if rank < 0:
                    order[next_pad] = b * num_slots + s
                    next_pad += 1
                elif rank < addressing.slot_num_hot[s]:
                    num_hot += 1
        for b in range(num_inputs, batch_size):
            for position in range(group_first, group_last):
                order[next_pad] = b * num_slots + addressing.group_slots[position]
                next_pad += 1
        next_hot, next_cold = next_pad, next_pad + num_hot
        first_cold_address = addressing.group_num_hot_rows[group]
        first_segment, cold_segments = num_segments, 0
        for position in range(addressing.group_first_table[group], addressing.group_first_table[group + 1]):
            table = addressing.group_tables[position]
            count, largest = 0, 0
            for b in range(num_inputs):
                for s in range(table_first_slot[table], table_first_slot[table + 1]):
                    rank = ranks[b, s]
                    if rank >= 0:
                        scratch.keys[count] = rank
                        scratch.lookups[count] = b * num_slots + s
                        count += 1
                        largest = max(largest, int(rank))
            keys, lookups = sort_by_rank(scratch, count, largest)
            table_hot, hot_base = addressing.table_num_hot[table], addressing.table_hot_base[table]
            to_row = addressing.table_cold_base[table] - table_hot
            previous, in_segment = -1, 0
            for i in range(count):
                rank, lookup = int(keys[i]), int(lookups[i])
                begins = rank != previous or in_segment == SEGMENT_LOOKUPS
                in_segment = 1 if begins else in_segment + 1
                if rank < table_hot:
                    address = hot_base + rank
                    if begins:
                        segment_starts[num_segments] = next_hot
                        segment_addresses[num_segments] = address
                        num_segments += 1
                    order[next_hot] = lookup
                    next_hot += 1
                else:
                    if rank != previous:
                        cold_rows[listed] = to_row + rank
                        listed += 1
                    address = first_cold_address + listed - 1 - cold_bounds[group]
                    if begins:
                        scratch.cold_starts[cold_segments] = next_cold
                        scratch.cold_addresses[cold_segments] = address
                        cold_segments += 1
                    order[next_cold] = lookup
                    next_cold += 1
                addresses[lookup] = address
                previous = rank
        cold_bounds[group + 1] = listed
        for segment in range(cold_segments):
            segment_starts[num_segments] = scratch.cold_starts[segment]
            segment_addresses[num_segments] = scratch.cold_addresses[segment]
            num_segments += 1
        segment_bounds[group + 1] = num_segments
        segment = first_segment
        while segment < num_segments:
            after = segment + 1
            while after < num_segments and segment_addresses[after] == segment_addresses[segment]:
                after += 1
            if after > segment + 1:
                long_rows[num_long, 0] = segment - first_segment
                long_rows[num_long, 1] = after - segment
                num_long += 1
            segment = after
        long_bounds[group + 1] = num_long


@njit(cache=True, nogil=True)
def compose_batches(
    ranks: Int32,
    bounds: Int64,
    start: int,
    stop: int,
    addressing: Addressing,
    scratch: SortScratch,
    batch_size: int,
    lists: ComposedLists,
) -> None:
    """Translate the batches ``[start, stop)``: batch n has the inputs ``[bounds[n], bounds[n + 1])`` of `ranks`."""
    for batch in range(start, stop):
        compose_batch(ranks[bounds[batch] : bounds[batch + 1]], addressing, scratch, batch_size, lists, batch)


@njit(cache=True, nogil=True)
def join_lists(lists: npt.NDArray[Any], bounds: Int64, group: int, offsets: Int64, joined: npt.NDArray[Any]) -> None:
    """Copy the lists of one group of all batches, one behind the other.

    Parameters
    ----------
    lists, bounds
        A member of `ComposedLists` and its bounds.
    offsets
        int64 ``[N]``: where each batch's list belongs in `joined`.
    """
    for batch in range(offsets.size):
        first, last = bounds[batch, group], bounds[batch, group + 1]
        for i in range(last - first):
            joined[offsets[batch] + i] = lists[batch, first + i]
