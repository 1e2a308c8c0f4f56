"""The lookup and the dot interaction of one group as one step of autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fae.kernels.input_views import InputViews
from fae.kernels.triton_interaction import InteractionKernels

Rows = tuple[InputViews, Tensor, int, Tensor]
"""A batch's input buffer, the list of its cold rows, H and the bank."""


class FusedInteraction(torch.autograd.Function):
    """The fused lookup and interaction; gradients of rows go to a buffer, not through autograd."""

    @staticmethod
    def forward(
        ctx: Any, dense: Tensor, kernels: InteractionKernels, rows: Rows, grad_rows: Tensor | None,
        then: Callable[[], None],
    ) -> Tensor:  # fmt: skip
        dense = dense.contiguous()
        ctx.save_for_backward(dense)
        ctx.parts = (kernels, rows, grad_rows, then)
        return kernels.forward(*rows, dense)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        (dense,) = ctx.saved_tensors
        kernels, rows, grad_rows, then = ctx.parts
        grad = kernels.backward(*rows, dense, grad_out.contiguous(), grad_rows)
        then()
        return grad, None, None, None, None
