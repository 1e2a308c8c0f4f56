"""Lookup and dot interaction in one Triton kernel, forward and backward, in bfloat16.

It does what `fae.models.dlrm` would do with pooled embeddings, straight from the bank: the rows of an input are
gathered by address, rounded to bfloat16 and multiplied with one another in registers, so pooled embeddings are never
written to memory. The backward pass gathers them again (reading rows is cheaper than writing and reading what was
gathered) and writes one gradient a lookup, which `fae.kernels.triton_rows` sums. Products are summed in float32; only
operands and results are rounded to bfloat16, as under torch's autocast.

V = F + 1 vectors an input: the dense one first, then one a feature. Columns of the output: the dense vector, the strict
lower triangle row by row, zeros up to a multiple of 8 (tensor cores prefer that).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fae.kernels.geometry import GroupGeometry
from fae.kernels.input_views import InputViews, group_field
from fae.kernels.triton_shared import operand, to_row

FORWARD = {"inputs": 2, "num_warps": 1}
BACKWARD = {"inputs": 2, "num_warps": 1}
"""Inputs and warps of a program, the fastest of a sweep on an H200."""

_DIMS = (16, 32, 64, 128)


def interaction_width(num_features: int, dim: int) -> int:
    """Columns of the output for F features of width D.

    >>> interaction_width(26, 16)
    368
    """
    return -(-(dim + (num_features + 1) * num_features // 2) // 8) * 8


def can_fuse(geometry: GroupGeometry) -> bool:
    """Whether the fused kernel can run this group: every slot is in it, one id a feature, a width for tensor cores."""
    return geometry.is_flat and geometry.embedding_dim in _DIMS and len(geometry.slots) < 128


@triton.jit
def _vectors(
    words, cold_lists, addresses, weight, dense, field, b, num_hot_rows, batch_size,
    FEATURES: tl.constexpr, DIM: tl.constexpr, VECTORS: tl.constexpr,
):  # fmt: skip
    """bfloat16 ``[inputs, VECTORS, D]``: the dense vector, then the rows of the features, then zeros."""
    v = tl.arange(0, VECTORS)
    d = tl.arange(0, DIM)
    inside = b < batch_size
    is_feature = inside[:, None] & (v > 0)[None, :] & (v <= FEATURES)[None, :]
    address = tl.load(addresses + b.to(tl.int64)[:, None] * FEATURES + (v - 1)[None, :], mask=is_feature, other=-1)
    present = address >= 0
    row = to_row(address, num_hot_rows, cold_lists + tl.load(words + field + 6))
    rows = tl.load(weight + row[:, :, None] * DIM + d[None, None, :], mask=present[:, :, None], other=0.0)
    is_dense = inside[:, None, None] & (v == 0)[None, :, None]
    dense_part = tl.load(
        dense + b.to(tl.int64)[:, None, None] * DIM + tl.zeros((1, VECTORS, 1), tl.int32) + d[None, None, :],
        mask=is_dense, other=0.0,
    )  # fmt: skip
    return operand(rows + dense_part.to(tl.float32))  # one of the two is zero


@triton.jit
def _forward_kernel(
    words, cold_lists, addresses, weight, dense, out, field, num_hot_rows, batch_size,
    FEATURES: tl.constexpr, DIM: tl.constexpr, VECTORS: tl.constexpr, WIDTH: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0) * INPUTS + tl.arange(0, INPUTS)
    inside = b < batch_size
    x = _vectors(
        words, cold_lists, addresses, weight, dense, field, b, num_hot_rows, batch_size, FEATURES, DIM, VECTORS
    )  # fmt: skip
    products = tl.dot(x, tl.permute(x, (0, 2, 1)))
    i = tl.arange(0, VECTORS)[:, None]
    j = tl.arange(0, VECTORS)[None, :]
    place = DIM + i * (i - 1) // 2 + j
    kept = (j < i) & (i <= FEATURES)
    start = b.to(tl.int64) * WIDTH
    tl.store(
        out + start[:, None, None] + place[None, :, :], products.to(tl.bfloat16),
        mask=inside[:, None, None] & kept[None, :, :],
    )  # fmt: skip
    d = tl.arange(0, DIM)
    direct = tl.load(dense + b.to(tl.int64)[:, None] * DIM + d[None, :], mask=inside[:, None], other=0.0)
    tl.store(out + start[:, None] + d[None, :], direct, mask=inside[:, None])
    used: tl.constexpr = DIM + (FEATURES + 1) * FEATURES // 2
    pad = used + tl.arange(0, 8)
    tl.store(
        out + start[:, None] + pad[None, :], tl.zeros((INPUTS, 8), tl.bfloat16),
        mask=inside[:, None] & (pad < WIDTH)[None, :],
    )  # fmt: skip


@triton.jit
def _backward_kernel(
    words, cold_lists, addresses, weight, dense, grad_out, grad_dense, grad_rows, field, num_hot_rows, batch_size,
    FEATURES: tl.constexpr, DIM: tl.constexpr, VECTORS: tl.constexpr, WIDTH: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0) * INPUTS + tl.arange(0, INPUTS)
    inside = b < batch_size
    x = _vectors(
        words, cold_lists, addresses, weight, dense, field, b, num_hot_rows, batch_size, FEATURES, DIM, VECTORS
    )  # fmt: skip
    i = tl.arange(0, VECTORS)[:, None]
    j = tl.arange(0, VECTORS)[None, :]
    high = tl.maximum(i, j)
    place = DIM + high * (high - 1) // 2 + tl.minimum(i, j)
    kept = (i != j) & (high <= FEATURES)
    start = b.to(tl.int64) * WIDTH
    pairs = tl.load(
        grad_out + start[:, None, None] + place[None, :, :], mask=inside[:, None, None] & kept[None, :, :], other=0.0
    )
    grad = tl.dot(operand(pairs), x)
    v = tl.arange(0, VECTORS)
    d = tl.arange(0, DIM)
    is_feature = inside[:, None] & (v > 0)[None, :] & (v <= FEATURES)[None, :]
    lookup = b.to(tl.int64)[:, None] * FEATURES + (v - 1)[None, :]
    tl.store(
        grad_rows + lookup[:, :, None] * DIM + d[None, None, :], grad.to(grad_rows.dtype.element_ty),
        mask=is_feature[:, :, None],
    )  # fmt: skip
    of_dense = tl.sum(tl.where((v == 0)[None, :, None], grad, 0.0), axis=1)
    direct = tl.load(grad_out + start[:, None] + d[None, :], mask=inside[:, None], other=0.0).to(tl.float32)
    tl.store(
        grad_dense + b.to(tl.int64)[:, None] * DIM + d[None, :], (of_dense + direct).to(tl.bfloat16),
        mask=inside[:, None],
    )  # fmt: skip


class InteractionKernels:
    """Fused lookup and interaction of one group, forward and backward.

    Parameters
    ----------
    geometry
        Shape of the group's lookups; `can_fuse` must hold.
    group
        Number of the group.
    """

    def __init__(self, geometry: GroupGeometry, group: int, batch_size: int) -> None:
        self._batch_size, self._field = batch_size, group_field(group)
        features, dim = len(geometry.slots), geometry.embedding_dim
        self.width = interaction_width(features, dim)
        self._constants: dict[str, Any] = {
            "FEATURES": features, "DIM": dim, "VECTORS": max(16, triton.next_power_of_2(features + 1)),
            "WIDTH": self.width,
        }  # fmt: skip

    def forward(
        self, inputs: InputViews, cold_lists: Tensor, num_hot_rows: int, weight: Tensor, dense: Tensor
    ) -> Tensor:
        """Output, bfloat16 ``[B, width]``, from the bank ``[R, D]`` and the dense vectors, bfloat16 ``[B, D]``."""
        out = torch.empty((self._batch_size, self.width), dtype=torch.bfloat16, device=weight.device)
        _forward_kernel[(triton.cdiv(self._batch_size, FORWARD["inputs"]),)](
            inputs.words, cold_lists, inputs.addresses, weight, dense, out, self._field, num_hot_rows, self._batch_size,
            INPUTS=FORWARD["inputs"], num_warps=FORWARD["num_warps"], **self._constants,
        )  # fmt: skip
        return out

    def backward(
        self, inputs: InputViews, cold_lists: Tensor, num_hot_rows: int, weight: Tensor, dense: Tensor,
        grad_out: Tensor, grad_rows: Tensor,
    ) -> Tensor:  # fmt: skip
        """Gradient of the dense vectors, bfloat16 ``[B, D]``; `grad_rows` ``[B, F * D]`` is written."""
        grad_dense = torch.empty_like(dense)
        _backward_kernel[(triton.cdiv(self._batch_size, BACKWARD["inputs"]),)](
            inputs.words, cold_lists, inputs.addresses, weight, dense, grad_out, grad_dense, grad_rows, self._field,
            num_hot_rows, self._batch_size, INPUTS=BACKWARD["inputs"], num_warps=BACKWARD["num_warps"],
            **self._constants,
        )  # fmt: skip
        return grad_dense
