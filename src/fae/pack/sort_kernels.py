"""The two compiled loops of pack: where a batch ends, and what a batch holds.

Place in the flow: storage ranks of a chunk of inputs in, final addresses out. Invariant: ranks below a table's
``num_hot`` come first, so *one stable sort by rank per table* puts its hot lookups before its cold ones, lists its
unique cold rows in ascending order and gives the order by address, all at once. Tables are sorted one by one because
one column of a batch fits a core's cache and small tables need a single counting pass.

Both run on one thread; `fae.pack.compose` cuts batches over threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from fae.artifacts.row_layout import RowLayout
from fae.pack.classify import slot_values

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

_DIGIT_BITS = 11  # of the radix sort: 2,048 counters of 4 bytes stay in a core's first-level cache
_SMALL_DIGIT_BITS = 8  # for few lookups, where clearing the counters would cost more than the sorting
_SMALL_SORT = 4096

SEGMENT_LOOKUPS = 32
"""Lookups of a block at most: what one lane of a GPU sums at a time. Part of the format version."""


class Geometry(NamedTuple):
    """A row layout as flat arrays, which compiled loops can read. All int64.

    `table` arrays are ``[F]``, `slot` arrays ``[S]``, `group` arrays ``[G]`` (bounds ``[G + 1]``).
    """

    table_first_slot: Int64
    table_last_slot: Int64
    table_num_hot: Int64
    table_hot_base: Int64
    table_cold_base: Int64
    slot_num_hot: Int64
    slot_group: Int64
    slot_flat_base: Int64
    group_num_hot_rows: Int64
    group_slots: Int64  # slots, group by group
    group_slot_bounds: Int64
    group_tables: Int64  # tables, group by group
    group_table_bounds: Int64


def make_geometry(layout: RowLayout) -> Geometry:
    """Flatten a row layout."""
    first = np.array(layout.first_slots, np.int64)
    sizes = np.array([feature.num_embeddings for feature in layout.features], np.int64)
    slots = [layout.group_slots(group) for group in range(len(layout.groups))]
    tables = [np.array(group.tables, np.int64) for group in layout.groups]

    def bounds(parts: list[Int64]) -> Int64:
        return np.cumsum([0, *map(len, parts)]).astype(np.int64)

    return Geometry(
        table_first_slot=first[:-1].copy(),
        table_last_slot=first[1:].copy(),
        table_num_hot=np.array(layout.num_hot, np.int64),
        table_hot_base=layout.hot_base.astype(np.int64),
        table_cold_base=layout.cold_base.astype(np.int64),
        slot_num_hot=slot_values(layout, layout.num_hot),
        slot_group=slot_values(layout, layout.group_of_table),
        slot_flat_base=slot_values(layout, np.cumsum(sizes) - sizes),
        group_num_hot_rows=np.array([group.num_hot_rows for group in layout.groups], np.int64),
        group_slots=np.concatenate(slots),
        group_slot_bounds=bounds(slots),
        group_tables=np.concatenate(tables),
        group_table_bounds=bounds(tables),
    )


class SeenRows(NamedTuple):
    """An open-addressing set of cold rows that is emptied by raising a stamp, not by clearing memory."""

    keys: Int64
    stamps: Int64


def make_seen_rows(capacity: int) -> SeenRows:
    """A set for up to `capacity` rows, at most half full."""
    size = 1 << max(4, (2 * capacity).bit_length())
    return SeenRows(np.zeros(size, np.int64), np.zeros(size, np.int64))


@njit(cache=True, nogil=True)
def find_bounds(
    ranks: Int32,
    num_inputs: int,
    batch_size: int,
    geometry: Geometry,
    staging_rows: Int64,
    seen: SeenRows,
    stamp: int,
    bounds: Int64,
) -> tuple[int, int]:
    """Cut inputs into batches, each as long as its unique cold rows allow.

    Parameters
    ----------
    ranks
        int32 ``[>= num_inputs, S]``.
    staging_rows
        int64 ``[G]``: most unique cold rows of a batch; one input alone must fit.
    stamp
        Any number that `seen` has not met; the returned one is where to go on.
    bounds
        int64 ``[most batches + 1]``, filled: batch i is ``[bounds[i], bounds[i + 1])``.

    Returns
    -------
    Number of batches that are closed (full, or ended by the next input), and the next stamp.
    """
    mask = seen.keys.size - 1
    counts = np.zeros(staging_rows.size, np.int64)
    bounds[0] = 0
    closed, begin, i = 0, 0, 0
    while i < num_inputs and closed < bounds.size - 1:
        fits = True
        for s in range(ranks.shape[1]):
            rank = np.int64(ranks[i, s])
            if rank < geometry.slot_num_hot[s]:  # hot, or -1
                continue
            key = geometry.slot_flat_base[s] + rank
            # 31 bits times 32 bits: a product that never leaves int64, compiled or not.
            place = ((((key ^ (key >> 31)) & 0x7FFFFFFF) * 0x9E3779B1) >> 24) & mask
            while seen.stamps[place] == stamp and seen.keys[place] != key:
                place = (place + 1) & mask
            if seen.stamps[place] != stamp:
                seen.stamps[place] = stamp
                seen.keys[place] = key
                group = geometry.slot_group[s]
                counts[group] += 1
                if counts[group] > staging_rows[group]:
                    fits = False
                    break
        if fits:
            i += 1
        if not fits or i - begin == batch_size:
            closed += 1
            bounds[closed] = i
            begin = i
            stamp += 1
            counts[:] = 0
    return closed, stamp + 1


class SortScratch(NamedTuple):
    """What one thread needs to compose a batch: two buffers of sort keys and of lookups, and the counters."""

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


@njit(cache=True, nogil=True)
def _sort_by_rank(scratch: SortScratch, count: int, largest: int) -> tuple[Int32, Int32]:
    """Stable radix sort of the first `count` keys, none above `largest`; returns where keys and lookups ended up."""
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
    ranks: Int32,
    geometry: Geometry,
    scratch: SortScratch,
    batch_size: int,
    addresses: Int32,
    order: Int32,
    cold_rows: Int64,
    cold_bounds: Int64,
    block_starts: Int32,
    block_addresses: Int32,
    block_bounds: Int64,
    long_rows: Int32,
    long_bounds: Int64,
) -> None:
    """Translate one batch: addresses, the order by address, its blocks, and the lists of unique cold rows.

    Parameters
    ----------
    ranks
        int32 ``[n, S]``: its real inputs, n at most `batch_size`.
    addresses, order
        int32 ``[B * S]``, filled.
    cold_rows
        int64, filled: the groups' lists, one behind the other; must have room for them.
    cold_bounds
        int64 ``[G + 1]``, filled: group g's list is ``[cold_bounds[g], cold_bounds[g + 1])``.
    block_starts, block_addresses, block_bounds
        int32 ``[B * S]`` and int64 ``[G + 1]``, filled: first place in `order` and address of every block.
    long_rows, long_bounds
        int32 ``[B * S // SEGMENT_LOOKUPS + 1, 2]`` and int64 ``[G + 1]``, filled: rows of more than one block, as their
        first block (counted within the group) and how many.
    """
    num_inputs, num_slots = ranks.shape
    addresses[:] = -1
    listed, num_blocks, num_long = 0, 0, 0
    cold_bounds[0] = 0
    block_bounds[0] = 0
    long_bounds[0] = 0
    for group in range(geometry.group_num_hot_rows.size):
        group_first, group_last = geometry.group_slot_bounds[group], geometry.group_slot_bounds[group + 1]
        # Pads first, in the order of lookups; the hot lookups are counted on the way, the cold ones stand behind them.
        next_pad, num_hot = batch_size * group_first, 0
        for b in range(num_inputs):
            for position in range(group_first, group_last):
                s = geometry.group_slots[position]
                rank = ranks[b, s]
                if rank < 0:
                    order[next_pad] = b * num_slots + s
                    next_pad += 1
                elif rank < geometry.slot_num_hot[s]:
                    num_hot += 1
        for b in range(num_inputs, batch_size):
            for position in range(group_first, group_last):
                order[next_pad] = b * num_slots + geometry.group_slots[position]
                next_pad += 1
        next_hot, next_cold = next_pad, next_pad + num_hot
        first_cold_address = geometry.group_num_hot_rows[group]
        first_block, cold_blocks = num_blocks, 0
        for position in range(geometry.group_table_bounds[group], geometry.group_table_bounds[group + 1]):
            table = geometry.group_tables[position]
            count, largest = 0, 0
            for b in range(num_inputs):
                for s in range(geometry.table_first_slot[table], geometry.table_last_slot[table]):
                    rank = ranks[b, s]
                    if rank >= 0:
                        scratch.keys[count] = rank
                        scratch.lookups[count] = b * num_slots + s
                        count += 1
                        largest = max(largest, int(rank))
            keys, lookups = _sort_by_rank(scratch, count, largest)
            table_hot, hot_base = geometry.table_num_hot[table], geometry.table_hot_base[table]
            to_row = geometry.table_cold_base[table] - table_hot
            previous, in_block = -1, 0
            for i in range(count):
                rank, lookup = int(keys[i]), int(lookups[i])
                begins = rank != previous or in_block == SEGMENT_LOOKUPS
                in_block = 1 if begins else in_block + 1
                if rank < table_hot:
                    address = hot_base + rank
                    if begins:
                        block_starts[num_blocks] = next_hot
                        block_addresses[num_blocks] = address
                        num_blocks += 1
                    order[next_hot] = lookup
                    next_hot += 1
                else:
                    if rank != previous:
                        cold_rows[listed] = to_row + rank
                        listed += 1
                    address = first_cold_address + listed - 1 - cold_bounds[group]
                    if begins:
                        scratch.cold_starts[cold_blocks] = next_cold
                        scratch.cold_addresses[cold_blocks] = address
                        cold_blocks += 1
                    order[next_cold] = lookup
                    next_cold += 1
                addresses[lookup] = address
                previous = rank
        cold_bounds[group + 1] = listed
        for block in range(cold_blocks):
            block_starts[num_blocks] = scratch.cold_starts[block]
            block_addresses[num_blocks] = scratch.cold_addresses[block]
            num_blocks += 1
        block_bounds[group + 1] = num_blocks
        block = first_block
        while block < num_blocks:
            after = block + 1
            while after < num_blocks and block_addresses[after] == block_addresses[block]:
                after += 1
            if after > block + 1:
                long_rows[num_long, 0] = block - first_block
                long_rows[num_long, 1] = after - block
                num_long += 1
            block = after
        long_bounds[group + 1] = num_long
