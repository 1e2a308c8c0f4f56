"""Row kernels in Triton: pooled lookup, update, and the class that launches them.

They do what `fae.kernels.reference` defines, on a GPU, without a host copy or a wait. Everything that varies from batch
to batch is read from the batch's input buffer in device memory (`fae.kernels.input_views`), so a whole step can be one
CUDA graph.

Shapes in the kernels: B inputs, S slots an input, D embedding_dim padded to a power of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import triton
import triton.language as tl
from torch import Tensor

from fae.core.optimizers import DEFAULT_BETAS, OPTIMIZER_CODE, Betas
from fae.core.pooling import POOLING_CODE
from fae.kernels.geometry import GroupGeometry
from fae.kernels.input_views import BLOCK_ROWS, InputViews, group_field
from fae.kernels.triton_addresses import derive_group_addresses
from fae.kernels.triton_exchange import (
    exchange_kernel,
    host_sums_kernel,
    offer_kernel,
    pull_kernel,
    slice_long_rows_kernel,
    slice_sums_kernel,
)
from fae.kernels.triton_row_sums import long_rows_kernel, segment_sums_kernel
from fae.kernels.triton_shared import KEPT, MEAN, require_slices, to_row

_BLOCK_INPUTS = 32  # inputs of a program of the lookup
SUMS = {"floats": 256, "at_once": 4, "num_warps": 1}
"""Size of a program of the sums: segments times D, lookups of a segment that are read together, warps. The fastest of a
sweep on an H200. They change no result: lookups are added one after the other."""
RowPart = Literal["all", "hot", "cold"]
EXCHANGE = {"num_warps": 4}
"""Warps of a program of the exchange."""
_PARTS_AT_ONCE = 64  # segments of a long row; part of the order of sums
_CARRIED_AT_ONCE = 32  # rows that a program copies together
_PULLED_AT_ONCE = 64  # the same of rows of other GPUs; of 32, 64 and 128 none was faster in a probe on 4 H200
_CARRY_PROGRAMS = 264  # two for each processor of an H100


@triton.jit
def _lookup_kernel(
    words, cold_lists, addresses, weight, out, inverse_count, pieces, first_slot, lengths, poolings, columns, field,
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
    cold_rows = cold_lists + tl.load(words + field + 6)
    total = tl.zeros((BLOCK, DIM_PADDED), tl.float32)
    count = tl.zeros((BLOCK,), tl.float32)
    target = out + b.to(tl.int64)[:, None] * width + column + d[None, :]
    fits = inside[:, None] & (d < DIM)[None, :]
    # Each slot of a kept sequence is a piece of its own, so that no program adds up several of them.
    last = tl.where(pooling == KEPT, share + 1, length)
    for step in range(share, last):
        address = tl.load(addresses + b.to(tl.int64) * num_slots + first + step, mask=inside, other=-1)
        present = address >= 0
        row = to_row(address, num_hot_rows, cold_rows)
        vector = tl.load(
            weight + row[:, None] * DIM + d[None, :], mask=present[:, None] & (d < DIM)[None, :], other=0.0
        )
        if pooling == KEPT:
            tl.store(target + step * DIM, vector, mask=fits)
        else:
            total += vector
            count += tl.where(present, 1.0, 0.0)
    if pooling == MEAN:
        inverse = 1.0 / tl.maximum(count, 1.0)
        tl.store(inverse_count + b.to(tl.int64) * num_features + feature, inverse, mask=inside)
        total = total * inverse[:, None]
    if pooling != KEPT:
        tl.store(target, total, mask=fits)


@triton.jit
def _carry_kernel(
    words, cold_lists, weight, state, field, num_hot_rows, DIM: tl.constexpr, DIM_PADDED: tl.constexpr,
    STATE: tl.constexpr, STATE_PADDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    count = tl.load(words + field + 7)
    cold_rows = cold_lists + tl.load(words + field + 6)
    first_row = num_hot_rows + tl.load(words + field).to(tl.int64)
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


@dataclass(frozen=True, kw_only=True)
class SharedSums:
    """The sums of rows of all slices of a batch.

    Attributes
    ----------
    pointers
        int64 ``[slices]`` on the device, 2, 4 or 8 of them: where the sums of each slice are. Where sums are those of
        hosts ``[parts, hosts]``: each part of the list of rows has as many blocks.
    waiting
        int32 ``[1]`` on the device: 0 where none wait to be added.
    most_rows
        The most rows that the slices of any batch look up.
    owner
        Where each cold row has an owner, and cold rows are stepped: r and W of this rank, which steps those that it
        owns, in memory of its own; else None.
    host_slices
        Slices of a host, where sums are those of hosts.
    """

    pointers: Tensor
    waiting: Tensor
    most_rows: int
    owner: tuple[int, int] | None = None
    host_slices: int = 1


class TritonGroupKernels:
    """Lookup and update of one group on a GPU; every call only launches.

    Parameters
    ----------
    geometry
        Shape of the group's lookups.
    group
        Number of the group, which says where its words in the header of an input buffer are.
    batch_size
        B.
    optimizer
        Key of `OPTIMIZER_CODE`.
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

        def on_device(values: npt.NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(values).to(torch.int32).to(device)

        self._first_slot, self._lengths = on_device(geometry.first_slot), on_device(geometry.length)
        self._poolings, self._columns = on_device(geometry.pooling), on_device(geometry.column)
        self._slot_column, self._slot_feature = on_device(geometry.slot_column), on_device(geometry.slot_feature)
        self._has_mean = bool((geometry.pooling == POOLING_CODE["mean"]).any())
        self._pieces = on_device(geometry.lookup_pieces)
        self._inverse_count = torch.ones((batch_size if self._has_mean else 1, len(geometry.length)), device=device)
        self._partial = torch.empty((0, geometry.embedding_dim), device=device)
        self._most_segments = self._most_long_rows = 0

    def reserve(self, most_segments: int, most_long_rows: int) -> bool:
        """Make room for batches of up to that many segments and rows of several segments.

        Returns
        -------
        Whether graphs that were captured before are out of date.
        """
        before = (self._most_segments, self._most_long_rows)
        self._most_segments = max(self._most_segments, most_segments)
        self._most_long_rows = max(self._most_long_rows, most_long_rows)
        if self._most_long_rows and len(self._partial) < self._most_segments:
            shape = (self._most_segments, self.geometry.embedding_dim)
            self._partial = torch.empty(shape, device=self._inverse_count.device)
        return before != (self._most_segments, self._most_long_rows)

    @property
    def _order_end(self) -> int:
        return self._batch_size * (self.geometry.order_start + len(self.geometry.slots))

    def derive_addresses(self, inputs: InputViews, addresses: Tensor, pulled_from: int | None = None) -> None:
        """Write the group's part of the addresses of a batch that has an order, int32 ``[B, S]``.

        Where cold rows of a slice are pulled, `pulled_from` is H, from which on their places are.
        """
        begin = self._batch_size * self.geometry.order_start
        derive_group_addresses(inputs, self._field, begin, self._order_end, addresses, pulled_from)

    def offer(self, inputs: InputViews, cold_lists: Tensor, weight: Tensor, out: Tensor, most_rows: int) -> None:
        """Copy the staged rows of a batch to `out`, float32 ``[most_rows * D]``, in the order of their list.

        Parameters
        ----------
        cold_lists, weight
            As `lookup` takes them.
        most_rows
            The most staged rows of any batch.
        """
        offer_kernel[(triton.cdiv(most_rows, _PULLED_AT_ONCE),)](
            inputs.words, cold_lists, weight, out, self._field, DIM=self.geometry.embedding_dim,
            DIM_PADDED=self._padded, ROWS=_PULLED_AT_ONCE,
        )  # fmt: skip

    def pull(
        self, inputs: InputViews, num_hot_rows: int, weight: Tensor, owned: Tensor, most_rows: int, *, of_slice: bool
    ) -> None:
        """Copy cold rows from the ranks that own them to the places behind the hot rows.

        Parameters
        ----------
        weight
            float32 ``[H + places, D]``; row H + k is written for the k-th cold row.
        owned
            int64 ``[W]`` on the device: where the rows are that each rank owns.
        most_rows
            The most cold rows of any batch.
        of_slice
            Whether they are those that the slice of this rank looks up, in place of all of the batch.
        """
        pull_kernel[(triton.cdiv(most_rows, _PULLED_AT_ONCE),)](
            inputs.words, owned, weight, self._field, num_hot_rows, OF_SLICE=of_slice, OWNERS=len(owned),
            DIM=self.geometry.embedding_dim, DIM_PADDED=self._padded, ROWS=_PULLED_AT_ONCE,
        )  # fmt: skip

    def lookup(self, inputs: InputViews, cold_lists: Tensor, num_hot_rows: int, weight: Tensor, out: Tensor) -> None:
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
            inputs.words, cold_lists, inputs.addresses, weight, out, self._inverse_count, self._pieces,
            self._first_slot, self._lengths, self._poolings, self._columns, self._field,
            num_hot_rows, self._batch_size, geometry.num_slots, geometry.width, num_features,
            DIM=geometry.embedding_dim, DIM_PADDED=self._padded, BLOCK=_BLOCK_INPUTS,
        )  # fmt: skip

    def update(
        self, inputs: InputViews, cold_lists: Tensor, num_hot_rows: int, weight: Tensor, state: Tensor,
        gradient: Tensor, eps: float, betas: Betas = DEFAULT_BETAS, *, decays: bool = False,
    ) -> None:  # fmt: skip
        """Sum gradients by row and apply the optimizer, in place. The learning rate is read from the input buffer.

        Parameters
        ----------
        gradient
            float32 or bfloat16 ``[B, W]``, contiguous.
        decays
            Multiply each row by what the input buffer says decay leaves of it.
        """
        geometry, dim = self.geometry, self.geometry.embedding_dim
        state = state if state.numel() else weight
        constants: dict[str, Any] = {
            "OPTIMIZER": self._optimizer, "DIM": dim, "DIM_PADDED": self._padded, "STAGED": self._staged,
            "DECAYS": decays,
        }  # fmt: skip
        numbers = (eps, 1 - betas[0], 1 - betas[1])
        if self._most_segments:
            segments = min(64, max(1, SUMS["floats"] // self._padded))
            segment_sums_kernel[(triton.cdiv(self._most_segments, segments),)](
                inputs.words, cold_lists, inputs.order, gradient, weight, state, self._partial, self._inverse_count,
                self._slot_column, self._slot_feature, self._poolings, self._field,
                num_hot_rows, self._order_end, geometry.num_slots, geometry.width, len(geometry.length), *numbers,
                SEGMENTS=segments, AT_ONCE=SUMS["at_once"], FLAT=geometry.is_flat, num_warps=SUMS["num_warps"],
                **constants,
            )  # fmt: skip
        if self._most_long_rows:
            long_rows_kernel[(self._most_long_rows,)](
                inputs.words, cold_lists, weight, state, self._partial, self._field, num_hot_rows, *numbers,
                AT_ONCE=_PARTS_AT_ONCE, num_warps=1, **constants,
            )  # fmt: skip

    def sum_slice(
        self, inputs: InputViews, gradient: Tensor, sums: Tensor, waiting: Tensor, *, segment_lookups: int,
        most_rows: int, most_further: int, most_long_rows: int,
    ) -> None:  # fmt: skip
        """Sum the gradients of a slice by row, for `step_shared`.

        Parameters
        ----------
        gradient
            As `update` takes it.
        sums
            float32 ``[most_rows + most_further, D]``, written: the k-th is that of the k-th row of the slice.
        waiting
            int32 ``[1]``, set to 1: sums are there.
        segment_lookups
            Lookups of a segment.
        most_rows, most_further, most_long_rows
            The most rows, further segments and long rows of any batch.
        """
        geometry, dim = self.geometry, self.geometry.embedding_dim
        segments = min(64, max(1, SUMS["floats"] // self._padded))
        slice_sums_kernel[(triton.cdiv(most_rows + most_further, segments),)](
            inputs.words, inputs.order, gradient, sums, waiting, self._inverse_count, self._slot_column,
            self._slot_feature, self._poolings, self._field, self._order_end, geometry.num_slots, geometry.width,
            len(geometry.length),
            most_rows, LOOKUPS=segment_lookups, DIM=dim, DIM_PADDED=self._padded, SEGMENTS=segments,
            AT_ONCE=SUMS["at_once"], FLAT=geometry.is_flat, num_warps=SUMS["num_warps"],
        )  # fmt: skip
        if most_long_rows:
            slice_long_rows_kernel[(most_long_rows,)](
                inputs.words, sums, self._field, most_rows, DIM=dim, DIM_PADDED=self._padded,
                AT_ONCE=_PARTS_AT_ONCE, num_warps=1,
            )  # fmt: skip

    def sum_host(
        self, inputs: InputViews, pointers: Tensor, out: Tensor, most_rows: int, *, part: tuple[int, int],
        host: tuple[int, int],
    ) -> None:  # fmt: skip
        """Add the sums of the slices of a host, for a part of the rows of a batch.

        Parameters
        ----------
        pointers
            int64 ``[2, 4 or 8]`` on the device: where the sums of each slice of the host are.
        out
            float32, written: the k-th sum is that of the k-th row of the part that the host looks up.
        most_rows
            The most rows that the slices of any batch look up.
        part
            Its number, and how many parts there are.
        host
            Its number, and how many hosts there are.
        """
        require_slices(len(pointers))
        blocks = triton.cdiv(triton.cdiv(most_rows, BLOCK_ROWS), part[1])
        host_sums_kernel[(blocks,)](
            inputs.words, inputs.words.view(torch.uint8), pointers, out, self._field, part[0], host[0],
            DIM=self.geometry.embedding_dim, DIM_PADDED=self._padded, ROWS=BLOCK_ROWS, SLICES=len(pointers),
            PARTS=part[1], HOSTS=host[1], num_warps=EXCHANGE["num_warps"],
        )  # fmt: skip

    def step_shared(
        self, inputs: InputViews, cold_lists: Tensor, num_hot_rows: int, weight: Tensor, state: Tensor,
        sums: SharedSums, eps: float, betas: Betas = DEFAULT_BETAS, *, decays: bool = False, part: RowPart = "all",
    ) -> None:  # fmt: skip
        """Sum all slices of a batch and apply the optimizer to every row that one of them looks up.

        Parameters
        ----------
        part
            ``hot`` or ``cold`` rows alone, or ``all``.
        """
        require_slices(sums.pointers.shape[-1])
        own_rank, owners = sums.owner or (0, 0)
        parts = len(sums.pointers) if sums.pointers.dim() > 1 else 1
        exchange_kernel[(triton.cdiv(sums.most_rows, BLOCK_ROWS),)](
            inputs.words, inputs.words.view(torch.uint8), cold_lists, sums.pointers, sums.waiting, weight,
            state if state.numel() else weight, self._field, num_hot_rows, eps, 1 - betas[0], 1 - betas[1],
            own_rank, OPTIMIZER=self._optimizer,
            DIM=self.geometry.embedding_dim, DIM_PADDED=self._padded, ROWS=BLOCK_ROWS,
            SLICES=sums.pointers.shape[-1], STAGED=self._staged, DECAYS=decays, HOT=part != "cold",
            COLD=part != "hot", OWNERS=owners, PARTS=parts, WIDTH=sums.host_slices, num_warps=EXCHANGE["num_warps"],
        )  # fmt: skip

    def carry(self, inputs: InputViews, cold_lists: Tensor, num_hot_rows: int, weight: Tensor, state: Tensor) -> None:
        """Copy cold rows to their places in the slot: in place of `update` where the model did not use the group."""
        dim, state_width = weight.shape[1], state.shape[1]
        if not self._staged:
            return
        _carry_kernel[(_CARRY_PROGRAMS,)](
            inputs.words, cold_lists, weight, state if state_width else weight, self._field, num_hot_rows,
            DIM=dim, DIM_PADDED=self._padded, STATE=state_width,
            STATE_PADDED=triton.next_power_of_2(max(1, state_width)), BLOCK=_CARRIED_AT_ONCE,
        )  # fmt: skip
