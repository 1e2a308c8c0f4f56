"""What kernels read of a batch on a GPU: its input buffer, cut into tensors.

Header words of an input buffer: 0 real inputs; 1 learning rate of the rows (float32 bits; Adam's bias correction is in
it); then eight for each group from `group_field` on (`fae.streaming.input_layout` writes them).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


def group_field(group: int) -> int:
    """First header word of a group."""
    return 8 + 8 * group


@dataclass(frozen=True)
class InputViews:
    """A feed on the device, cut into tensors that share its memory.

    Attributes
    ----------
    words, longs
        All of it, as int32 and as int64.
    addresses
        int32 ``[B, S]``.
    dense
        float32 ``[B, K]``.
    labels
        float32 ``[B]``.
    order
        int32 ``[B * S]``; meaningless in batches that are not trained.
    """

    words: Tensor
    longs: Tensor
    addresses: Tensor
    dense: Tensor
    labels: Tensor
    order: Tensor
