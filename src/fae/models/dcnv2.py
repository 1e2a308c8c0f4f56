"""DCN V2 (Wang, Shivanna, Cheng, Jain, Lin, Hong & Chi, "DCN V2: Improved Deep & Cross Network", 2021).

    x_0 = (embeddings, dense features) side by side
    x_{l+1} = x_0 * (W_l x_l + b_l) + x_l          elementwise product

(W_l = U_l V_l' of rank r where `cross_rank` is set), then an MLP on the last x (``stacked``), or beside the cross
layers (``parallel``), and one linear layer to the logit. Embeddings may differ in width.

Where we differ: the mixture of low-rank experts (DCN-Mix) is not there; no batch normalisation, no L2 penalty.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fae.artifacts.columnar_log import FeatureSchema
from fae.models.config import DCNv2Config
from fae.models.layers import MLP, concat_features, linear


class CrossLayer(nn.Module):
    """One cross layer over vectors of `width`; `rank` 0 keeps the matrix whole.

    First weights: normal, deviation sqrt(2 / (in + out)), no bias.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False) if rank else None
        self.up = nn.Linear(rank or width, width)
        for layer in (self.down, self.up):
            if layer is not None:
                nn.init.normal_(layer.weight, std=math.sqrt(2 / (layer.in_features + layer.out_features)))
        nn.init.zeros_(self.up.bias)

    def forward(self, first: Tensor, last: Tensor) -> Tensor:
        """``x_{l+1}`` of ``x_0`` and ``x_l``, all ``[B, width]``."""
        low = last if self.down is None else linear(last, self.down.weight)
        crossed = linear(low, self.up.weight, self.up.bias)
        return first * crossed + last


class DCNv2(nn.Module):
    """The model.

    Parameters
    ----------
    config
        Layers, rank, structure, widths.
    features
        Categorical features, pooled.
    num_dense
        K.
    """

    def __init__(self, config: DCNv2Config, features: Sequence[FeatureSchema], num_dense: int) -> None:
        super().__init__()
        self.names = [feature.name for feature in features]
        width = sum(config.dims(self.names)) + num_dense
        self.cross = nn.ModuleList(CrossLayer(width, config.cross_rank) for _ in range(config.cross_layers))
        self.parallel = config.structure == "parallel"
        self.deep: MLP | None = None
        if config.deep_mlp:
            self.deep = MLP([width, *config.deep_mlp], final_relu=True, dropout=config.dropout, drops_last=True)
        deep_width = config.deep_mlp[-1] if config.deep_mlp else width
        self.out = MLP([deep_width + width * self.parallel, 1], final_relu=False)

    def forward(self, dense: Tensor, embeddings: Mapping[str, Tensor]) -> Tensor:
        """Logits ``[B]`` from dense features ``[B, K]`` and the features' embeddings."""
        first = torch.cat([concat_features(embeddings, self.names), dense], 1)
        crossed = first
        for layer in self.cross:
            crossed = layer(first, crossed)
        deep = crossed
        if self.deep is not None:
            deep = self.deep(first if self.parallel else crossed)
        logits: Tensor = self.out(torch.cat([crossed, deep], 1) if self.parallel else deep)
        return logits.squeeze(1)
