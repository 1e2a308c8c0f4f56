"""Triton kernels that sum the gradients of each row and apply the row optimizer.

The gradients of a row are summed segment by segment (at most 32 lookups, in order), and the segments of a long row in
order, always counted from the row's own first lookup: the same bytes under every placement and budget, without atomics.

Shapes in the kernels: S slots an input, D embedding_dim padded to a power of two, n segments.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fae.kernels.triton_shared import ADAGRAD, MEAN, ROWWISE_ADAGRAD, SGD, to_row, to_target


@triton.jit
def apply_rows(
    weight, state, row, target, d, total, mask, row_mask, learning_rate, kept_share, eps, decay, square_decay,
    OPTIMIZER: tl.constexpr, DIM: tl.constexpr, DECAYS: tl.constexpr,
):  # fmt: skip
    """Update rows ``[n]`` from their summed gradients ``[n, D]``; the results are written to the rows `target`."""
    old = tl.load(weight + row[:, None] * DIM + d[None, :], mask=mask, other=0.0)
    if DECAYS:
        old = old * kept_share
    if OPTIMIZER == SGD:
        new = old - learning_rate * total
    elif OPTIMIZER == ROWWISE_ADAGRAD:
        mean = tl.sum(total * total, axis=1) / DIM
        square = tl.load(state + row, mask=row_mask, other=0.0) + mean
        tl.store(state + target, square, mask=row_mask)
        step = learning_rate / (tl.sqrt_rn(square) + eps)
        new = old - step[:, None] * total
    elif OPTIMIZER == ADAGRAD:
        square = tl.load(state + row[:, None] * DIM + d[None, :], mask=mask, other=0.0) + total * total
        tl.store(state + target[:, None] * DIM + d[None, :], square, mask=mask)
        new = old - learning_rate * (total / (tl.sqrt_rn(square) + eps))
    else:
        moments = state + row[:, None] * (2 * DIM) + d[None, :]
        moment = tl.load(moments, mask=mask, other=0.0)
        moment = moment + (total - moment) * decay
        square = tl.load(moments + DIM, mask=mask, other=0.0)
        square = square + (total * total - square) * square_decay
        new_moments = state + target[:, None] * (2 * DIM) + d[None, :]
        tl.store(new_moments, moment, mask=mask)
        tl.store(new_moments + DIM, square, mask=mask)
        new = old - learning_rate * (moment / (tl.sqrt_rn(square) + eps))
    tl.store(weight + target[:, None] * DIM + d[None, :], new, mask=mask)


@triton.jit
def sum_lookups(
    order, gradient, inverse_count, slot_column, slot_feature, poolings, start, end, d, num_slots, width, num_features,
    DIM: tl.constexpr, DIM_PADDED: tl.constexpr, SEGMENTS: tl.constexpr, AT_ONCE: tl.constexpr, FLAT: tl.constexpr,
):  # fmt: skip
    """Sum the gradients of each segment's lookups from `start` to `end`, one after the other: ``[SEGMENTS, D]``."""
    total = tl.zeros((SEGMENTS, DIM_PADDED), tl.float32)
    longest = tl.max(end - start, axis=0)
    in_row = (d < DIM)[None, :]
    for done in range(0, longest, AT_ONCE):
        for step in tl.static_range(AT_ONCE):  # independent loads, whose waits overlap
            place = start + done + step
            inside = place < end
            lookup = tl.load(order + place, mask=inside, other=0)
            if FLAT:
                offset = lookup.to(tl.int64) * DIM
            else:
                b = lookup // num_slots
                s = lookup - b * num_slots
                offset = b.to(tl.int64) * width + tl.load(slot_column + s, mask=inside, other=0)
            values = tl.load(gradient + offset[:, None] + d[None, :], mask=inside[:, None] & in_row, other=0.0).to(
                tl.float32
            )
            if not FLAT:
                feature = tl.load(slot_feature + s, mask=inside, other=0)
                is_mean = inside & (tl.load(poolings + feature, mask=inside, other=0) == MEAN)
                scale = tl.load(inverse_count + b.to(tl.int64) * num_features + feature, mask=is_mean, other=1.0)
                values = values * scale[:, None]
            total += values
    return total


