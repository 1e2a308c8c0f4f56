"""Sums of the dense gradients over slices: one exchange a step, through buffers that are made once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from fae.distributed.group import Group
from fae.distributed.tree_sum import tree_sum

if TYPE_CHECKING:
    from torch import nn


class DenseSums:
    """The dense gradients of a group of ranks.

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
        self._own = torch.zeros((len(group.slices.own), size), device=device)
        self._all = torch.zeros((group.world, size) if group.world > 1 else (0,), device=device)

    @torch.no_grad()
    def keep(self, number: int) -> None:
        """Keep the gradients of one slice of this rank, its `number`-th; weights without one have none in any slice."""
        place = 0
        for parameter in self._parameters:
            if parameter.grad is not None:
                self._own[number, place : place + parameter.numel()] = parameter.grad.reshape(-1)
            place += parameter.numel()

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
        total, place = self._group.tree_sum(tree_sum(self._own.unbind(0)), what, self._all), 0
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad.copy_(total[place : place + parameter.numel()].view_as(parameter.grad))
            place += parameter.numel()
