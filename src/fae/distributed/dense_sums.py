"""Sums of the dense gradients over slices: one exchange a step, through buffers that are made once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from fae.distributed.group import Group
from fae.distributed.slice_plan import SlicePlan

if TYPE_CHECKING:
    from torch import nn


class DenseSums:
    """The dense gradients of a group of ranks, summed in the tree of `fae.distributed.tree_sum`.

    Parameters
    ----------
    group
        The ranks.
    parameters
        The dense weights, the same on every rank.
    """

    def __init__(self, group: Group, parameters: Sequence[nn.Parameter]) -> None:
        self._group, self._parameters = group, list(parameters)
        size = sum(parameter.numel() for parameter in self._parameters)
        device = self._parameters[0].device if self._parameters else torch.device("cpu")
        self._own = torch.zeros((_num_buffers(group.slices), size), device=device)
        self._all = torch.zeros((group.world, size) if group.world > 1 else (0,), device=device)

    @torch.no_grad()
    def keep(self, number: int) -> None:
        """Keep the gradients of one slice of this rank, its `number`-th; weights without one have none in any slice.

        Slices come in their order, and two halves of a subtree are added as soon as both are there.
        """
        depth = number.bit_count()  # of subtrees that wait for their other half
        place = 0
        for parameter in self._parameters:
            if parameter.grad is not None:
                self._own[depth, place : place + parameter.numel()] = parameter.grad.reshape(-1)
            place += parameter.numel()
        for level in range(depth, (number + 1).bit_count() - 1, -1):
            self._own[level - 1].add_(self._own[level])

    @torch.no_grad()
    def replace_gradients(self, what: str) -> None:
        """Put the sum over all slices, which are kept, in the place of each gradient of the last one.

        Parameters
        ----------
        what
            The step in words, as for `Group.all_gather`.
        """
        if not self._parameters:
            return
        total, place = self._group.tree_sum(self._own[0], what, self._all), 0
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad.copy_(total[place : place + parameter.numel()].view_as(parameter.grad))
            place += parameter.numel()


def dense_sums_bytes(num_weights: int, plan: SlicePlan) -> int:
    """Bytes of `DenseSums`; 0 where batches are whole."""
    if not plan.is_cut:
        return 0
    return 4 * num_weights * (_num_buffers(plan) + (plan.world if plan.world > 1 else 0))


def _num_buffers(plan: SlicePlan) -> int:
    """Sums of this rank that exist at once: one of each level of its subtree.

    >>> [_num_buffers(SlicePlan(num_slices=8, world=world)) for world in (1, 2, 4, 8)]
    [4, 3, 2, 1]
    """
    return len(plan.own).bit_length()
