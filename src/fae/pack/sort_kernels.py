"""The compiled loop that translates a batch: addresses, order, segments and cold rows, by one sort a table.

Storage ranks of a batch's inputs go in, final addresses come out. Ranks below a table's ``num_hot`` come first, so one
stable sort by rank puts the table's hot lookups before its cold ones, lists its unique cold rows in ascending order and
gives the order by address, all at once. Tables are sorted one by one because one column of a batch fits a core's cache
and small tables need a single counting pass. The ranks come input by input: they are turned into columns first, and
what needs no sort, the addresses of hot rows, is written on the way.

The loop runs on one thread; `fae.pack.compose` spreads batches over threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fae.artifacts.addressing import Addressing
from fae.core.compiled import Int64, njit
from fae.pack.table_sort import SortScratch, sort_table

Int32 = npt.NDArray[np.int32]

_PART_INPUTS = 128  # turned into columns at a time: their ranks stay in a core's first-level cache

SEGMENT_LOOKUPS = 32
"""Most lookups of a segment: what one program of a GPU sums at a time. Part of the format version."""


class ComposedLists(NamedTuple):
    """What `compose_batch` fills, for N batches of B inputs; entry n of each array belongs to batch n.

    The lists of a batch's groups lie one behind the other: group g's is ``[bounds[n, g], bounds[n, g + 1])``.

    Attributes
    ----------
    order
        int32 ``[N, B * S]``.
    addresses
        int32 ``[N, B * S]``, or ``[N, 0]`` where they are not wanted: they follow from the order and the segments.
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


