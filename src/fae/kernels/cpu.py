"""Row kernels on the CPU: numba loops over preallocated buffers, cut over threads by contiguous ranges.

They do what `fae.kernels.reference` defines. The gradients of a row are summed in the order of its lookups however many
threads there are, so results are the same bytes. Nothing is allocated per batch: fresh buffers cost more than the
arithmetic (page faults).

The loops are compiled once per embedding_dim: a constant D lets LLVM keep a row in registers, which together with
`prefetch` makes the update four times faster than the same loop with a variable D.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fae.core.compiled import njit, read_only
from fae.core.compiling.prefetch import prefetch, prefetch_row
from fae.core.optimizers import DEFAULT_BETAS, OPTIMIZER_CODE, Betas, bias_corrected_rate
from fae.core.pooling import POOLING_CODE
from fae.core.threads import run_ranges
from fae.kernels.cpu_row_steps import AHEAD, step_kernel, step_row, sum_kernel
from fae.kernels.geometry import GroupGeometry

if TYPE_CHECKING:
    import torch

Int = npt.NDArray[np.int64]

_FIRST = np.zeros(1, np.int64)  # the slot of a list of addresses
_MIN_LOOKUPS = 4096  # waking a thread for fewer costs more than it saves

_ADAM = OPTIMIZER_CODE["adam"]
_MEAN, _KEPT = POOLING_CODE["mean"], POOLING_CODE["none"]


@njit(cache=True, nogil=True)
def translate(addresses, slots, num_hot_rows, shift, cold_rows, rows, start, stop):
    """Rows of the bank from addresses of a range of inputs."""
    by_list = cold_rows.size > 0
    for b in range(start, stop):
        for position in range(slots.size):
            s = slots[position]
            row = np.int64(addresses[b, s])
            if row >= num_hot_rows:
                row = cold_rows[row - num_hot_rows] if by_list else row + shift
            rows[b, s] = row


def rows_of_addresses(addresses: npt.NDArray[np.int32], num_hot_rows: int, *, shift: int, cold_rows: Int) -> Int:
    """Rows of the bank of some addresses, int64 ``[n]``; parameters as `CpuGroupKernels.lookup` takes them."""
    rows = np.empty((len(addresses), 1), np.int64)
    translate(read_only(addresses.reshape(-1, 1)), _FIRST, num_hot_rows, shift, cold_rows, rows, 0, len(addresses))
    return rows.reshape(-1)


@cache
def gather_kernel(dim: int) -> Any:
    """The loop that copies one row for each lookup, for rows of `dim` floats."""

    @njit(cache=True, nogil=True)
    def gather(weight, rows, out, start, stop):
        flat = weight.reshape(-1)
        for lookup in range(start, stop):
            if lookup + AHEAD < stop:
                prefetch_row(flat, max(rows[lookup + AHEAD], 0), dim)
            row = rows[lookup]
            if row >= 0:
                for d in range(dim):
                    out[lookup, d] = weight[row, d]
            else:
                for d in range(dim):
                    out[lookup, d] = np.float32(0.0)

    return gather


@cache
def pool_kernel(dim: int) -> Any:
    """The loop that pools the rows of each feature, for rows of `dim` floats."""

    @njit(cache=True, nogil=True)
    def pool(weight, rows, first_slot, length, pooling, column, out, inverse_count, start, stop):
        flat, inputs_ahead = weight.reshape(-1), 1 + AHEAD // rows.shape[1]
        for b in range(start, stop):
            if b + inputs_ahead < stop:
                for slot in range(rows.shape[1]):
                    prefetch_row(flat, max(rows[b + inputs_ahead, slot], 0), dim)
            for f in range(first_slot.size):
                count, c = 0, column[f]
                if pooling[f] != _KEPT:
                    for d in range(dim):
                        out[b, c + d] = np.float32(0.0)
                for step in range(length[f]):
                    row = rows[b, first_slot[f] + step]
                    if pooling[f] == _KEPT:
                        for d in range(dim):
                            out[b, c + d] = weight[row, d] if row >= 0 else np.float32(0.0)
                        c += dim
                    elif row >= 0:
                        count += 1
                        for d in range(dim):
                            out[b, c + d] += weight[row, d]
                if pooling[f] == _MEAN:
                    inverse_count[b, f] = np.float32(1.0) / np.float32(max(count, 1))
                    for d in range(dim):
                        out[b, c + d] *= inverse_count[b, f]

    return pool


@cache
def update_kernel(dim: int, flat: bool) -> Any:
    """The loop that sums the gradients of each row and applies the optimizer; `flat` as `GroupGeometry.is_flat`."""

    @njit(cache=True, nogil=True)
    def update(
        weight, state, flat_state, rows, order, grad, width, num_slots, slot_column, slot_feature, pooling,
        inverse_count, optimizer, learning_rate, eps, decay, square_decay, kept_share, start, stop,
    ):  # fmt: skip
        total = np.zeros(dim, np.float32)
        state_width, flat_weight = state.shape[1], weight.reshape(-1)
        i = start
        # The lookups of a row belong to the range in which they begin.
        while 0 < i < stop and rows[order[i]] == rows[order[i - 1]]:
            i += 1
        if i >= stop:
            return
        current = rows[order[i]]
        while i < order.size:
            if i + 2 * AHEAD < order.size:
                prefetch(rows, np.int64(order[i + 2 * AHEAD]))
                ahead = np.int64(order[i + AHEAD])
                row_ahead = max(rows[ahead], 0)
                prefetch_row(flat_weight, row_ahead, dim)
                prefetch_row(flat_state, row_ahead, state_width)  # Adam's state of 16-float rows takes two cache lines
                if flat:
                    prefetch_row(grad, ahead, dim)
            lookup = np.int64(order[i])
            row = rows[lookup]
            if row != current:
                if current >= 0:
                    step_row(
                        weight, state, current, total, optimizer, learning_rate, eps, decay, square_decay, kept_share
                    )
                if i >= stop:
                    return
                for d in range(dim):
                    total[d] = np.float32(0.0)
                current = row
            if flat:
                for d in range(dim):
                    total[d] += grad[lookup * dim + d]
            elif row >= 0:
                b = lookup // num_slots
                s = lookup - b * num_slots
                base = b * width + slot_column[s]
                scale = np.float32(1.0)
                if pooling[slot_feature[s]] == _MEAN:
                    scale = inverse_count[b, slot_feature[s]]
                for d in range(dim):
                    total[d] += scale * grad[base + d]
            i += 1
        if current >= 0:
            step_row(weight, state, current, total, optimizer, learning_rate, eps, decay, square_decay, kept_share)

    return update


class CpuGroupKernels:
    """Lookup and update of one group, with the buffers they need.

    Parameters
    ----------
    geometry
        Shape of the group's lookups.
    batch_size
        B.
    optimizer
        Key of `OPTIMIZER_CODE`.
    """

    def __init__(self, geometry: GroupGeometry, batch_size: int, optimizer: str) -> None:
        self.geometry = geometry
        self._optimizer = OPTIMIZER_CODE[optimizer]
        self._rows = np.full((batch_size, geometry.num_slots), -1, np.int64)
        self._inverse_count = np.ones((batch_size, len(geometry.length)), np.float32)
        self._slot_column, self._slot_feature = geometry.slot_column, geometry.slot_feature

    def lookup(
        self,
        addresses: npt.NDArray[np.int32],
        num_hot_rows: int,
        weight: torch.Tensor,
        out: torch.Tensor,
        *,
        shift: int,
        cold_rows: Int,
    ) -> None:
        """Turn a batch's addresses into rows of the bank, keep their numbers for `update`, and pool the rows.

        Parameters
        ----------
        addresses
            int32 ``[B, S]``.
        num_hot_rows
            H: addresses from H on are cold.
        weight
            float32 ``[R, D]``.
        out
            float32 ``[B, W]``, contiguous; written.
        shift, cold_rows
            A cold address becomes ``cold_rows[address - H]``, or ``address + shift`` where `cold_rows` is empty.
        """
        geometry, dim = self.geometry, self.geometry.embedding_dim
        table, pooled = weight.detach().numpy(), out.detach().numpy()
        kernel = gather_kernel(dim) if geometry.is_flat else pool_kernel(dim)

        def work(start: int, stop: int) -> None:
            translate(addresses, geometry.slots, num_hot_rows, shift, cold_rows, self._rows, start, stop)
            if geometry.is_flat:
                rows, flat = self._rows.reshape(-1), pooled.reshape(-1, dim)
                kernel(table, rows, flat, start * geometry.num_slots, stop * geometry.num_slots)
                return
            kernel(
                table, self._rows, geometry.first_slot, geometry.length, geometry.pooling, geometry.column,
                pooled, self._inverse_count, start, stop,
            )  # fmt: skip

        run_ranges(work, len(addresses), min_range=max(1, _MIN_LOOKUPS // max(1, geometry.num_slots)))

    def update(
        self,
        weight: torch.Tensor,
        state: torch.Tensor,
        order: npt.NDArray[np.int32],
        grad: torch.Tensor,
        learning_rate: float,
        eps: float,
        *,
        betas: Betas = DEFAULT_BETAS,
        step: int = 1,
        kept_share: float = 1.0,
    ) -> None:
        """Sum gradients by row and apply the optimizer, in place.

        Parameters
        ----------
        weight, state
            float32 ``[R, D]`` and ``[R, state width]``.
        order
            int32: the group's part of the batch's ``order``.
        grad
            float32 ``[B, W]``; copied where it is not contiguous.
        betas, step
            For Adam: decays of the two moments; number of this step, from 1.
        kept_share
            What each row is multiplied by before its step: weight decay.
        """
        geometry = self.geometry
        table, table_state = weight.numpy(), state.numpy()
        kernel = update_kernel(geometry.embedding_dim, geometry.is_flat)
        rows, flat_grad = self._rows.reshape(-1), grad.contiguous().numpy().reshape(-1)
        flat_state = table_state.reshape(-1)
        settings = self._settings(learning_rate, eps, betas, step, kept_share)
        run_ranges(
            lambda start, stop: kernel(
                table, table_state, flat_state, rows, order, flat_grad, geometry.width, geometry.num_slots,
                self._slot_column, self._slot_feature, geometry.pooling, self._inverse_count, *settings, start, stop,
            ),
            order.size,
            min_range=_MIN_LOOKUPS,
        )  # fmt: skip

    def sum_rows(
        self,
        order: npt.NDArray[np.int32],
        starts: npt.NDArray[np.int32],
        end: int,
        grad: npt.NDArray[np.float32],
        out: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Sum the gradients of each row of the latest lookup: the first half of `update`.

        Parameters
        ----------
        order
            int32: that of the batch, over all groups.
        starts
            int32 ``[n]``: place in `order` of the first lookup of each row of the group, ascending.
        end
            Where the group's part of `order` ends.
        grad
            float32 ``[B, W]``; copied where it is not contiguous.
        out
            float32 ``[n, D]``, contiguous; written in place of a new array.

        Returns
        -------
        numpy.ndarray
            float32 ``[n, D]``, in the order of `starts`: `out`, where it is given.
        """
        geometry = self.geometry
        kernel = sum_kernel(geometry.embedding_dim, geometry.is_flat)
        sums = np.empty((len(starts), geometry.embedding_dim), np.float32) if out is None else out
        flat_grad = np.ascontiguousarray(grad).reshape(-1)
        run_ranges(
            lambda start, stop: kernel(
                starts, end, order, flat_grad, geometry.width, geometry.num_slots, self._slot_column,
                self._slot_feature, geometry.pooling, self._inverse_count, sums, start, stop,
            ),
            len(starts),
            min_range=_MIN_LOOKUPS,
        )  # fmt: skip
        return sums

    def step_rows(
        self,
        weight: torch.Tensor,
        state: torch.Tensor,
        rows: Int,
        totals: npt.NDArray[np.float32],
        learning_rate: float,
        eps: float,
        *,
        betas: Betas = DEFAULT_BETAS,
        step: int = 1,
        kept_share: float = 1.0,
    ) -> None:
        """Apply the optimizer to rows, in place, from the sums of their gradients: the second half of `update`.

        Parameters
        ----------
        rows
            int64 ``[n]``: rows of the bank, each once.
        totals
            float32 ``[n, D]``, contiguous.
        """
        table, table_state = weight.numpy(), state.numpy()
        kernel, settings = step_kernel(totals.shape[1]), self._settings(learning_rate, eps, betas, step, kept_share)
        run_ranges(
            lambda start, stop: kernel(table, table_state, rows, totals, *settings, start, stop),
            len(rows),
            min_range=_MIN_LOOKUPS,
        )

    def _settings(
        self, learning_rate: float, eps: float, betas: Betas, step: int, kept_share: float
    ) -> tuple[int | np.float32, ...]:
        """The optimizer and its numbers, as the loops take them."""
        is_adam = self._optimizer == _ADAM
        rate = bias_corrected_rate(learning_rate, betas, step) if is_adam else learning_rate
        return (
            self._optimizer, np.float32(rate), np.float32(eps), np.float32(1 - betas[0]), np.float32(1 - betas[1]),
            np.float32(kept_share),
        )  # fmt: skip
