"""Sums of the dense gradients over slices: one exchange a step, through buffers that are made once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from fae.distributed.group import Group
from fae.distributed.slice_plan import SlicePlan

if TYPE_CHECKING:
    from torch import nn


class SliceSums(Protocol):
    """What sums the dense gradients of a step over slices."""

    def keep(self, number: int) -> None:
        """Keep the gradients of one slice of this rank, its `number`-th from 0; slices come in their order."""

    def replace_gradients(self, what: str) -> None:
        """Have the dense optimizer step by the sum over all slices, which are kept; `what` is the step in words."""


class SubtreeSum:
    """The sum of the slices of one rank, in the tree, of as few vectors as the subtree has levels.

    Parameters
    ----------
    levels
        float32, of one shape, one for each level (`num_levels`); the sum of all slices is in the first.
    """

    def __init__(self, levels: Sequence[Tensor]) -> None:
        self._levels = levels

    def of_slice(self, number: int) -> Tensor:
        """Where the numbers of the `number`-th slice, from 0, are to be written; slices come in their order."""
        return self._levels[number.bit_count()]  # subtrees that wait for their other half

    def add(self, number: int) -> None:
        """Add that slice: two halves of a subtree become one as soon as both are there."""
        for level in range(number.bit_count(), (number + 1).bit_count() - 1, -1):
            self._levels[level - 1].add_(self._levels[level])


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
        self._own = torch.zeros((num_levels(group.slices), size), device=device)
        self._subtree = SubtreeSum(self._own.unbind(0))
        self._all = torch.zeros((group.world, size) if group.world > 1 else (0,), device=device)

    @torch.no_grad()
    def keep(self, number: int) -> None:
        """As `SliceSums.keep`; weights without a gradient have none in any slice."""
        own, place = self._subtree.of_slice(number), 0
        for parameter in self._parameters:
            if parameter.grad is not None:
                own[place : place + parameter.numel()] = parameter.grad.reshape(-1)
            place += parameter.numel()
        self._subtree.add(number)

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
    return 4 * num_weights * (num_levels(plan) + (plan.world if plan.world > 1 else 0))


def num_levels(plan: SlicePlan) -> int:
    """Levels of the subtree of a rank: sums that exist at once.

    >>> [num_levels(SlicePlan(num_slices=8, world=world)) for world in (1, 2, 4, 8)]
    [4, 3, 2, 1]
    """
    return len(plan.own).bit_length()
