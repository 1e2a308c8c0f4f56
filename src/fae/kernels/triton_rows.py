"""Row kernels in Triton: pooled lookup, sums by block, row optimizers.

Place in the flow: what `fae.kernels.reference` defines, on a GPU, without a host copy or a wait: everything that varies
from batch to batch is read from the batch's *feed* in device memory (`fae.streaming.input_layout`), so a whole step can be one
CUDA graph. Invariant: the gradients of a row are summed block by block (at most 32 lookups, in order), and the
blocks of a long row in order, always counted from the row's own first lookup: the same bytes for every placement and
budget, and no atomics.

Shapes in the kernels: B inputs, S slots an input, D embedding_dim padded to a power of two, n blocks.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fae.core.optimizers import DEFAULT_BETAS, OPTIMIZER_CODE, Betas
from fae.core.pooling import POOLING_CODE
from fae.kernels.geometry import GroupGeometry
from fae.kernels.input_views import InputViews, group_field

_BLOCK_INPUTS = 32  # inputs of a program of the lookup
SUMS = {"floats": 256, "at_once": 4, "num_warps": 1}
"""Of a program of the sums: blocks times D, lookups of a block that are asked for together, warps
(``benchmarks/micro/gpu_tiles.py``, H200). They change no result: lookups are added one after the other."""
_PARTS_AT_ONCE = 64  # blocks of a long row; part of the order of sums
_CARRIED_AT_ONCE = 32
_CARRY_PROGRAMS = 264  # two for each processor of an H100


INTERPRETED: tl.constexpr = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
"""Whether kernels run in Triton's interpreter, which keeps bfloat16 as raw bits and cannot multiply them."""


@triton.jit
def operand(x):
    """A bfloat16 operand of `tl.dot`: rounded, and in the interpreter widened again."""
    x = x.to(tl.bfloat16)
    if INTERPRETED:
        x = x.to(tl.float32)
    return x


@triton.jit
def to_row(address, num_hot_rows, cold_rows):
    """Row of the bank, int64, of an address that is not a pad; a pad gives something that must not be read.

    `cold_rows` says where the batch's cold rows are.
    """
    is_cold = address >= num_hot_rows
    listed = tl.load(cold_rows + (address - num_hot_rows), mask=is_cold, other=0)
    return tl.where(is_cold, listed, address.to(tl.int64))


@triton.jit
def _to_target(address, row, num_hot_rows, shift, STAGED: tl.constexpr):
    """Row to write: a staged batch has its own place for every cold row, wherever it was read."""
    if STAGED:
        row = address.to(tl.int64) + tl.where(address >= num_hot_rows, shift, 0).to(tl.int64)
    return row


@triton.jit
def _lookup_kernel(
    feed, cold_lists, addresses, weight, out, inverse_count, pieces, first_slot, lengths, poolings, columns, field,
    num_hot_rows, batch_size, num_slots, width, num_features,
    DIM: tl.constexpr, DIM_PADDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    num_blocks = tl.cdiv(batch_size, BLOCK)
    piece = tl.program_id(0) // num_blocks
    feature, share = tl.load(pieces + 2 * piece), tl.load(pieces + 2 * piece + 1)
    b = (tl.program_id(0) - piece * num_blocks) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, DIM_PADDED)
    inside = b < batch_size
    first = tl.load(first_slot + feature)
    length = tl.load(lengths + feature)
    pooling = tl.load(poolings + feature)
    column = tl.load(columns + feature)
    cold_rows = cold_lists + tl.load(feed + field + 6)
    total = tl.zeros((BLOCK, DIM_PADDED), tl.float32)
    count = tl.zeros((BLOCK,), tl.float32)
    target = out + b.to(tl.int64)[:, None] * width + column + d[None, :]
    fits = inside[:, None] & (d < DIM)[None, :]
    # Slots that are not pooled wait for nothing but themselves: each is a piece of its own, from `share` on.
    last = tl.where(pooling == 2, share + 1, length)
    for step in range(share, last):
        address = tl.load(addresses + b.to(tl.int64) * num_slots + first + step, mask=inside, other=-1)
        present = address >= 0
        row = to_row(address, num_hot_rows, cold_rows)
        vector = tl.load(
            weight + row[:, None] * DIM + d[None, :], mask=present[:, None] & (d < DIM)[None, :], other=0.0
        )
        if pooling == 2:
            tl.store(target + step * DIM, vector, mask=fits)
        else:
            total += vector
            count += tl.where(present, 1.0, 0.0)
    if pooling == 1:
        inverse = 1.0 / tl.maximum(count, 1.0)
        tl.store(inverse_count + b.to(tl.int64) * num_features + feature, inverse, mask=inside)
        total = total * inverse[:, None]
    if pooling != 2:
        tl.store(target, total, mask=fits)


