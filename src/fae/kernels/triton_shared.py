"""Functions that several Triton kernels share: from addresses to rows of the bank, and operands of products."""

from __future__ import annotations

import os

import triton
import triton.language as tl

from fae.core.optimizers import OPTIMIZER_CODE
from fae.core.pooling import POOLING_CODE

SGD: tl.constexpr = tl.constexpr(OPTIMIZER_CODE["sgd"])
ROWWISE_ADAGRAD: tl.constexpr = tl.constexpr(OPTIMIZER_CODE["rowwise_adagrad"])
ADAGRAD: tl.constexpr = tl.constexpr(OPTIMIZER_CODE["adagrad"])
"""Codes of the row optimizers; any other code is Adam's."""

MEAN: tl.constexpr = tl.constexpr(POOLING_CODE["mean"])
KEPT: tl.constexpr = tl.constexpr(POOLING_CODE["none"])
"""Codes of pooled means and of sequences that are kept; any other code is a sum's."""

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
def aligned_floats(address):
    """Pointers to float32 at addresses that were read from memory, which are multiples of 16 bytes.

    The compiler cannot know that they are, and would read numbers one by one: over NVLink four requests for one.
    """
    return tl.multiple_of(address.to(tl.pointer_type(tl.float32)), 16)


@triton.jit
def to_row(address, num_hot_rows, cold_rows):
    """Row of the bank, int64, of an address that is not a pad; for a pad the result must not be used.

    `cold_rows` points to the row of each cold row of the batch, int64.
    """
    is_cold = address >= num_hot_rows
    listed = tl.load(cold_rows + (address - num_hot_rows), mask=is_cold, other=0)
    return tl.where(is_cold, listed, address.to(tl.int64))


@triton.jit
def to_target(address, row, num_hot_rows, shift, STAGED: tl.constexpr):
    """Row to write, int64: every cold row of a staged batch has its place in the batch's slot, wherever it was read."""
    if STAGED:
        row = address.to(tl.int64) + tl.where(address >= num_hot_rows, shift, 0).to(tl.int64)
    return row


def require_slices(count: int) -> None:
    """Refuse a number of slices, or ranks, for which kernels have no tree of sums.

    Raises
    ------
    ValueError
        If it is not 2, 4 or 8.
    """
    if count not in (2, 4, 8):
        raise ValueError(f"{count} slices: kernels sum 2, 4 or 8 in a tree")
