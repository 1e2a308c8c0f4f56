"""A multi-layer perceptron in bfloat16 whose passes over activations are folded into its matrix products.

`fae.training.dense` gives one to every `fae.models.layers.MLP` of a model that is trained in bf16 on a GPU; the block
then calls it instead of its layers. Forward: bias and ReLU in the product's epilogue. Backward: the ReLU's mask and the
bias's gradient in the epilogue of the product below; gradients of weights go straight into the flat gradient of
`fae.training.dense`, on a stream beside that of the products that lead down.

It computes what the layers compute under torch's autocast, up to the rounding of sums; products are summed in float32.
Dropout is one more pass forward, with torch's masks, and none backward: a unit that is dropped is 0, as one that the
ReLU switched off, and the factor of the others is multiplied into the weight of the product.
Gradients are complete, and their operands free, once `join` was called. A backward pass overwrites them, it never adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fae.kernels.torch_private import addmm_relu
from fae.kernels.triton_dense import (
    PART_ROWS,
    logits,
    logits_backward,
    masked_product,
    relu_backward,
    sum_parts,
)


@dataclass(frozen=True, kw_only=True)
class FusedLayer:
    """One linear layer's buffers.

    Attributes
    ----------
    weight, bias
        bfloat16 ``[out, in padded]`` and ``[out]``, kept up to date by the optimizer.
    grad_weight
        float32 of the weight's shape; written by the backward pass. A layer of width 1 has its among the sums.
    bias_column
        Column of the bias's gradient among the block's sums.
    dropout
        Share of its outputs that a training step drops.
    """

    weight: Tensor
    bias: Tensor
    grad_weight: Tensor
    bias_column: int
    dropout: float = 0.0


class FusedMLP:
    """The layers of one block.

    Parameters
    ----------
    anchor
        A parameter of the block: it makes autograd call the backward pass where the input needs no gradient.
    grad_sums
        float32: gradients that are sums over inputs (of biases, and of the weight of a layer of width 1, which is
        last), in the order of the flat gradient; written by the backward pass.
    side_stream
        Stream for the gradients of weights; None computes them on the current one.
    """

    def __init__(
        self,
        layers: Sequence[FusedLayer],
        anchor: Tensor,
        grad_sums: Tensor,
        *,
        final_relu: bool,
        side_stream: torch.cuda.Stream | None = None,
    ) -> None:
        self.layers, self.anchor, self.grad_sums, self.final_relu = list(layers), anchor, grad_sums, final_relu
        self._parts = grad_sums.new_zeros((0, len(grad_sums)))
        self._side_stream = side_stream
        self._operands: list[Tensor] = []  # of work on that stream: freed before, torch would give their memory away

    def parts(self, num_inputs: int) -> Tensor:
        """Parts of the sums, ``[ceil(inputs / 128), sums]``; columns between those of layers stay zero."""
        num_parts = -(-num_inputs // PART_ROWS)
        if len(self._parts) != num_parts:
            self._parts = self.grad_sums.new_zeros((num_parts, len(self.grad_sums)))
        return self._parts

    def run_on_side_stream(self, operands: Sequence[Tensor], work: Callable[[], None]) -> None:
        """Run `work` after everything launched so far; only `join` waits for it."""
        if self._side_stream is None:
            work()
            return
        self._operands += operands
        self._side_stream.wait_stream(torch.cuda.current_stream(self._side_stream.device))
        with torch.cuda.stream(self._side_stream):
            work()

    def join(self) -> None:
        """Let the current stream wait for the gradients of the latest backward pass."""
        if self._side_stream is not None and self._operands:
            torch.cuda.current_stream(self._side_stream.device).wait_stream(self._side_stream)
            self._operands = []

    def __call__(self, x: Tensor, *, drops: bool = False) -> Tensor:
        """``[B, out]`` from ``[B, in]`` or, with zeros behind, ``[B, in padded]``: bfloat16, logits float32.

        Parameters
        ----------
        drops
            Whether units are dropped, as in a training step.
        """
        result: Tensor = _Function.apply(x, self.anchor, self, drops)  # type: ignore[no-untyped-call]
        return result


def _padded(x: Tensor, width: int) -> Tensor:
    if x.shape[1] == width and x.dtype == torch.bfloat16:
        return x.contiguous()
    padded = torch.zeros((len(x), width), dtype=torch.bfloat16, device=x.device)
    padded[:, : x.shape[1]] = x
    return padded


def _product_float32(a: Tensor, b: Tensor, out: Tensor) -> None:
    """``a @ b`` of bfloat16 operands, summed and kept in float32."""
    if a.is_cuda:
        torch.mm(a, b, out_dtype=torch.float32, out=out)
    else:
        torch.mm(a.float(), b.float(), out=out)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, mlp: FusedMLP, drops: bool) -> Tensor:
        ctx.in_width, ctx.in_dtype = x.shape[1], x.dtype
        x = _padded(x, mlp.layers[0].weight.shape[1])
        inputs = [x]
        for index, layer in enumerate(mlp.layers):
            last = index == len(mlp.layers) - 1
            if last and not mlp.final_relu and len(layer.weight) == 1:
                x = logits(x, layer.weight[0], layer.bias).unsqueeze(1)
            elif last and not mlp.final_relu:
                x = torch.addmm(layer.bias, x, layer.weight.t())
            else:
                x = addmm_relu(layer.bias, x, layer.weight.t())
            if drops and layer.dropout:
                x = nn.functional.dropout(x, layer.dropout)
            inputs.append(x)
        ctx.save_for_backward(*inputs)
        ctx.mlp, ctx.needs_x, ctx.drops = mlp, ctx.needs_input_grad[0], drops
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        mlp: FusedMLP = ctx.mlp
        *inputs, out = ctx.saved_tensors
        parts = mlp.parts(len(out))

        def sums(layer: FusedLayer) -> Tensor:
            return parts[:, layer.bias_column : layer.bias_column + len(layer.bias)]

        def down(index: int) -> Tensor:
            """The weight of a layer times the factor of the units below it that were kept."""
            below = mlp.layers[index - 1].dropout if ctx.drops and index > 0 else 0.0
            return mlp.layers[index].weight / (1 - below) if below else mlp.layers[index].weight

        index = len(mlp.layers) - 1
        last = mlp.layers[index]
        if ctx.drops and last.dropout:
            grad = grad / (1 - last.dropout)
        if len(last.weight) == 1 and not mlp.final_relu:
            weight_sums = parts[:, parts.shape[1] - last.weight.shape[1] :]
            grad = logits_backward(
                inputs[index], down(index)[0], grad.reshape(-1).contiguous(), sums(mlp.layers[index - 1]), weight_sums,
                sums(last),
            )  # fmt: skip
            index -= 1
        else:
            grad = relu_backward(grad.contiguous(), out, sums(last), masked=mlp.final_relu)
        while index >= 0:
            layer, x = mlp.layers[index], inputs[index]
            mlp.run_on_side_stream([grad, x], partial(_product_float32, grad.t(), x, layer.grad_weight))
            if index > 0:
                grad = masked_product(grad, down(index), x, sums(mlp.layers[index - 1]))
            index -= 1
        mlp.run_on_side_stream([parts], lambda: sum_parts(parts, mlp.grad_sums))
        if not ctx.needs_x:
            return None, None, None, None
        grad_x = torch.mm(grad, mlp.layers[0].weight)
        return grad_x[:, : ctx.in_width].to(ctx.in_dtype), None, None, None
