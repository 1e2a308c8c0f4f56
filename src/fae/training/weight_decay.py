"""Weight decay of the dense weights: which of them shrink, and how torch's optimizers come to shrink them.

It is decoupled, as in torch's AdamW: a weight is multiplied by 1 - learning rate * weight_decay before its step. A
penalty that is added to the gradient would come out of Adagrad and Adam divided by the size of past gradients.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


def decaying_weights(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Those that shrink: matrices. Biases and scales of a normalisation are vectors, and stay.

    They set where a layer works, not how strongly it follows its inputs.
    """
    return [parameter for parameter in parameters if parameter.dim() > 1]


def decay_before_steps(optimizer: torch.optim.Optimizer, weight_decay: float) -> None:
    """Let an optimizer of torch shrink the weights that have a gradient before each of its steps."""

    @torch.no_grad()
    def shrink(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for weight in decaying_weights(group["params"]):
                if weight.grad is not None:
                    weight.mul_(1 - group["lr"] * weight_decay)

    optimizer.register_step_pre_hook(shrink)
