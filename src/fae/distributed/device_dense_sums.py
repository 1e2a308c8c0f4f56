"""Sums of the dense gradients over ranks on GPUs: one vector, which every rank reads of all and adds in one tree."""

from __future__ import annotations

import triton
from torch import Tensor

from fae.distributed.group import Group
from fae.distributed.peer_buffers import peer_buffer
from fae.kernels.triton_exchange import tree_sum_kernel

_BLOCK = 1024
_CHANNEL = 8
"""That of the buffer: rows have one for each group of tables, from 0 on."""


class DeviceDenseSums:
    """The sum of one flat gradient.

    Parameters
    ----------
    group
        The ranks, 2, 4 or 8 of them.
    gradient
        float32 ``[P]``: one like those that will be summed.
    """

    def __init__(self, group: Group, gradient: Tensor) -> None:
        self._world = group.world
        self._buffer = peer_buffer(
            group, gradient.numel(), gradient.device, channel=_CHANNEL, what="the dense gradients"
        )

    def replace(self, gradient: Tensor) -> None:
        """Put the sum over ranks in the place of the gradient of this one; only launches."""
        buffer, size = self._buffer, gradient.numel()
        if not size:
            return
        buffer.own.copy_(gradient)
        buffer.share()
        tree_sum_kernel[(triton.cdiv(size, _BLOCK),)](buffer.pointers, gradient, size, RANKS=self._world, BLOCK=_BLOCK)
        buffer.release()
