"""Parts that several models share: multi-layer perceptrons, the dot interaction, ways to read the embeddings.

First weights come from torch's global generator, which `fae.models.registry.build_model` seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fae.embedding.features import FeatureEmbeddings

EVEN_WIDTH = 8
"""Widths of bfloat16 products are multiples of this: others fall to kernels that do not split long sums. In RMC1 at 256
inputs six products for gradients of 15 by 22 weights took 228 of a step's 540 us (docs/results/roofline.md)."""
_MOST_PRODUCTS = 64
"""Most products of a pair of matrices that are written as sums under a compiler: 27 vectors of a DLRM have 729."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, with widths padded by zeros where tensor cores multiply in bfloat16."""
    if not _multiplies_bf16(x):
        return nn.functional.linear(x, weight, bias)
    return _even_linear(x, weight, bias)[..., : len(weight)]


def _multiplies_bf16(x: Tensor) -> bool:
    return x.is_cuda and torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") == torch.bfloat16


def _even_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`linear` in even widths: the result keeps the columns of zeros behind its last; `x` may have some already."""
    rows, columns = (-size % EVEN_WIDTH for size in weight.shape)
    weight = _pad(weight, 0, columns, 0, rows)
    bias = None if bias is None else _pad(bias, 0, rows)
    return nn.functional.linear(_pad(x, 0, weight.shape[1] - x.shape[-1]), weight, bias)


def _pad(x: Tensor, *sizes: int) -> Tensor:
    return nn.functional.pad(x, sizes) if any(sizes) else x  # torch copies also where there is nothing to add


def small_products(a: Tensor, b: Tensor) -> Tensor:
    """`torch.bmm` of many small matrices, ``[B, m, k]`` and ``[B, k, n]``.

    Under `torch.compile` they are sums that become part of the kernels around them: for RMC1's 688,128 products of 4 by
    16 and 16 by 4 (32,768 inputs) the library's take half of the step (docs/journal/).
    """
    if torch.compiler.is_compiling() and a.shape[1] * b.shape[2] <= _MOST_PRODUCTS:
        return (a.float().unsqueeze(3) * b.float().unsqueeze(1)).sum(2)
    return torch.bmm(a, b)


class DroppedReLU(nn.Dropout):
    """ReLU and then dropout, as one module: layers behind it are numbered as behind a ReLU, with dropout or without."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.relu(x))


class MLP(nn.Sequential):
    """Linear layers with ReLU between them (and behind the last where `final_relu`).

    With `dropout` units of the hidden layers are dropped, and those of the last one where `drops_last`.

    First weights as in DLRM's reference code: normal, deviation sqrt(2 / (in + out)) and sqrt(1 / out) for the bias.
    """

    def __init__(
        self, widths: Sequence[int], *, final_relu: bool, dropout: float = 0.0, drops_last: bool = False
    ) -> None:
        layers: list[nn.Module] = []
        linears: list[nn.Linear] = []
        for index, (width_in, width_out) in enumerate(itertools.pairwise(widths)):
            linear = nn.Linear(width_in, width_out)
            nn.init.normal_(linear.weight, std=math.sqrt(2 / (width_in + width_out)))
            nn.init.normal_(linear.bias, std=math.sqrt(1 / width_out))
            layers.append(linear)
            linears.append(linear)
            is_last = index == len(widths) - 2
            if final_relu or not is_last:
                layers.append(DroppedReLU(dropout) if dropout and (drops_last or not is_last) else nn.ReLU())
        super().__init__(*layers)
        self.final_relu, self.linears = final_relu, tuple(linears)
        self.dropouts = [dropout if drops_last or index < len(linears) - 1 else 0.0 for index in range(len(linears))]
        self.fused: Callable[..., Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """``[B, out]`` from ``[B, in]``; further columns of `x` (zeros of a padded input) are dropped."""
        if self.fused is not None:
            return self.fused(x, drops=self.training)
        x = x[:, : self.linears[0].in_features]
        if not _multiplies_bf16(x):
            result: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return result
        for layer in self:  # ReLU keeps the zeros
            x = _even_linear(x, layer.weight, layer.bias) if isinstance(layer, nn.Linear) else layer(x)
        return x[:, : self.linears[-1].out_features]

    def can_fuse(self) -> bool:
        """Whether `fae.models.fused_mlp` takes these widths."""
        widths = [linear.out_features for linear in self.linears]
        return len(widths) > 1 and all(w % 16 == 0 for w in widths[:-1]) and (widths[-1] == 1 or widths[-1] % 16 == 0)


class DotInteraction(nn.Module):
    """Dot products of all pairs of V vectors: ``[B, V, D]`` to ``[B, V (V - 1) / 2]``.

    The strict lower triangle is taken with one flat `index_select`: two-dimensional indexing doubles the time of a
    whole training step (docs/journal/).
    """

    triangle: Tensor

    def __init__(self, num_vectors: int) -> None:
        super().__init__()
        rows, columns = np.tril_indices(num_vectors, -1)  # torch's imports its compiler where the model is sketched
        self.register_buffer("triangle", torch.as_tensor(rows * num_vectors + columns), persistent=False)
        self.num_pairs = len(rows)

    def forward(self, vectors: Tensor) -> Tensor:
        products = small_products(vectors, vectors.transpose(1, 2))
        if torch.compiler.is_compiling() and 0 < self.num_pairs <= _MOST_PRODUCTS:
            # Not selected: the gradient of a selection is a scatter, and this one's is a sum.
            count = vectors.shape[1]
            return torch.stack([products[:, row, column] for row in range(count) for column in range(row)], 1)
        return products.flatten(1).index_select(1, self.triangle)


def stack_features(embeddings: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """Pooled features of one width as ``[B, F, D]``; without a copy where memory has them in that form."""
    stacked = embeddings.stacked if isinstance(embeddings, FeatureEmbeddings) else None
    if stacked is not None and len(names) == stacked.shape[1]:
        return stacked
    # An unpooled feature of one id is [B, 1, D].
    return torch.stack([embeddings[name].flatten(1) for name in names], 1)


def concat_features(embeddings: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """Pooled features of any widths, side by side: ``[B, sum of D]``."""
    stacked = embeddings.stacked if isinstance(embeddings, FeatureEmbeddings) else None
    if stacked is not None and len(names) == stacked.shape[1]:
        return stacked.flatten(1)
    return torch.cat([embeddings[name].flatten(1) for name in names], 1)


def sequence_lengths(embeddings: Mapping[str, Tensor], name: str) -> Tensor:
    """Slots in use of a kept sequence, int64 ``[B]``.

    A mapping that holds only tensors has no lengths: there, rows of zeros at the end count as pads.
    """
    if isinstance(embeddings, FeatureEmbeddings):
        return embeddings.lengths(name)
    used = (embeddings[name].detach() != 0).any(2)
    return used.flip(1).cumsum(1).ne(0).sum(1)
