"""The step of one row on the CPU, and an update in two halves: sum each row's gradients, then step rows by their sums.

`fae.kernels.cpu` does both at once. Where ranks train together, sums are exchanged between the halves. The arithmetic
is the same, in the same order, so one rank ends with the same bytes either way. Where a pooled gradient begins is
written out in both: as a function of its own, inlined, it made both loops take twice the time.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fae.core.compiled import njit
from fae.core.compiling.prefetch import prefetch_row
from fae.core.optimizers import OPTIMIZER_CODE
from fae.core.pooling import POOLING_CODE

AHEAD = 16  # lookups between prefetching a row and using it: best of 4, 8, 16, 32 on an AMD EPYC with 32 MiB of L3

_ROWWISE_ADAGRAD, _ADAGRAD, _ADAM = (OPTIMIZER_CODE[name] for name in ("rowwise_adagrad", "adagrad", "adam"))
_MEAN = POOLING_CODE["mean"]


# numpy's division: a test for zero before each one would keep LLVM from vectorising, and eps makes it needless.
@njit(cache=True, nogil=True, error_model="numpy")
def step_row(weight, state, row, total, optimizer, learning_rate, eps, decay, square_decay, kept_share):
    """Apply the optimizer to one row, from the sum of its gradients."""
    dim = total.size
    if kept_share != np.float32(1.0):
        for d in range(dim):
            weight[row, d] *= kept_share
    if optimizer == _ADAM:  # state: first moments, then second moments; the rate is bias-corrected
        for d in range(dim):
            gradient = total[d]
            moment = state[row, d] + (gradient - state[row, d]) * decay
            square = state[row, dim + d] + (gradient * gradient - state[row, dim + d]) * square_decay
            state[row, d] = moment
            state[row, dim + d] = square
            weight[row, d] -= learning_rate * (moment / (np.sqrt(square) + eps))
        return
    if optimizer == _ADAGRAD:
        for d in range(dim):
            square = state[row, d] + total[d] * total[d]
            state[row, d] = square
            weight[row, d] -= learning_rate * (total[d] / (np.sqrt(square) + eps))
        return
    step = learning_rate
    if optimizer == _ROWWISE_ADAGRAD:
        squares = np.float32(0.0)
        for d in range(dim):
            squares += total[d] * total[d]
        state[row, 0] += squares / np.float32(dim)
        step = learning_rate / (np.sqrt(state[row, 0]) + eps)
    for d in range(dim):
        weight[row, d] -= step * total[d]


@cache
def sum_kernel(dim: int, flat: bool) -> Any:
    """The loop that sums the gradients of each row of a list; `flat` as `GroupGeometry.is_flat`."""

    @njit(cache=True, nogil=True)
    def sum_rows(
        starts, end, order, grad, width, num_slots, slot_column, slot_feature, pooling, inverse_count, sums, start,
        stop,
    ):  # fmt: skip
        for k in range(start, stop):
            last = starts[k + 1] if k + 1 < starts.size else end
            for d in range(dim):
                sums[k, d] = np.float32(0.0)
            for i in range(starts[k], last):
                lookup = np.int64(order[i])
                if i + AHEAD < end and flat:
                    prefetch_row(grad, np.int64(order[i + AHEAD]), dim)
                if flat:
                    for d in range(dim):
                        sums[k, d] += grad[lookup * dim + d]
                    continue
                b = lookup // num_slots
                s = lookup - b * num_slots
                base = b * width + slot_column[s]
                scale = np.float32(1.0)
                if pooling[slot_feature[s]] == _MEAN:
                    scale = inverse_count[b, slot_feature[s]]
                for d in range(dim):
                    sums[k, d] += scale * grad[base + d]

    return sum_rows


@cache
def step_kernel(dim: int) -> Any:
    """The loop that applies the optimizer to a list of rows, for rows of `dim` floats."""

    @njit(cache=True, nogil=True)
    def step_rows(
        weight, state, rows, totals, optimizer, learning_rate, eps, decay, square_decay, kept_share, start, stop
    ):
        flat_weight = weight.reshape(-1)
        for k in range(start, stop):
            if k + AHEAD < stop:
                prefetch_row(flat_weight, rows[k + AHEAD], dim)
            step_row(weight, state, rows[k], totals[k], optimizer, learning_rate, eps, decay, square_decay, kept_share)

    return step_rows
