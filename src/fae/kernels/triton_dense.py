"""Kernels of the dense part: a matrix product whose epilogue does what would be a pass of its own.

Place in the flow: `fae.models.fused_mlp` calls these between the vendor library's products. At these sizes (K of at
most some hundreds) a product waits for memory, so every pass over an activation that an epilogue saves is time saved.
Invariant: sums are in float32 and in a fixed order; no atomics.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fae.kernels.triton_rows import operand

_ROWS_OF_SUMS = 128


@triton.jit
def _masked_product_kernel(
    a, b, x, out, sums, M, N, K,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    row, column = m.to(tl.int64)[:, None], n[None, :]
    for start in range(0, K, BLOCK_K):
        if EVEN:
            left = tl.load(a + row * K + (start + k)[None, :])
            right = tl.load(b + (start + k)[:, None] * N + column)
        else:
            in_k = start + k < K
            left = tl.load(a + row * K + (start + k)[None, :], mask=(m < M)[:, None] & in_k[None, :], other=0.0)
            right = tl.load(b + (start + k)[:, None] * N + column, mask=in_k[:, None] & (n < N)[None, :], other=0.0)
        total = tl.dot(operand(left), operand(right), total)
    inside = (m < M)[:, None] & (n < N)[None, :]
    place = row * N + column
    active = tl.load(x + place, mask=inside, other=0.0).to(tl.float32) > 0
    total = tl.where(active, total, 0.0)
    tl.store(out + place, total.to(tl.bfloat16), mask=inside)
    tl.store(sums + tl.program_id(0).to(tl.int64) * N + n, tl.sum(total, axis=0), mask=n < N)


def masked_product(a: Tensor, b: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """``(a @ b) * (x > 0)`` and its column sums: the gradient that a ReLU layer passes down, and that of its bias.

    Parameters
    ----------
    a
        bfloat16 ``[M, K]``: gradient behind the layer's successor.
    b
        bfloat16 ``[K, N]``: weight of the successor.
    x
        bfloat16 ``[M, N]``: output of the layer, behind its ReLU.

    Returns
    -------
    bfloat16 ``[M, N]`` and partial column sums, float32 ``[M / 128, N]``, of what was rounded.
    """
    (m, k), n = a.shape, b.shape[1]
    block_n = min(256, max(16, triton.next_power_of_2(n)))
    if block_n == 256 and n % 256:
        block_n = 128
    block_k = min(64, max(16, triton.next_power_of_2(k)))
    out = torch.empty((m, n), dtype=torch.bfloat16, device=a.device)
    sums = torch.empty((triton.cdiv(m, _ROWS_OF_SUMS), n), dtype=torch.float32, device=a.device)
    even = m % _ROWS_OF_SUMS == 0 and n % block_n == 0 and k % block_k == 0
    _masked_product_kernel[(triton.cdiv(m, _ROWS_OF_SUMS), triton.cdiv(n, block_n))](
        a, b, x, out, sums, m, n, k, BLOCK_M=_ROWS_OF_SUMS, BLOCK_N=block_n, BLOCK_K=block_k, EVEN=even,
        num_warps=8 if block_n >= 128 else 4, num_stages=3,
    )  # fmt: skip
    return out, sums


@triton.jit
def _logit_kernel(x, weight, bias, out, M, N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.arange(0, BLOCK_N)
    values = tl.load(
        x + m.to(tl.int64)[:, None] * N + n[None, :], mask=(m < M)[:, None] & (n < N)[None, :], other=0.0
    ).to(tl.float32)
    w = tl.load(weight + n, mask=n < N, other=0.0).to(tl.float32)
    tl.store(out + m, tl.sum(values * w[None, :], axis=1) + tl.load(bias).to(tl.float32), mask=m < M)


@triton.jit
def _logit_backward_kernel(
    x, weight, grad, grad_x, sums_x, sums_weight, sums_bias, M,
    N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.arange(0, BLOCK_N)
    inside = (m < M)[:, None] & (n < N)[None, :]
    place = m.to(tl.int64)[:, None] * N + n[None, :]
    values = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(grad + m, mask=m < M, other=0.0)
    w = tl.load(weight + n, mask=n < N, other=0.0).to(tl.float32)
    down = g[:, None] * w[None, :]
    if MASKED:
        down = tl.where(values > 0, down, 0.0)
    tl.store(grad_x + place, down.to(tl.bfloat16), mask=inside)
    part = tl.program_id(0).to(tl.int64)
    tl.store(sums_x + part * N + n, tl.sum(down, axis=0), mask=n < N)
    tl.store(sums_weight + part * N + n, tl.sum(values * g[:, None], axis=0), mask=n < N)
    tl.store(sums_bias + part, tl.sum(g, axis=0))


_LOGIT_ROWS = 64


def logits(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x @ weight + bias`` for a layer of width 1: float32 ``[M]`` from bfloat16 ``[M, N]``, ``[N]`` and ``[1]``."""
    m, n = x.shape
    out = torch.empty(m, dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(n)
    _logit_kernel[(triton.cdiv(m, _LOGIT_ROWS),)](x, weight, bias, out, m, N=n, BLOCK_M=_LOGIT_ROWS, BLOCK_N=block)
    return out


def logits_backward(x: Tensor, weight: Tensor, grad: Tensor, *, masked: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Backward of `logits` and, where `masked`, of the ReLU below it.

    Returns
    -------
    Gradient of `x` (bfloat16 ``[M, N]``), and partial sums over rows, float32: its columns, weight and bias.
    """
    m, n = x.shape
    parts = triton.cdiv(m, _LOGIT_ROWS)
    grad_x = torch.empty_like(x)
    sums_x, sums_weight = torch.empty((2, parts, n), dtype=torch.float32, device=x.device)
    sums_bias = torch.empty((parts, 1), dtype=torch.float32, device=x.device)
    _logit_backward_kernel[(parts,)](
        x, weight, grad, grad_x, sums_x, sums_weight, sums_bias, m,
        N=n, BLOCK_M=_LOGIT_ROWS, BLOCK_N=triton.next_power_of_2(n), MASKED=masked,
    )  # fmt: skip
    return grad_x, sums_x, sums_weight, sums_bias


@triton.jit
def _relu_mask_kernel(grad, x, out, sums, M, N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.arange(0, BLOCK_N)
    inside = (m < M)[:, None] & (n < N)[None, :]
    place = m.to(tl.int64)[:, None] * N + n[None, :]
    active = tl.load(x + place, mask=inside, other=0.0).to(tl.float32) > 0
    values = tl.where(active, tl.load(grad + place, mask=inside, other=0.0).to(tl.float32), 0.0)
    tl.store(out + place, values.to(tl.bfloat16), mask=inside)
    tl.store(sums + tl.program_id(0).to(tl.int64) * N + n, tl.sum(values, axis=0), mask=n < N)


def relu_mask(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """``grad * (x > 0)`` and its partial column sums, as `masked_product` gives them."""
    m, n = x.shape
    block = triton.next_power_of_2(n)
    rows = max(1, min(_ROWS_OF_SUMS, 8192 // block))
    out = torch.empty_like(x)
    sums = torch.empty((triton.cdiv(m, rows), n), dtype=torch.float32, device=x.device)
    _relu_mask_kernel[(triton.cdiv(m, rows),)](grad, x, out, sums, m, N=n, BLOCK_M=rows, BLOCK_N=block)
    return out, sums


@triton.jit
def _loss_kernel(logits, labels, feed, grad, parts, BLOCK: tl.constexpr):
    """Mean binary cross-entropy: its part of this block, and its gradient."""
    b = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    num_inputs = tl.load(feed)
    real = b < num_inputs
    scale = 1.0 / tl.maximum(num_inputs, 1).to(tl.float32)
    x = tl.load(logits + b, mask=real, other=0.0).to(tl.float32)
    y = tl.load(labels + b, mask=real, other=0.0)
    tail = tl.exp(-tl.abs(x))
    loss = tl.maximum(x, 0.0) - x * y + tl.log(1.0 + tail)
    chance = tl.where(x >= 0, 1.0 / (1.0 + tail), tail / (1.0 + tail))
    tl.store(parts + tl.program_id(0), tl.sum(tl.where(real, loss, 0.0), axis=0) * scale)
    return_grad = tl.where(real, (chance - y) * scale, 0.0)
    tl.store(grad + b, return_grad, mask=b < BLOCK * tl.num_programs(0))


_LOSS_BLOCK = 1024


class _MeanLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor, feed: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        num_parts = triton.cdiv(len(logits), _LOSS_BLOCK)
        parts = torch.empty(num_parts, dtype=torch.float32, device=logits.device)
        grad = torch.empty(num_parts * _LOSS_BLOCK, dtype=torch.float32, device=logits.device)
        _loss_kernel[(num_parts,)](logits, labels, feed, grad, parts, BLOCK=_LOSS_BLOCK)
        ctx.save_for_backward(grad)
        ctx.shape, ctx.dtype = logits.shape, logits.dtype
        return parts.sum()

    @staticmethod
    def backward(ctx, grad_loss: Tensor):  # type: ignore[no-untyped-def]
        (grad,) = ctx.saved_tensors
        return (grad[: ctx.shape[0]] * grad_loss).to(ctx.dtype), None, None


def mean_loss(logits: Tensor, labels: Tensor, feed: Tensor) -> Tensor:
    """Mean binary cross-entropy (natural log) over the real inputs of a batch; how many stands in the feed's first word.

    Parameters
    ----------
    logits, labels
        ``[B]``; labels float32.
    """
    loss: Tensor = _MeanLoss.apply(logits, labels, feed)
    return loss


@triton.jit
def _dense_update_kernel(
    weight, grad, state, shadow, learning_rate, eps, decay, square_decay, step_rate, size,
    OPTIMIZER: tl.constexpr, SHADOW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    old = tl.load(weight + i, mask=inside, other=0.0)
    g = tl.load(grad + i, mask=inside, other=0.0)
    if OPTIMIZER == 0:
        new = old - learning_rate * g
    elif OPTIMIZER == 2:
        square = tl.load(state + i, mask=inside, other=0.0) + g * g
        tl.store(state + i, square, mask=inside)
        new = old - learning_rate * (g / (tl.sqrt_rn(square) + eps))
    else:
        moment = tl.load(state + i, mask=inside, other=0.0)
        square = tl.load(state + size + i, mask=inside, other=0.0)
        moment = moment + (g - moment) * decay
        square = square + (g * g - square) * square_decay
        tl.store(state + i, moment, mask=inside)
        tl.store(state + size + i, square, mask=inside)
        # torch.optim.Adam: the second moment is corrected under the root, before eps is added.
        correction = tl.load(step_rate)
        root = tl.load(step_rate + 1)
        new = old - learning_rate / correction * (moment / (tl.sqrt_rn(square) / root + eps))
    tl.store(weight + i, new, mask=inside)
    if SHADOW:
        tl.store(shadow + i, new.to(tl.bfloat16), mask=inside)


def dense_update(
    optimizer: int, weight: Tensor, grad: Tensor, state: Tensor, shadow: Tensor, corrections: Tensor, *,
    learning_rate: float, eps: float, betas: tuple[float, float],
) -> None:  # fmt: skip
    """One optimizer step over all dense weights at once, and their bfloat16 copy.

    Parameters
    ----------
    optimizer
        0 SGD, 2 Adagrad, 3 Adam.
    weight, grad
        float32 ``[P]``.
    state
        float32 ``[P]`` for Adagrad, ``[2 P]`` for Adam, empty for SGD.
    shadow
        bfloat16 ``[P]``, or empty.
    corrections
        float32 ``[2]`` on the device, for Adam: 1 - beta1^t and sqrt(1 - beta2^t).
    """
    size, block = weight.numel(), 1024
    _dense_update_kernel[(triton.cdiv(size, block),)](
        weight, grad, state if state.numel() else weight, shadow if shadow.numel() else weight,
        learning_rate, eps, 1 - betas[0], 1 - betas[1], corrections, size,
        OPTIMIZER=optimizer, SHADOW=shadow.numel() > 0, BLOCK=block,
    )  # fmt: skip
