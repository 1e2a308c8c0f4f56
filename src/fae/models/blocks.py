"""Parts that several models share: multi-layer perceptrons and the dot interaction.

Invariant: first weights come from torch's global generator, which `fae.models.registry.build_model` seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MLP(nn.Sequential):
    """Linear layers with ReLU between them (and behind the last where `final_relu`).

    First weights as in DLRM's reference code: normal, deviation sqrt(2 / (in + out)) and sqrt(1 / out) for the bias.
    """

    def __init__(self, widths: Sequence[int], *, final_relu: bool) -> None:
        layers: list[nn.Module] = []
        for index, (width_in, width_out) in enumerate(itertools.pairwise(widths)):
            linear = nn.Linear(width_in, width_out)
            nn.init.normal_(linear.weight, std=math.sqrt(2 / (width_in + width_out)))
            nn.init.normal_(linear.bias, std=math.sqrt(1 / width_out))
            layers.append(linear)
            if final_relu or index < len(widths) - 2:
                layers.append(nn.ReLU())
        super().__init__(*layers)


class DotInteraction(nn.Module):
    """Dot products of all pairs of V vectors: ``[B, V, D]`` to ``[B, V (V - 1) / 2]``.

    The strict lower triangle is taken with one flat `index_select`: two-dimensional indexing doubles the time of a
    whole training step (docs/journal.md).
    """

    triangle: Tensor

    def __init__(self, num_vectors: int) -> None:
        super().__init__()
        rows, columns = torch.tril_indices(num_vectors, num_vectors, offset=-1)
        self.register_buffer("triangle", rows * num_vectors + columns, persistent=False)
        self.num_pairs = len(rows)

    def forward(self, vectors: Tensor) -> Tensor:
        products = torch.bmm(vectors, vectors.transpose(1, 2))
        return products.flatten(1).index_select(1, self.triangle)
