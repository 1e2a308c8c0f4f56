"""What kernels read of a batch on a GPU: its input buffer, cut into tensors.

The buffer begins with a header of int32 words, written by `fae.streaming.input_layout`. Word 0: number of inputs that
are not padding. Word 1: learning rate of the rows (float32 bits, with Adam's bias correction). Word 2: share of a row
that weight decay leaves (float32 bits; not read where there is no decay). Word 3: real inputs of the whole batch, of
which one of several ranks has a slice; words 4 and 5: their weight (float64), where ranks have weights. Words 6 and 7:
unused. Then 20 words a group from `group_field` on:

======  ==============================================================
0       what to add to a cold address for the row to write
1, 2    number of segments; number of rows of several segments
3, 4    where the starts of the segments are; where their addresses are
5       where the rows of several segments are listed
6, 7    where the list of cold rows begins; its length
8, 9    further segments of a slice: how many, where they are
10, 11  rows that any slice looks up: how many, where they are
12, 13  where their bits begin, and the counts of each block of them: of every slice, then of every host
14      hot rows of the slice, which come before its other rows
15, 16  cold rows of the whole batch: how many, where their places are
======  ==============================================================

The last five lines are of slices (`fae.artifacts.batch_arrays.SharedArrays`); 1, 3 and 4 are then of
the rows of the slice, long ones too. Where each cold row has an owner, 7 counts those that this rank owns, and a place
is W p + r: row p of what rank r of W owns.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

BLOCK_ROWS = 64
"""Rows of a batch whose places in the sums of every slice are counted together (`counts` of slices)."""


def group_field(group: int) -> int:
    """First header word of a group."""
    return 8 + 20 * group


@dataclass(frozen=True)
class InputViews:
    """An input buffer on the device, cut into tensors that share its memory.

    Attributes
    ----------
    words, longs
        The whole buffer as int32, and as int64.
    addresses
        int32 ``[B, S]``. In the buffer of a batch that has an order they are not there, but that: kernels are given
        views whose addresses were derived from it (`fae.kernels.triton_addresses`).
    dense
        float32 ``[B, K]``, or bfloat16 where the model rounds them before it uses them.
    labels
        float32 ``[B]``.
    order
        int32 ``[B * S]``: lookups in the order in which gradients are summed; undefined outside training. Where the
        buffer has planes it is not there: kernels are given views whose `order` is written from them.
    planes
        The same as the buffer has it (`fae.artifacts.stored.order_planes`): int16 ``[B * S]``, the lower 16 bits, and
        uint8 or int16, the upper ones. Empty for kernels where `order` is in the buffer.
    weights
        float32 ``[B]``, 0 in padding; None where the log has no weights. No kernel reads them.
    whole_weight
        float64 ``[1]``: weight of the whole batch, of which this is a slice; None where it is the sum of `weights`.
    """

    words: Tensor
    longs: Tensor
    addresses: Tensor
    dense: Tensor
    labels: Tensor
    order: Tensor
    weights: Tensor | None = None
    whole_weight: Tensor | None = None
    planes: tuple[Tensor, ...] = ()
