"""Triton kernels of slices: sum the gradients of a slice by row, then sum slices, over all ranks, and step the rows.

A rank sums the gradients of each of its slices into its buffer, where the k-th sum is that of the k-th row that the
slice looks up. When all ranks have done so, each reads the sums of all (over NVLink, or from a copy of them), adds them
in the tree of `fae.distributed.tree_sum`, and steps every row of the batch in its own bank: all have the same bytes.
Where a subtree does not look a row up, the sum of the other half goes up as it is. Sums may wait for the beginning of
the next step; a word in the memory of the device says whether some do.

Where there are several hosts, each rank first adds a part of the sums of its own one, and the sums of hosts are added
in place of those of slices. Where each cold row has an owner, that rank alone steps it, and before a lookup each rank
pulls the cold rows of its slice, once each, into places behind its own hot rows.

Shapes in the kernels: D embedding_dim padded to a power of two, n rows of the slice, U rows of all slices.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fae.kernels.triton_row_sums import apply_rows, sum_lookups
from fae.kernels.triton_shared import aligned_floats, to_row, to_target


@triton.jit
def slice_sums_kernel(
    words, order, gradient, sums, waiting, inverse_count, slot_column, slot_feature, poolings, field, order_end,
    num_slots, width, num_features, most_rows,
    LOOKUPS: tl.constexpr, DIM: tl.constexpr, DIM_PADDED: tl.constexpr, SEGMENTS: tl.constexpr, AT_ONCE: tl.constexpr,
    FLAT: tl.constexpr,
):  # fmt: skip
    """Sum SEGMENTS segments: first ones of each row to ``sums[k]``, further ones behind ``sums[most_rows]``."""
    num_rows = tl.load(words + field + 1)
    num_further = tl.load(words + field + 8)
    first = tl.program_id(0) * SEGMENTS
    if first == 0:
        tl.store(waiting, 1)
    if first < num_rows + num_further:
        starts = words + tl.load(words + field + 3)
        further = words + tl.load(words + field + 9)
        item = first + tl.arange(0, SEGMENTS)
        is_row = item < num_rows
        is_further = (item >= num_rows) & (item < num_rows + num_further)
        start = tl.load(starts + item, mask=is_row, other=0)
        end = tl.load(starts + item + 1, mask=item + 1 < num_rows, other=order_end)
        end = tl.where(is_row, tl.minimum(end, start + LOOKUPS), start)
        entry = further + 2 * (item - num_rows)
        start = tl.where(is_further, tl.load(entry, mask=is_further, other=0), start)
        end = tl.where(is_further, tl.load(entry + 1, mask=is_further, other=0), end)
        d = tl.arange(0, DIM_PADDED)
        total = sum_lookups(
            order, gradient, inverse_count, slot_column, slot_feature, poolings, start, end, d, num_slots, width,
            num_features, DIM, DIM_PADDED, SEGMENTS, AT_ONCE, FLAT,
        )  # fmt: skip
        place = tl.where(is_row, item, most_rows + item - num_rows).to(tl.int64)
        tl.store(
            sums + place[:, None] * DIM + d[None, :], total, mask=(is_row | is_further)[:, None] & (d < DIM)[None, :]
        )


@triton.jit
def slice_long_rows_kernel(
    words, sums, field, most_rows, DIM: tl.constexpr, DIM_PADDED: tl.constexpr, AT_ONCE: tl.constexpr
):
    """Add the further segments of one long row, AT_ONCE together, to the sum of its first one."""
    index = tl.program_id(0)
    num_long = tl.load(words + field + 2)
    if index < num_long:
        entry = words + tl.load(words + field + 5) + 2 * index
        row, first = tl.load(entry).to(tl.int64), tl.load(entry + 1)
        last = tl.load(entry + 3, mask=index + 1 < num_long, other=0)
        last = tl.where(index + 1 < num_long, last, tl.load(words + field + 8))
        d = tl.arange(0, DIM_PADDED)
        fits = d < DIM
        total = tl.load(sums + row * DIM + d, mask=fits, other=0.0)
        for done in range(first, last, AT_ONCE):
            part = done + tl.arange(0, AT_ONCE)
            values = tl.load(
                sums + (most_rows + part).to(tl.int64)[:, None] * DIM + d[None, :],
                mask=(part < last)[:, None] & fits[None, :], other=0.0,
            )  # fmt: skip
            total += tl.sum(values, axis=0)
        tl.store(sums + row * DIM + d, total, mask=fits)


@triton.jit
def _sum_of_slice(pointers, counts, bits, d, inside, SLICE: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Sums of one slice for those of a block of rows that are wanted, and which of all of them it looks up.

    Or of one host, which has WIDTH slices.
    """
    has = (bits >> (SLICE * WIDTH)) & ((1 << WIDTH) - 1)
    if WIDTH > 1:
        has = (has != 0).to(tl.int32)
    place = tl.load(counts + SLICE) + tl.cumsum(has, axis=0) - has
    sums = aligned_floats(tl.load(pointers + SLICE))
    found = tl.load(sums + place.to(tl.int64)[:, None] * DIM + d[None, :], mask=(has == 1)[:, None] & inside, other=0.0)
    return found, has


