"""Sums of the dense gradients over ranks: one exchange a step, through buffers that are made once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from fae.distributed.group import Group

if TYPE_CHECKING:
    from torch import Tensor, nn


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
        self._own = torch.zeros(size, device=device)
        self._all = torch.zeros((group.world, size) if group.world > 1 else (0,), device=device)

    @torch.no_grad()
    def replace_gradients(self, what: str) -> None:
        """Put the sum over ranks in the place of each gradient; weights without one have none on any rank.

        Parameters
        ----------
        what
            The step in words, as for `Group.all_gather`.
        """
        if self._group.world == 1 or not self._parameters:
            return
        views: list[tuple[Tensor, int]] = []
        place = 0
        for parameter in self._parameters:
            if parameter.grad is not None:
                self._own[place : place + parameter.numel()] = parameter.grad.reshape(-1)
                views.append((parameter.grad, place))
            place += parameter.numel()
        total = self._group.tree_sum(self._own, what, self._all)
        for grad, start in views:
            grad.copy_(total[start : start + grad.numel()].view_as(grad))
