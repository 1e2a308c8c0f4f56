"""Parts that several models share: multi-layer perceptrons, the dot interaction, ways to read the embeddings.

Invariant: first weights come from torch's global generator, which `fae.models.registry.build_model` seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from fae.embedding.features import FeatureEmbeddings


class MLP(nn.Sequential):
    """Linear layers with ReLU between them (and behind the last where `final_relu`).

    First weights as in DLRM's reference code: normal, deviation sqrt(2 / (in + out)) and sqrt(1 / out) for the bias.
    """

    def __init__(self, widths: Sequence[int], *, final_relu: bool) -> None:
        layers: list[nn.Module] = []
        linears: list[nn.Linear] = []
        for index, (width_in, width_out) in enumerate(itertools.pairwise(widths)):
            linear = nn.Linear(width_in, width_out)
            nn.init.normal_(linear.weight, std=math.sqrt(2 / (width_in + width_out)))
            nn.init.normal_(linear.bias, std=math.sqrt(1 / width_out))
            layers.append(linear)
            linears.append(linear)
            if final_relu or index < len(widths) - 2:
                layers.append(nn.ReLU())
        super().__init__(*layers)
        self.final_relu, self.linears = final_relu, tuple(linears)
        self.fused: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """``[B, out]`` from ``[B, in]``; columns behind the last layer input's (zeros of a padded input) are let go."""
        if self.fused is not None:
            return self.fused(x)
        result: Tensor = super().forward(x[:, : self.linears[0].in_features])  # type: ignore[no-untyped-call]
        return result

    def can_fuse(self) -> bool:
        """Whether `fae.models.fused_mlp` takes these widths."""
        widths = [linear.out_features for linear in self.linears]
        return len(widths) > 1 and all(w % 16 == 0 for w in widths[:-1]) and (widths[-1] == 1 or widths[-1] % 16 == 0)


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


def stack_features(embeddings: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """Pooled features of one width as ``[B, F, D]``; without a copy where they lie so."""
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

    A mapping that holds only tensors cannot say: there, rows of zeros at the end count as pads.
    """
    if isinstance(embeddings, FeatureEmbeddings):
        return embeddings.lengths(name)
    used = (embeddings[name].detach() != 0).any(2)
    return used.flip(1).cumsum(1).ne(0).sum(1)