@triton.jit
def _sum_of_two(left, has_left, right, has_right):
    both = (has_left & has_right) == 1
    total = tl.where(both[:, None], left + right, tl.where((has_left == 1)[:, None], left, right))
    return total, has_left | has_right


@triton.jit
def _sum_of_pair(pointers, counts, bits, d, inside, FIRST: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr):
    left, has_left = _sum_of_slice(pointers, counts, bits, d, inside, FIRST, DIM, WIDTH)
    right, has_right = _sum_of_slice(pointers, counts, bits, d, inside, FIRST + 1, DIM, WIDTH)
    return _sum_of_two(left, has_left, right, has_right)


@triton.jit
def _sum_of_four(pointers, counts, bits, d, inside, FIRST: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr):
    left, has_left = _sum_of_pair(pointers, counts, bits, d, inside, FIRST, DIM, WIDTH)
    right, has_right = _sum_of_pair(pointers, counts, bits, d, inside, FIRST + 2, DIM, WIDTH)
    return _sum_of_two(left, has_left, right, has_right)


@triton.jit
def _sum_of_slices(pointers, counts, bits, d, inside, SLICES: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr):
    if SLICES == 2:
        total, has = _sum_of_pair(pointers, counts, bits, d, inside, 0, DIM, WIDTH)
    elif SLICES == 4:
        total, has = _sum_of_four(pointers, counts, bits, d, inside, 0, DIM, WIDTH)
    else:
        left, has_left = _sum_of_four(pointers, counts, bits, d, inside, 0, DIM, WIDTH)
        right, has_right = _sum_of_four(pointers, counts, bits, d, inside, 4, DIM, WIDTH)
        total, has = _sum_of_two(left, has_left, right, has_right)
    return total, has


@triton.jit
def _part_blocks(num_rows, PARTS: tl.constexpr, ROWS: tl.constexpr):
    """Blocks of each part of a list of rows."""
    return tl.cdiv(tl.cdiv(num_rows, ROWS), PARTS)


@triton.jit
def host_sums_kernel(
    words, inputs, pointers, out, field, part, host, DIM: tl.constexpr, DIM_PADDED: tl.constexpr, ROWS: tl.constexpr,
    SLICES: tl.constexpr, PARTS: tl.constexpr, HOSTS: tl.constexpr,
):  # fmt: skip
    """Sum one block of a part of the rows of a batch over the SLICES of one of HOSTS; those it looks up go to `out`."""
    num_rows = tl.load(words + field + 10)
    part_blocks = _part_blocks(num_rows, PARTS, ROWS)
    block = part * part_blocks + tl.program_id(0)
    if (tl.program_id(0) < part_blocks) & (block * ROWS < num_rows):
        index = block * ROWS + tl.arange(0, ROWS)
        d = tl.arange(0, DIM_PADDED)
        fits = d < DIM
        listed = inputs + 4 * tl.load(words + field + 12).to(tl.int64)
        bits = tl.load(listed + index, mask=index < num_rows, other=0).to(tl.int32) >> (host * SLICES)
        bits = bits & ((1 << SLICES) - 1)
        has = (bits != 0).to(tl.int32)
        inside = (has == 1)[:, None] & fits[None, :]
        counts = words + tl.load(words + field + 13) + block * (SLICES * HOSTS + HOSTS)
        total, _ = _sum_of_slices(pointers, counts + host * SLICES, bits, d, inside, SLICES, DIM, 1)
        before = tl.load(counts + SLICES * HOSTS + host)
        place = before + tl.cumsum(has, axis=0) - has
        tl.store(out + place.to(tl.int64)[:, None] * DIM + d[None, :], total, mask=inside)


