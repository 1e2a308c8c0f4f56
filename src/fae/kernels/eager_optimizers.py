"""torch's optimizers, called as they are: without the hooks that let ``torch.compile`` trace them.

With the hooks an optimizer imports torch's compiler when it is made and in each step, and with it sympy and the
distributed part of torch: two of the five seconds until the first step. The arithmetic is torch's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch.optim import Optimizer


class EagerOptimizer(Optimizer):
    """A base before one of torch's optimizers: their functions without the decorators around them."""

    torch_step: ClassVar[Callable[..., Any]]
    """The step of torch's optimizer, without decorators."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every weight that has a gradient."""
        return type(self).torch_step(self, closure)


class EagerSGD(EagerOptimizer, torch.optim.SGD):
    """`torch.optim.SGD`."""

    torch_step = staticmethod(inspect.unwrap(torch.optim.SGD.step))


class EagerAdagrad(EagerOptimizer, torch.optim.Adagrad):
    """`torch.optim.Adagrad`."""

    torch_step = staticmethod(inspect.unwrap(torch.optim.Adagrad.step))


class EagerAdam(EagerOptimizer, torch.optim.Adam):
    """`torch.optim.Adam`."""

    torch_step = staticmethod(inspect.unwrap(torch.optim.Adam.step))


class EagerSparseAdam(EagerOptimizer, torch.optim.SparseAdam):
    """`torch.optim.SparseAdam`."""

    torch_step = staticmethod(inspect.unwrap(torch.optim.SparseAdam.step))