def make_composed_lists(
    num_batches: int, num_lookups: int, num_groups: int, most_cold_rows: int, *, with_addresses: bool
) -> ComposedLists:
    """Buffers for that many batches of ``B * S`` lookups and of at most `most_cold_rows` unique cold rows each."""
    lookups, bounds = (num_batches, num_lookups), (num_batches, num_groups + 1)
    return ComposedLists(
        addresses=np.zeros(lookups if with_addresses else (num_batches, 0), np.int32),
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
def turn_to_columns(ranks: Int32, addressing: Addressing, scratch: SortScratch, addresses: Int32) -> None:
    """Turn ranks into columns, and look at each; write the addresses of hot rows, and -1 for all others, if wanted.

    Parameters
    ----------
    ranks
        int32 ``[n, S]``.
    addresses
        int32 ``[B * S]``, or empty where they are not wanted.
    """
    num_inputs, num_slots = ranks.shape
    writes_addresses = addresses.size > 0
    # Of each lookup of a part: loops over all of them at once are short of nothing that vector instructions need.
    part = min(_PART_INPUTS, num_inputs) if writes_addresses else 0
    num_hot, base = np.empty(part * num_slots, np.int32), np.empty(part * num_slots, np.int32)
    for b in range(part):
        for s in range(num_slots):
            num_hot[b * num_slots + s] = addressing.slot_num_hot[s]
            base[b * num_slots + s] = addressing.table_hot_base[addressing.slots.slot_table[s]]
    scratch.hot_lookups[:] = 0
    scratch.least_rank[:] = 0
    scratch.largest_rank[:] = 0
    flat = ranks.reshape(-1)
    for first in range(0, num_inputs, _PART_INPUTS):
        last = min(first + _PART_INPUTS, num_inputs)
        own = flat[first * num_slots : last * num_slots]
        if writes_addresses:
            filled = addresses[first * num_slots : last * num_slots]
            for place in range(own.size):
                rank = own[place]
                filled[place] = base[place] + rank if (rank >= 0) & (rank < num_hot[place]) else -1
        for s in range(num_slots):
            column, most = scratch.columns[s, first:last], np.int32(addressing.slot_num_hot[s])
            for b in range(column.size):
                column[b] = own[b * num_slots + s]
            hot, least, largest = 0, np.int32(0), np.int32(0)
            for b in range(column.size):
                rank = column[b]
                hot += (rank >= 0) & (rank < most)
                least = min(least, rank)
                largest = max(largest, rank)
            scratch.hot_lookups[s] += hot
            scratch.least_rank[s] = min(scratch.least_rank[s], np.int64(least))
            scratch.largest_rank[s] = max(scratch.largest_rank[s], np.int64(largest))
    if writes_addresses:
        addresses[num_inputs * num_slots :] = -1


@njit(cache=True, nogil=True)
def list_pads(
    ranks: Int32, addressing: Addressing, group: int, batch_size: int, has_unused: bool, order: Int32, place: int
) -> int:
    """Write the lookups of a group that are none, by input and slot, to `order` from a place on; returns the next."""
    num_inputs, num_slots = ranks.shape
    first, last = addressing.group_first_slot[group], addressing.group_first_slot[group + 1]
    for b in range(0 if has_unused else num_inputs, batch_size):
        for position in range(first, last):
            s = addressing.group_slots[position]
            if b >= num_inputs or ranks[b, s] < 0:
                order[place] = b * num_slots + s
                place += 1
    return place


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
    turn_to_columns(ranks, addressing, scratch, addresses)
    listed, num_segments, num_long = 0, 0, 0
    cold_bounds[0] = 0
    segment_bounds[0] = 0
    long_bounds[0] = 0
    for group in range(addressing.group_num_hot_rows.size):
        # Pads come first, then hot lookups, then cold ones.
        has_unused, num_hot = False, 0
        for position in range(addressing.group_first_slot[group], addressing.group_first_slot[group + 1]):
            s = addressing.group_slots[position]
            has_unused |= scratch.least_rank[s] < 0
            num_hot += scratch.hot_lookups[s]
        place = batch_size * addressing.group_first_slot[group]
        next_hot = list_pads(ranks, addressing, group, batch_size, has_unused, order, place)
        next_cold = next_hot + num_hot
        first_segment, cold_segments = num_segments, 0
        first_cold_address = addressing.group_num_hot_rows[group] - cold_bounds[group]
        for position in range(addressing.group_first_table[group], addressing.group_first_table[group + 1]):
            table = addressing.group_tables[position]
            first_slot, last_slot = table_first_slot[table], table_first_slot[table + 1]
            largest, least, table_hot_lookups = 0, 0, 0
            for s in range(first_slot, last_slot):
                largest = max(largest, scratch.largest_rank[s])
                least = min(least, scratch.least_rank[s])
                table_hot_lookups += scratch.hot_lookups[s]
            if last_slot == first_slot + 1 and least >= 0:
                count, step = num_inputs, num_slots
                keys = scratch.columns[first_slot]
            else:
                count, step = 0, 0
                keys = scratch.keys
                for b in range(num_inputs):
                    for s in range(first_slot, last_slot):
                        rank = scratch.columns[s, b]
                        if rank >= 0:
                            keys[count] = rank
                            scratch.lookups[count] = b * num_slots + s
                            count += 1
            digits = sort_table(
                keys, scratch.lookups, step, first_slot, count, largest, table_hot_lookups, scratch,
                order[next_hot:], order[next_cold:],
            )  # fmt: skip
            table_hot, hot_base = addressing.table_num_hot[table], addressing.table_hot_base[table]
            to_row = addressing.table_cold_base[table] - table_hot
            # The rows, and where the lookups of each begin among the sorted ones.
            rows, begins, num_rows = scratch.rows, scratch.begins, 0
            if digits == 1:
                place = 0
                for rank in range(largest + 1):
                    rows[num_rows], begins[num_rows] = rank, place
                    num_rows += scratch.counters[0, rank] > 0
                    place += scratch.counters[0, rank]
            else:
                previous = np.int32(-1)
                for i in range(count):
                    rank = scratch.keys[i]
                    rows[num_rows], begins[num_rows] = rank, i
                    num_rows += rank != previous
                    previous = rank
            begins[num_rows] = count
            for row in range(num_rows):
                rank, here = np.int64(rows[row]), np.int64(begins[row + 1] - begins[row])
                if rank < table_hot:
                    start = next_hot
                    next_hot += here
                    while start < next_hot:
                        segment_starts[num_segments] = start
                        segment_addresses[num_segments] = hot_base + rank
                        num_segments += 1
                        start += SEGMENT_LOOKUPS
                else:
                    cold_rows[listed] = to_row + rank
                    start = next_cold
                    next_cold += here
                    while start < next_cold:
                        scratch.cold_starts[cold_segments] = start
                        scratch.cold_addresses[cold_segments] = first_cold_address + listed
                        cold_segments += 1
                        start += SEGMENT_LOOKUPS
                    listed += 1
        cold_bounds[group + 1] = listed
        for segment in range(cold_segments):
            start, address = scratch.cold_starts[segment], scratch.cold_addresses[segment]
            segment_starts[num_segments] = start
            segment_addresses[num_segments] = address
            num_segments += 1
            if addresses.size > 0:
                stop = scratch.cold_starts[segment + 1] if segment + 1 < cold_segments else next_cold
                for place in range(start, stop):
                    addresses[order[place]] = address
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