@triton.jit
def exchange_kernel(
    words, inputs, cold_lists, pointers, waiting, weight, state, field, num_hot_rows, eps, decay, square_decay,
    own_rank, OPTIMIZER: tl.constexpr, DIM: tl.constexpr, DIM_PADDED: tl.constexpr, ROWS: tl.constexpr,
    SLICES: tl.constexpr, STAGED: tl.constexpr, DECAYS: tl.constexpr, HOT: tl.constexpr, COLD: tl.constexpr,
    OWNERS: tl.constexpr, PARTS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Sum one block of HOT or COLD rows, or both, over slices and apply the optimizer, where sums wait for it.

    `inputs` is the input buffer in bytes. With OWNERS, the ranks that own cold rows, COLD rows are those of `own_rank`.
    With several PARTS, sums are those of SLICES hosts, which have WIDTH slices each.
    """
    num_rows = tl.load(words + field + 10) * tl.load(waiting)
    first = tl.program_id(0) * ROWS
    if first < num_rows:
        learning_rate = tl.load(words + 1).to(tl.float32, bitcast=True)
        kept_share = tl.load(words + 2).to(tl.float32, bitcast=True) if DECAYS else 1.0
        index = first + tl.arange(0, ROWS)
        exists = index < num_rows
        d = tl.arange(0, DIM_PADDED)
        fits = d < DIM
        address = tl.load(words + tl.load(words + field + 11) + index, mask=exists, other=0)
        bits = tl.load(inputs + 4 * tl.load(words + field + 12).to(tl.int64) + index, mask=exists, other=0).to(tl.int32)
        if not HOT:
            exists = exists & (address >= num_hot_rows)
        if not COLD:
            exists = exists & (address < num_hot_rows)
        if OWNERS > 0:
            places = words + tl.load(words + field + 16)
            place = tl.load(places + (address - num_hot_rows), mask=exists, other=0)
            exists = exists & (place % OWNERS == own_rank)
            row = (place // OWNERS).to(tl.int64)
            if STAGED:
                address = num_hot_rows + place // OWNERS
                row = tl.load(cold_lists + tl.load(words + field + 6) + row, mask=exists, other=0)
        else:
            row = to_row(address, num_hot_rows, cold_lists + tl.load(words + field + 6))
        counts = words + tl.load(words + field + 13)
        if PARTS > 1:  # each block has the counts of all slices, and then those of hosts
            counts += tl.program_id(0) * (SLICES * WIDTH + SLICES) + SLICES * WIDTH
            pointers += tl.program_id(0) // _part_blocks(num_rows, PARTS, ROWS) * SLICES
        else:
            counts += tl.program_id(0) * SLICES
        inside = exists[:, None] & fits[None, :]
        total, _ = _sum_of_slices(pointers, counts, bits, d, inside, SLICES, DIM, WIDTH)
        target = to_target(address, row, num_hot_rows, tl.load(words + field), STAGED)
        apply_rows(
            weight, state, row, target, d, total, inside, exists, learning_rate, kept_share, eps, decay, square_decay,
            OPTIMIZER, DIM, DECAYS,
        )  # fmt: skip


@triton.jit
def offer_kernel(
    words, cold_lists, weight, out, field, DIM: tl.constexpr, DIM_PADDED: tl.constexpr, ROWS: tl.constexpr
):
    """Copy one block of the staged rows of a batch that this rank owns to where all ranks read them."""
    count = tl.load(words + field + 7)
    first = tl.program_id(0) * ROWS
    if first < count:
        index = first + tl.arange(0, ROWS)
        d = tl.arange(0, DIM_PADDED)
        row = tl.load(cold_lists + tl.load(words + field + 6) + index, mask=index < count, other=0)
        inside = (index < count)[:, None] & (d < DIM)[None, :]
        found = tl.load(weight + row[:, None] * DIM + d[None, :], mask=inside, other=0.0)
        tl.store(out + index.to(tl.int64)[:, None] * DIM + d[None, :], found, mask=inside)


@triton.jit
def pull_kernel(
    words, pointers, weight, field, num_hot_rows, OF_SLICE: tl.constexpr, OWNERS: tl.constexpr, DIM: tl.constexpr,
    DIM_PADDED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Copy one block of cold rows from their owners behind the hot rows: those of the slice, or of the whole batch."""
    if OF_SLICE:
        before = tl.load(words + field + 14)
        count = tl.load(words + field + 1) - before
    else:
        before = 0
        count = tl.load(words + field + 15)
    first = tl.program_id(0) * ROWS
    if first < count:
        index = first + tl.arange(0, ROWS)
        exists = index < count
        d = tl.arange(0, DIM_PADDED)
        listed = index
        if OF_SLICE:
            addresses = words + tl.load(words + field + 4) + before
            listed = tl.load(addresses + index, mask=exists, other=num_hot_rows) - num_hot_rows
        place = tl.load(words + tl.load(words + field + 16) + listed, mask=exists, other=0)
        owner = aligned_floats(tl.load(pointers + place % OWNERS, mask=exists, other=0))
        inside = exists[:, None] & (d < DIM)[None, :]
        origin = owner[:, None] + (place // OWNERS).to(tl.int64)[:, None] * DIM + d[None, :]
        found = tl.load(origin, mask=inside, other=0.0)
        target = (num_hot_rows + index).to(tl.int64)
        tl.store(weight + target[:, None] * DIM + d[None, :], found, mask=inside)