@triton.jit
def _apply(
    weight, state, row, target, d, total, mask, row_mask, learning_rate, eps, decay, square_decay,
    OPTIMIZER: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """The optimizer on rows ``[n]`` from their summed gradients ``[n, D]``; the result goes to rows `target`."""
    old = tl.load(weight + row[:, None] * DIM + d[None, :], mask=mask, other=0.0)
    if OPTIMIZER == 0:
        new = old - learning_rate * total
    elif OPTIMIZER == 1:
        mean = tl.sum(total * total, axis=1) / DIM
        square = tl.load(state + row, mask=row_mask, other=0.0) + mean
        tl.store(state + target, square, mask=row_mask)
        step = learning_rate / (tl.sqrt_rn(square) + eps)
        new = old - step[:, None] * total
    elif OPTIMIZER == 2:
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
def _block_sums_kernel(
    feed, cold_lists, order, gradient, weight, state, partial, inverse_count, slot_column, slot_feature, poolings,
    field, num_hot_rows, order_end, num_slots, width, num_features, eps, decay, square_decay,
    OPTIMIZER: tl.constexpr, DIM: tl.constexpr, DIM_PADDED: tl.constexpr, BLOCKS: tl.constexpr, AT_ONCE: tl.constexpr,
    FLAT: tl.constexpr, STAGED: tl.constexpr,
):  # fmt: skip
    num_blocks = tl.load(feed + field + 1)
    first = tl.program_id(0) * BLOCKS
    if first < num_blocks:
        learning_rate = tl.load(feed + 1).to(tl.float32, bitcast=True)
        starts = feed + tl.load(feed + field + 3)
        addresses = feed + tl.load(feed + field + 4)
        block = first + tl.arange(0, BLOCKS)
        d = tl.arange(0, DIM_PADDED)
        exists = block < num_blocks
        has_next = block + 1 < num_blocks
        start = tl.load(starts + block, mask=exists, other=0)
        end = tl.load(starts + block + 1, mask=has_next, other=order_end)
        end = tl.where(exists, end, start)
        address = tl.load(addresses + block, mask=exists, other=-1)
        before = tl.load(addresses + block - 1, mask=exists & (block > 0), other=-1)
        after = tl.load(addresses + block + 1, mask=has_next, other=-1)
        is_part = exists & ((before == address) | (after == address))
        total = tl.zeros((BLOCKS, DIM_PADDED), tl.float32)
        longest = tl.max(end - start, axis=0)
        in_row = (d < DIM)[None, :]
        for done in range(0, longest, AT_ONCE):
            for step in tl.static_range(AT_ONCE):  # independent loads: their waits overlap
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
                    is_mean = inside & (tl.load(poolings + feature, mask=inside, other=0) == 1)
                    scale = tl.load(inverse_count + b.to(tl.int64) * num_features + feature, mask=is_mean, other=1.0)
                    values = values * scale[:, None]
                total += values
        shift = tl.load(feed + field)
        address = tl.maximum(address, 0)
        row = to_row(address, num_hot_rows, cold_lists + tl.load(feed + field + 6))
        target = _to_target(address, row, num_hot_rows, shift, STAGED)
        fits = (d < DIM)[None, :]
        tl.store(partial + block.to(tl.int64)[:, None] * DIM + d[None, :], total, mask=is_part[:, None] & fits)
        whole = exists & (is_part == 0)
        _apply(
            weight, state, row, target, d, total, whole[:, None] & fits, whole, learning_rate, eps, decay, square_decay,
            OPTIMIZER, DIM,
        )  # fmt: skip


@triton.jit
def _long_rows_kernel(
    feed, cold_lists, weight, state, partial, field, num_hot_rows, eps, decay, square_decay,
    OPTIMIZER: tl.constexpr, DIM: tl.constexpr, DIM_PADDED: tl.constexpr, AT_ONCE: tl.constexpr, STAGED: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0)
    if index < tl.load(feed + field + 2):
        learning_rate = tl.load(feed + 1).to(tl.float32, bitcast=True)
        entry = feed + tl.load(feed + field + 5) + 2 * index
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
        address = tl.load(feed + tl.load(feed + field + 4) + first + tl.arange(0, 1))
        shift = tl.load(feed + field)
        row = to_row(address, num_hot_rows, cold_lists + tl.load(feed + field + 6))
        target = _to_target(address, row, num_hot_rows, shift, STAGED)
        exists = row >= 0
        _apply(
            weight, state, row, target, d, total, exists[:, None] & fits, exists, learning_rate, eps, decay,
            square_decay, OPTIMIZER, DIM,
        )  # fmt: skip


@triton.jit
def _carry_kernel(
    feed, cold_lists, weight, state, field, num_hot_rows, DIM: tl.constexpr, DIM_PADDED: tl.constexpr,
    STATE: tl.constexpr, STATE_PADDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    count = tl.load(feed + field + 7)
    cold_rows = cold_lists + tl.load(feed + field + 6)
    first_row = num_hot_rows + tl.load(feed + field).to(tl.int64)
    d = tl.arange(0, DIM_PADDED)
    e = tl.arange(0, STATE_PADDED)
    for first in range(tl.program_id(0) * BLOCK, count, tl.num_programs(0) * BLOCK):
        index = first + tl.arange(0, BLOCK)
        place = first_row + index
        origin = tl.load(cold_rows + index, mask=index < count, other=0)
        moves = (index < count) & (origin != place)
        fits = moves[:, None] & (d < DIM)[None, :]
        rows = tl.load(weight + origin[:, None] * DIM + d[None, :], mask=fits, other=0.0)
        tl.store(weight + place[:, None] * DIM + d[None, :], rows, mask=fits)
        if STATE > 0:
            fits_state = moves[:, None] & (e < STATE)[None, :]
            states = tl.load(state + origin[:, None] * STATE + e[None, :], mask=fits_state, other=0.0)
            tl.store(state + place[:, None] * STATE + e[None, :], states, mask=fits_state)


class TritonGroupKernels:
    """Lookup and update of one group on a GPU; every call only launches.

    Parameters
    ----------
    geometry
        Shape of the group's lookups.
    group
        Its number, which says where the feed's header holds its part.
    batch_size
        B.
    optimizer
        Key of `OPTIMIZER_CODE`.
    most_segments, most_long_rows
        Of a batch: they size the grids and the buffer of partial sums.
    staged
        Whether updated cold rows are written to the batch's staging slot, wherever they were read; else in place.
    """

    def __init__(
        self,
        geometry: GroupGeometry,
        group: int,
        batch_size: int,
        optimizer: str,
        device: torch.device,
        *,
        staged: bool,
    ) -> None:
        self.geometry, self._staged = geometry, staged
        self._optimizer, self._batch_size, self._field = OPTIMIZER_CODE[optimizer], batch_size, group_field(group)
        self._padded = triton.next_power_of_2(geometry.embedding_dim)

        def on_device(values: Any) -> Tensor:
            return torch.from_numpy(values).to(torch.int32).to(device)

        self._first_slot, self._lengths = on_device(geometry.first_slot), on_device(geometry.length)
        self._poolings, self._columns = on_device(geometry.pooling), on_device(geometry.column)
        self._slot_column, self._slot_feature = on_device(geometry.slot_column), on_device(geometry.slot_feature)
        self._has_mean = bool((geometry.pooling == POOLING_CODE["mean"]).any())
        self._pieces = on_device(geometry.lookup_pieces)
        self._inverse_count = torch.ones((batch_size if self._has_mean else 1, len(geometry.length)), device=device)
        self._partial = torch.empty((0, geometry.embedding_dim), device=device)
        self._most_blocks = self._most_long_rows = 0

    def reserve(self, most_segments: int, most_long_rows: int) -> bool:
        """Make room for batches of so many blocks; returns whether graphs captured before are out of date."""
        before = (self._most_blocks, self._most_long_rows)
        self._most_blocks = max(self._most_blocks, most_segments)
        self._most_long_rows = max(self._most_long_rows, most_long_rows)
        if self._most_long_rows and len(self._partial) < self._most_blocks:
            shape = (self._most_blocks, self.geometry.embedding_dim)
            self._partial = torch.empty(shape, device=self._inverse_count.device)
        return before != (self._most_blocks, self._most_long_rows)

    def lookup(self, feed: InputViews, cold_lists: Tensor, num_hot_rows: int, weight: Tensor, out: Tensor) -> None:
        """Pool the rows of a batch.

        Parameters
        ----------
        cold_lists
            int64: holds, from where the header says, the row of the bank of each cold row of the batch.
        weight
            float32 ``[R, D]``, the bank.
        out
            float32 ``[B, W]``; written.
        """
        geometry = self.geometry
        num_features = len(geometry.length)
        _lookup_kernel[(triton.cdiv(self._batch_size, _BLOCK_INPUTS) * len(self._pieces),)](
            feed.words, cold_lists, feed.addresses, weight, out, self._inverse_count, self._pieces,
            self._first_slot, self._lengths, self._poolings, self._columns, self._field,
            num_hot_rows, self._batch_size, geometry.num_slots, geometry.width, num_features,
            DIM=geometry.embedding_dim, DIM_PADDED=self._padded, BLOCK=_BLOCK_INPUTS,
        )  # fmt: skip

    def update(
        self, feed: InputViews, cold_lists: Tensor, num_hot_rows: int, weight: Tensor, state: Tensor, gradient: Tensor,
        eps: float, betas: Betas = DEFAULT_BETAS,
    ) -> None:  # fmt: skip
        """Sum gradients by row and apply the optimizer, in place. The learning rate stands in the feed.

        Parameters
        ----------
        gradient
            float32 or bfloat16 ``[B, W]``, contiguous.
        """
        geometry, dim = self.geometry, self.geometry.embedding_dim
        state = state if state.numel() else weight
        order_end = self._batch_size * (geometry.order_start + len(geometry.slots))
        constants: dict[str, Any] = {
            "OPTIMIZER": self._optimizer, "DIM": dim, "DIM_PADDED": self._padded, "STAGED": self._staged,
        }  # fmt: skip
        decays = (eps, 1 - betas[0], 1 - betas[1])
        if self._most_blocks:
            blocks = min(64, max(1, SUMS["floats"] // self._padded))
            _block_sums_kernel[(triton.cdiv(self._most_blocks, blocks),)](
                feed.words, cold_lists, feed.order, gradient, weight, state, self._partial, self._inverse_count,
                self._slot_column, self._slot_feature, self._poolings, self._field,
                num_hot_rows, order_end, geometry.num_slots, geometry.width, len(geometry.length), *decays,
                BLOCKS=blocks, AT_ONCE=SUMS["at_once"], FLAT=geometry.is_flat, num_warps=SUMS["num_warps"], **constants,
            )  # fmt: skip
        if self._most_long_rows:
            _long_rows_kernel[(self._most_long_rows,)](
                feed.words, cold_lists, weight, state, self._partial, self._field, num_hot_rows, *decays,
                AT_ONCE=_PARTS_AT_ONCE, num_warps=1, **constants,
            )  # fmt: skip

    def carry(self, feed: InputViews, cold_lists: Tensor, num_hot_rows: int, weight: Tensor, state: Tensor) -> None:
        """In place of `update` where the model did not use the group: cold rows to their places in the slot."""
        dim, state_width = weight.shape[1], state.shape[1]
        if not self._staged:
            return
        _carry_kernel[(_CARRY_PROGRAMS,)](
            feed.words, cold_lists, weight, state if state_width else weight, self._field, num_hot_rows,
            DIM=dim, DIM_PADDED=self._padded, STATE=state_width,
            STATE_PADDED=triton.next_power_of_2(max(1, state_width)), BLOCK=_CARRIED_AT_ONCE,
        )  # fmt: skip
