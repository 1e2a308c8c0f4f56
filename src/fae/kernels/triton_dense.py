"""Triton kernels of the dense part: products with fused epilogues, the loss, the optimizer step.

`fae.models.fused_mlp` calls the products between those of the vendor library. At these sizes (K of at most some
hundreds) a product waits for memory, so an epilogue that saves a pass over an activation saves its time. Sums are in
float32 and in a fixed order, without atomics.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fae.kernels.triton_shared import ADAGRAD, SGD, aligned_floats, operand, require_slices

PART_ROWS = 128
"""Rows of an activation whose column sums are one part; part of the order of sums."""

DENSE_BLOCK = 1024
"""Dense weights that one program steps: parts of a vector have whole blocks."""

MASKED_PRODUCT = {"block_n": 128, "block_k": 64, "num_warps": 4, "num_stages": 3}
"""Tile of the masked product, the fastest of a sweep on an H200."""


@triton.jit
def _masked_product_kernel(
    a, b, x, out, sums, M, N, K, sums_stride,
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
    tl.store(sums + tl.program_id(0).to(tl.int64) * sums_stride + n, tl.sum(total, axis=0), mask=n < N)


def masked_product(a: Tensor, b: Tensor, x: Tensor, sums: Tensor) -> Tensor:
    """``(a @ b) * (x > 0)`` and its column sums: the gradient that a ReLU layer passes down, and that of its bias.

    Parameters
    ----------
    a
        bfloat16 ``[M, K]``: gradient of the output of the next layer.
    b
        bfloat16 ``[K, N]``: weight of the next layer.
    x
        bfloat16 ``[M, N]``: output of the layer, after its ReLU.
    sums
        float32 ``[ceil(M / 128), N]`` (rows may be further apart); written: column sums of every 128 rows of the
        result, before it is rounded.

    Returns
    -------
    bfloat16 ``[M, N]``.
    """
    (m, k), n = a.shape, b.shape[1]
    block_n = min(MASKED_PRODUCT["block_n"], max(16, triton.next_power_of_2(n)))
    block_k = min(MASKED_PRODUCT["block_k"], max(16, triton.next_power_of_2(k)))
    out = torch.empty((m, n), dtype=torch.bfloat16, device=a.device)
    even = m % PART_ROWS == 0 and n % block_n == 0 and k % block_k == 0
    _masked_product_kernel[(triton.cdiv(m, PART_ROWS), triton.cdiv(n, block_n))](
        a, b, x, out, sums, m, n, k, sums.stride(0), BLOCK_M=PART_ROWS, BLOCK_N=block_n, BLOCK_K=block_k, EVEN=even,
        num_warps=MASKED_PRODUCT["num_warps"] if block_n >= 128 else 4, num_stages=MASKED_PRODUCT["num_stages"],
    )  # fmt: skip
    return out


@triton.jit
def _logit_kernel(x, weight, bias, out, M, N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.arange(0, BLOCK_N)
    values = tl.load(
        x + m.to(tl.int64)[:, None] * N + n[None, :], mask=(m < M)[:, None] & (n < N)[None, :], other=0.0
    ).to(tl.float32)
    w = tl.load(weight + n, mask=n < N, other=0.0).to(tl.float32)
    tl.store(out + m, tl.sum(values * w[None, :], axis=1) + tl.load(bias).to(tl.float32), mask=m < M)


_LOGIT_ROWS = 64


def logits(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x @ weight + bias`` for a layer of width 1: float32 ``[M]`` from bfloat16 ``[M, N]``, ``[N]`` and ``[1]``."""
    m, n = x.shape
    out = torch.empty(m, dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(n)
    _logit_kernel[(triton.cdiv(m, _LOGIT_ROWS),)](x, weight, bias, out, m, N=n, BLOCK_M=_LOGIT_ROWS, BLOCK_N=block)
    return out


@triton.jit
def _logit_backward_kernel(
    x, weight, grad, grad_x, sums_x, sums_weight, sums_bias, M, N, sums_stride,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (m < M)[:, None] & (n < N)[None, :]
    place = m.to(tl.int64)[:, None] * N + n[None, :]
    values = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(grad + m, mask=m < M, other=0.0)
    w = tl.load(weight + n, mask=n < N, other=0.0).to(tl.float32)
    down = tl.where(values > 0, g[:, None] * w[None, :], 0.0)
    tl.store(grad_x + place, down.to(tl.bfloat16), mask=inside)
    part = tl.program_id(0).to(tl.int64) * sums_stride
    tl.store(sums_x + part + n, tl.sum(down, axis=0), mask=n < N)
    tl.store(sums_weight + part + n, tl.sum(values * g[:, None], axis=0), mask=n < N)
    if tl.program_id(1) == 0:
        tl.store(sums_bias + part, tl.sum(g, axis=0))


def logits_backward(
    x: Tensor, weight: Tensor, grad: Tensor, sums_x: Tensor, sums_weight: Tensor, sums_bias: Tensor
) -> Tensor:
    """Backward of `logits` and of the ReLU below it.

    Parameters
    ----------
    grad
        float32 ``[M]``.
    sums_x, sums_weight, sums_bias
        Written: parts, as in `masked_product`, of the gradient returned and of those of weight and bias.

    Returns
    -------
    Gradient before the ReLU, bfloat16 ``[M, N]``.
    """
    m, n = x.shape
    grad_x = torch.empty_like(x)
    _logit_backward_kernel[(triton.cdiv(m, PART_ROWS), triton.cdiv(n, 64))](
        x, weight, grad, grad_x, sums_x, sums_weight, sums_bias, m, n, sums_x.stride(0), BLOCK_M=PART_ROWS, BLOCK_N=64
    )
    return grad_x


@triton.jit
def _relu_backward_kernel(
    grad, x, out, sums, M, N, sums_stride, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr
):
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (m < M)[:, None] & (n < N)[None, :]
    place = m.to(tl.int64)[:, None] * N + n[None, :]
    values = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
    if MASKED:
        values = tl.where(tl.load(x + place, mask=inside, other=0.0).to(tl.float32) > 0, values, 0.0)
    tl.store(out + place, values.to(tl.bfloat16), mask=inside)
    tl.store(sums + tl.program_id(0).to(tl.int64) * sums_stride + n, tl.sum(values, axis=0), mask=n < N)


def relu_backward(grad: Tensor, x: Tensor, sums: Tensor, *, masked: bool) -> Tensor:
    """``grad * (x > 0)`` (or `grad` itself) in bfloat16, and the parts of its column sums as in `masked_product`."""
    m, n = x.shape
    out = torch.empty((m, n), dtype=torch.bfloat16, device=x.device)
    block = min(64, max(16, triton.next_power_of_2(n)))
    _relu_backward_kernel[(triton.cdiv(m, PART_ROWS), triton.cdiv(n, block))](
        grad, x, out, sums, m, n, sums.stride(0), BLOCK_M=PART_ROWS, BLOCK_N=block, MASKED=masked
    )
    return out


@triton.jit
def _sum_parts_kernel(parts, out, num_parts, width, COLUMNS: tl.constexpr, AT_ONCE: tl.constexpr):
    n = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((COLUMNS,), tl.float32)
    for first in range(0, num_parts, AT_ONCE):
        part = first + tl.arange(0, AT_ONCE)
        values = tl.load(
            parts + part.to(tl.int64)[:, None] * width + n[None, :],
            mask=(part < num_parts)[:, None] & (n < width)[None, :], other=0.0,
        )  # fmt: skip
        total += tl.sum(values, axis=0)
    tl.store(out + n, total, mask=n < width)


def sum_parts(parts: Tensor, out: Tensor) -> None:
    """Add up parts ``[P, C]`` into `out` ``[C]``, float32, in a fixed order."""
    num_parts, width = parts.shape
    _sum_parts_kernel[(triton.cdiv(width, 16),)](parts, out, num_parts, width, COLUMNS=16, AT_ONCE=128)


@triton.jit
def _loss_kernel(logits, labels, words, whole, grad, parts, BLOCK: tl.constexpr):
    """Mean binary cross-entropy: the part of this program, and its gradient."""
    b = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = b < tl.load(words)
    scale = 1.0 / tl.maximum(tl.load(whole), 1).to(tl.float32)
    x = tl.load(logits + b, mask=real, other=0.0).to(tl.float32)
    y = tl.load(labels + b, mask=real, other=0.0)
    tail = tl.exp(-tl.abs(x))
    loss = tl.maximum(x, 0.0) - x * y + tl.log(1.0 + tail)
    chance = tl.where(x >= 0, 1.0 / (1.0 + tail), tail / (1.0 + tail))
    tl.store(parts + tl.program_id(0), tl.sum(tl.where(real, loss, 0.0), axis=0) * scale)
    return_grad = tl.where(real, (chance - y) * scale, 0.0)
    tl.store(grad + b, return_grad, mask=b < BLOCK * tl.num_programs(0))


@triton.jit
def _loss_sum_kernel(parts, whole, loss, loss_sum, NUM_PARTS: tl.constexpr, PADDED: tl.constexpr):
    part = tl.arange(0, PADDED)
    total = tl.sum(tl.load(parts + part, mask=part < NUM_PARTS, other=0.0), axis=0)
    tl.store(loss, total)
    tl.store(loss_sum, tl.load(loss_sum) + total.to(tl.float64) * tl.load(whole).to(tl.float64))


_LOSS_BLOCK = 1024


def loss_and_gradient(
    logits: Tensor, labels: Tensor, words: Tensor, loss_sum: Tensor, whole: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean binary cross-entropy (natural log) over the inputs of a batch that are not padding.

    Parameters
    ----------
    logits, labels
        ``[B]``; labels float32. Logits may be a column of something wider.
    words
        int32: the batch's input buffer, whose first word is the number of inputs that are not padding.
    loss_sum
        float64 scalar; the sum over those inputs is added to it.
    whole
        int32 ``[1]``: inputs of the whole batch, of which these are a slice; None where they are all.

    Returns
    -------
    The mean, float32 scalar, and its gradient, float32 ``[B]``, 0 for padding; of a slice its part of both.
    """
    whole = words if whole is None else whole
    num_parts = triton.cdiv(len(logits), _LOSS_BLOCK)
    parts = torch.empty(num_parts, dtype=torch.float32, device=logits.device)
    grad = torch.empty(num_parts * _LOSS_BLOCK, dtype=torch.float32, device=logits.device)
    loss = torch.empty((), dtype=torch.float32, device=logits.device)
    _loss_kernel[(num_parts,)](logits.contiguous(), labels, words, whole, grad, parts, BLOCK=_LOSS_BLOCK)
    _loss_sum_kernel[(1,)](parts, whole, loss, loss_sum, NUM_PARTS=num_parts, PADDED=triton.next_power_of_2(num_parts))
    return loss, grad[: len(logits)]


def part_blocks(size: int, parts: int) -> int:
    """Blocks of each of several parts of a vector; the last parts may be shorter, or empty.

    >>> part_blocks(5 * DENSE_BLOCK, 2)
    3
    """
    blocks = -(-size // DENSE_BLOCK)
    return -(-blocks // parts)


@triton.jit
def _of_rank(pointers, i, inside, RANK: tl.constexpr):
    return tl.load(aligned_floats(tl.load(pointers + RANK)) + i, mask=inside, other=0.0)


@triton.jit
def _sum_of_four(pointers, i, inside, FIRST: tl.constexpr):
    left = _of_rank(pointers, i, inside, FIRST) + _of_rank(pointers, i, inside, FIRST + 1)
    return left + (_of_rank(pointers, i, inside, FIRST + 2) + _of_rank(pointers, i, inside, FIRST + 3))


@triton.jit
def _sum_of_ranks(pointers, i, inside, RANKS: tl.constexpr):
    if RANKS == 2:
        total = _of_rank(pointers, i, inside, 0) + _of_rank(pointers, i, inside, 1)
    elif RANKS == 4:
        total = _sum_of_four(pointers, i, inside, 0)
    else:
        total = _sum_of_four(pointers, i, inside, 0) + _sum_of_four(pointers, i, inside, 4)
    return total


@triton.jit
def _add_ranks_kernel(pointers, first, size, out, BLOCK: tl.constexpr, RANKS: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = first + i < size
    tl.store(out + i, _sum_of_ranks(pointers, first + i, inside, RANKS), mask=inside)


def add_ranks(pointers: Tensor, first: int, size: int, out: Tensor) -> None:
    """Add a part of the vectors of several ranks in a tree.

    Parameters
    ----------
    pointers
        int64 ``[2, 4 or 8]`` on the device: where the vector of each is, float32 ``[size]``.
    first
        Where the part begins.
    out
        float32, written: the part, as far as it is in the vectors.
    """
    require_slices(len(pointers))
    if first < size:
        grid = (triton.cdiv(min(out.numel(), size - first), DENSE_BLOCK),)
        _add_ranks_kernel[grid](pointers, first, size, out, BLOCK=DENSE_BLOCK, RANKS=len(pointers))


@triton.jit
def _dense_update_kernel(
    weight, grad, state, shadow, rate, eps, decay, square_decay, step_rate, size, part_blocks,
    OPTIMIZER: tl.constexpr, SHADOW: tl.constexpr, BLOCK: tl.constexpr, RANKS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """One step; with several RANKS `grad` points to where the gradient of each is, which are summed in a tree.

    With PARTS it does so for each part of `part_blocks` blocks.
    """
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    old = tl.load(weight + i, mask=inside, other=0.0)
    if RANKS == 1:
        g = tl.load(grad + i, mask=inside, other=0.0)
    elif PARTS:
        part = tl.program_id(0) // part_blocks
        place = (tl.program_id(0) - part * part_blocks) * BLOCK + tl.arange(0, BLOCK)
        g = _sum_of_ranks(grad + part * RANKS, place, inside, RANKS)
    else:
        g = _sum_of_ranks(grad, i, inside, RANKS)
    learning_rate = tl.load(rate)
    if OPTIMIZER == SGD:
        new = old - learning_rate * g
    elif OPTIMIZER == ADAGRAD:
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
    optimizer: int, weight: Tensor, grad: Tensor, state: Tensor, shadow: Tensor, corrections: Tensor, rate: Tensor, *,
    eps: float, betas: tuple[float, float], of_ranks: Tensor | None = None,
) -> None:  # fmt: skip
    """One optimizer step over all dense weights at once, and their bfloat16 copy.

    Parameters
    ----------
    optimizer
        Code of ``sgd``, ``adagrad`` or ``adam``.
    weight, grad
        float32 ``[P]``.
    state
        float32 ``[P]`` for Adagrad, ``[2 P]`` for Adam, empty for SGD.
    shadow
        bfloat16 ``[P]``, or empty.
    corrections
        float32 ``[2]`` on the device, for Adam: 1 - beta1^t and sqrt(1 - beta2^t).
    rate
        float32 ``[1]`` on the device, the learning rate: a captured graph reads what is there when it runs.
    of_ranks
        int64 ``[2, 4 or 8]`` on the device: where the gradient of each rank is, to be summed in place of `grad`. Where
        gradients are in parts (`part_blocks`) ``[parts, 2, 4 or 8]``.
    """
    size = weight.numel()
    blocks = triton.cdiv(size, DENSE_BLOCK)
    if of_ranks is not None:
        require_slices(of_ranks.shape[-1])
    has_parts = of_ranks is not None and of_ranks.dim() > 1
    _dense_update_kernel[(blocks,)](
        weight, grad if of_ranks is None else of_ranks, state if state.numel() else weight,
        shadow if shadow.numel() else weight,
        rate, eps, 1 - betas[0], 1 - betas[1], corrections, size,
        part_blocks(size, len(of_ranks)) if has_parts and of_ranks is not None else blocks,
        OPTIMIZER=optimizer, SHADOW=shadow.numel() > 0, BLOCK=DENSE_BLOCK,
        RANKS=1 if of_ranks is None else of_ranks.shape[-1], PARTS=has_parts,
    )  # fmt: skip