@triton.jit
def segment_sums_kernel(
    words, cold_lists, order, gradient, weight, state, partial, inverse_count, slot_column, slot_feature, poolings,
    field, num_hot_rows, order_end, num_slots, width, num_features, eps, decay, square_decay,
    OPTIMIZER: tl.constexpr, DIM: tl.constexpr, DIM_PADDED: tl.constexpr, SEGMENTS: tl.constexpr, AT_ONCE: tl.constexpr,
    FLAT: tl.constexpr, STAGED: tl.constexpr, DECAYS: tl.constexpr,
):  # fmt: skip
    """Sum the gradients of SEGMENTS segments: update rows of one segment, keep the sums of others in `partial`."""
    num_segments = tl.load(words + field + 1)
    first = tl.program_id(0) * SEGMENTS
    if first < num_segments:
        learning_rate = tl.load(words + 1).to(tl.float32, bitcast=True)
        kept_share = tl.load(words + 2).to(tl.float32, bitcast=True) if DECAYS else 1.0
        starts = words + tl.load(words + field + 3)
        addresses = words + tl.load(words + field + 4)
        segment = first + tl.arange(0, SEGMENTS)
        d = tl.arange(0, DIM_PADDED)
        exists = segment < num_segments
        has_next = segment + 1 < num_segments
        start = tl.load(starts + segment, mask=exists, other=0)
        end = tl.load(starts + segment + 1, mask=has_next, other=order_end)
        end = tl.where(exists, end, start)
        address = tl.load(addresses + segment, mask=exists, other=-1)
        before = tl.load(addresses + segment - 1, mask=exists & (segment > 0), other=-1)
        after = tl.load(addresses + segment + 1, mask=has_next, other=-1)
        is_part = exists & ((before == address) | (after == address))
        total = sum_lookups(
            order, gradient, inverse_count, slot_column, slot_feature, poolings, start, end, d, num_slots, width,
            num_features, DIM, DIM_PADDED, SEGMENTS, AT_ONCE, FLAT,
        )  # fmt: skip
        shift = tl.load(words + field)
        address = tl.maximum(address, 0)
        row = to_row(address, num_hot_rows, cold_lists + tl.load(words + field + 6))
        target = to_target(address, row, num_hot_rows, shift, STAGED)
        fits = (d < DIM)[None, :]
        tl.store(partial + segment.to(tl.int64)[:, None] * DIM + d[None, :], total, mask=is_part[:, None] & fits)
        whole = exists & (is_part == 0)
        apply_rows(
            weight, state, row, target, d, total, whole[:, None] & fits, whole, learning_rate, kept_share, eps, decay,
            square_decay, OPTIMIZER, DIM, DECAYS,
        )  # fmt: skip


@triton.jit
def long_rows_kernel(
    words, cold_lists, weight, state, partial, field, num_hot_rows, eps, decay, square_decay,
    OPTIMIZER: tl.constexpr, DIM: tl.constexpr, DIM_PADDED: tl.constexpr, AT_ONCE: tl.constexpr, STAGED: tl.constexpr,
    DECAYS: tl.constexpr,
):  # fmt: skip
    """Add up the segments of one long row in `partial`, AT_ONCE together, and update the row."""
    index = tl.program_id(0)
    if index < tl.load(words + field + 2):
        learning_rate = tl.load(words + 1).to(tl.float32, bitcast=True)
        kept_share = tl.load(words + 2).to(tl.float32, bitcast=True) if DECAYS else 1.0
        entry = words + tl.load(words + field + 5) + 2 * index
        first, count = tl.load(entry), tl.load(entry + 1)
        d = tl.arange(0, DIM_PADDED)
        fits = (d < DIM)[None, :]
        total = tl.zeros((1, DIM_PADDED), tl.float32)
        for done in range(0, count, AT_ONCE):
            part = done + tl.arange(0, AT_ONCE)
            values = tl.load(
                partial + (first + part).to(tl.int64)[:, None] * DIM + d[None, :],
                mask=(part < count)[:, None] & fits, other=0.0,
            )  # fmt: skip
            total += tl.sum(values, axis=0)[None, :]
        address = tl.load(words + tl.load(words + field + 4) + first + tl.arange(0, 1))
        shift = tl.load(words + field)
        row = to_row(address, num_hot_rows, cold_lists + tl.load(words + field + 6))
        target = to_target(address, row, num_hot_rows, shift, STAGED)
        exists = row >= 0
        apply_rows(
            weight, state, row, target, d, total, exists[:, None] & fits, exists, learning_rate, kept_share, eps,
            decay, square_decay, OPTIMIZER, DIM, DECAYS,
        )  # fmt: skip
