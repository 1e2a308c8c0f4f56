"""Compiled loops that cut a slice's lookups out of the order of a whole batch, list the rows of all, and add sums."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fae.core.compiled import compiled

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]
Sums = npt.NDArray[np.float32]


@compiled
def cut_group(
    order: Int32, starts: Int32, rows: Int32, begin: int, end: int, own_slice: int, slice_lookups: int,
    own_begin: int, addresses: Int32, own_order: Int32, unique_rows: Int32, slice_bits: Bits, own_starts: Int32,
    own_rows: Int32,
) -> tuple[int, int]:  # fmt: skip
    """Cut one group of one batch; returns how many rows any slice looks up, and how many the own one does.

    Parameters
    ----------
    order
        int32 ``[B * S]``: that of the batch.
    starts, rows
        int32 ``[n]``: first place and address of each of the group's segments.
    begin, end
        The group's part of `order`.
    own_slice, slice_lookups
        Number of the slice; lookups of a slice over all groups, pads too.
    own_begin
        Where the group's part of `own_order` begins.
    addresses
        int32 ``[lookups of a slice]``, written: address of each lookup of the slice, -1 where there is none. An empty
        array is left alone.
    own_order
        int32 ``[lookups of a slice]``, written: its lookups in the order of the batch, numbered within the slice.
    unique_rows, slice_bits
        int32 and uint8 ``[n]``, written: ascending addresses of the rows; bit s where slice s looks the row up.
    own_starts
        int32 ``[n]``, written: place in `own_order` of the first lookup of each row that the slice looks up.
    own_rows
        int32 ``[n]``, written: the address of each of them.
    """
    first_lookup, place = own_slice * slice_lookups, own_begin
    num_rows, num_own, number_of_row, own_of_row = 0, 0, -1, False
    next_segment = 0
    address = np.int32(-1)
    for i in range(begin, end):
        if next_segment < starts.size and i == starts[next_segment]:
            if rows[next_segment] != address:  # else a further segment of a long row
                address = rows[next_segment]
                number_of_row, own_of_row = num_rows, False
                unique_rows[number_of_row], slice_bits[number_of_row] = address, np.uint8(0)
                num_rows += 1
            next_segment += 1
        lookup = np.int64(order[i])
        if number_of_row >= 0:
            slice_bits[number_of_row] |= np.uint8(1 << (lookup // slice_lookups))
        own = lookup - first_lookup
        if 0 <= own < slice_lookups:
            if addresses.size:
                addresses[own] = address
            own_order[place] = np.int32(own)
            if number_of_row >= 0 and not own_of_row:
                own_starts[num_own] = np.int32(place)
                own_rows[num_own] = address
                num_own, own_of_row = num_own + 1, True
            place += 1
    return num_rows, num_own


@compiled
def cut_long_rows(own_starts: Int32, end: int, most: int, long_rows: Int32, further: Int32) -> tuple[int, int]:
    """Cut rows of more than `most` lookups into segments; returns the number of long rows, and of further segments.

    Parameters
    ----------
    own_starts, end
        int32 ``[n]``: place of each row's first lookup in the order of the slice; where the last row ends.
    long_rows
        int32 ``[*, 2]``, written: the number of each long row, and its first one of the further segments.
    further
        int32 ``[*, 2]``, written: first place and end of each segment of a long row but its first one.
    """
    num_long, num_further = 0, 0
    for k in range(own_starts.size):
        last = own_starts[k + 1] if k + 1 < own_starts.size else end
        first = own_starts[k] + most
        if first >= last:
            continue
        long_rows[num_long, 0], long_rows[num_long, 1] = np.int32(k), np.int32(num_further)
        num_long += 1
        while first < last:
            further[num_further, 0], further[num_further, 1] = np.int32(first), np.int32(min(first + most, last))
            num_further += 1
            first += most
    return num_long, num_further


@compiled
def count_blocks(slice_bits: Bits, block_rows: int, counts: Int32, totals: Int64) -> None:
    """Count, before each block of rows and for each slice, the rows that the slice looks up.

    Parameters
    ----------
    counts
        int32 ``[blocks, slices or more]``; the first columns are written.
    totals
        int64 ``[slices]``, written: the rows of the batch that each slice looks up.
    """
    num_slices = totals.size
    before = np.zeros(num_slices, np.int32)
    for i in range(slice_bits.size):
        if i % block_rows == 0:
            counts[i // block_rows, :num_slices] = before
        for s in range(num_slices):
            before[s] += np.int32(slice_bits[i] >> np.uint8(s) & np.uint8(1))
    for s in range(num_slices):
        totals[s] = before[s]


@compiled
def count_hosts(
    slice_bits: Bits, each: int, block_rows: int, part_blocks: int, first: int, counts: Int32, part_rows: Int64
) -> None:
    """Count, before each block of rows and within its part of the list, the rows that each host looks up.

    Parameters
    ----------
    each
        Slices of a host.
    part_blocks
        Blocks of a part.
    first
        Column of the first host in `counts`.
    counts
        int32 ``[blocks, first + hosts]``; columns of hosts are written.
    part_rows
        int64 ``[parts, hosts]``, 0; written: the rows of each part that each host looks up.
    """
    of_host, num_hosts = np.uint8((1 << each) - 1), part_rows.shape[1]
    for i in range(slice_bits.size):
        block = i // block_rows
        part = block // part_blocks
        for host in range(num_hosts):
            if i % block_rows == 0:
                counts[block, first + host] = np.int32(part_rows[part, host])
            if slice_bits[i] >> np.uint8(host * each) & of_host:
                part_rows[part, host] += 1


@compiled
def count_of_ranks(slice_bits: Bits, each: int, first: int, bits: Bits, earlier: Int64) -> None:
    """Say which ranks look each row of a part of a list up, and how many rows before it they do.

    Parameters
    ----------
    slice_bits
        uint8 ``[n]``: bit s where slice s looks the row up; `each` slices a rank.
    first
        Number of the first row of the part.
    bits
        uint8 ``[rows of the part]``, written: bit k where rank k looks the row up.
    earlier
        int64 ``[ranks]``, 0; written: how many rows before `first` each rank looks up.
    """
    of_rank = np.uint8((1 << each) - 1)
    for i in range(first + bits.size):
        for rank in range(earlier.size):
            if slice_bits[i] >> np.uint8(rank * each) & of_rank:
                if i < first:
                    earlier[rank] += 1
                else:
                    bits[i - first] |= np.uint8(1 << rank)


@compiled
def add_parts(bits: Bits, places: Int64, parts: Sums, first: int, last: int, out: Sums) -> None:
    """Sum the rows ``[first, last)`` of a list over parts, as `fae.distributed.exchange.sum_in_tree` does.

    Parameters
    ----------
    bits
        uint8 ``[n]``: bit k where part k has the row.
    places
        int64 ``[parts]``: how many rows before `first` each part has; moved on.
    parts
        float32 ``[parts, rows of a part at most, D]``: those that each part has, in the order of the list.
    out
        float32 ``[n, D]``; written, 0 for rows that no part has.
    """
    count, dim = places.size, out.shape[1]
    level, has = np.empty((count, dim), np.float32), np.empty(count, np.bool_)
    for i in range(first, last):
        for k in range(count):
            has[k] = bits[i] >> np.uint8(k) & np.uint8(1) == 1
            if has[k]:
                for d in range(dim):
                    level[k, d] = parts[k, places[k], d]
                places[k] += 1
        width = count
        while width > 1:
            for k in range(0, width, 2):
                right = k + 1 < width and has[k + 1]
                if has[k] and right:
                    for d in range(dim):
                        level[k // 2, d] = level[k, d] + level[k + 1, d]
                elif right:
                    for d in range(dim):
                        level[k // 2, d] = level[k + 1, d]
                elif has[k] and k:
                    for d in range(dim):
                        level[k // 2, d] = level[k, d]
                has[k // 2] = has[k] or right
            width = (width + 1) // 2
        for d in range(dim):
            out[i, d] = level[0, d] if has[0] else np.float32(0)
