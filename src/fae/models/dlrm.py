"""DLRM (Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation Systems", 2019).

Dense features through a bottom MLP, dot products of all pairs of vectors, a top MLP to one logit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fae.artifacts.columnar_log import FeatureSchema
from fae.embedding.features import FeatureEmbeddings
from fae.models.config import DLRMConfig
from fae.models.layers import MLP, DotInteraction, linear


class DLRM(nn.Module):
    """The model.

    Parameters
    ----------
    config
        Widths of the MLPs and of rows.
    features
        F categorical features, all pooled. A feature whose embedding_dim differs from the model's is
        projected to it by a linear layer without bias.
    num_dense
        K; with 0 there is no bottom MLP.
    """

    def __init__(self, config: DLRMConfig, features: Sequence[FeatureSchema], num_dense: int) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.names = [feature.name for feature in features]
        self.bottom: MLP | None = None
        if num_dense:
            self.bottom = MLP([num_dense, *config.bottom_mlp, dim], final_relu=True, dropout=config.dropout)
        self.projections = nn.ModuleDict(
            {str(index): nn.Linear(config.embedding_dims[name], dim, bias=False)
             for index, name in enumerate(self.names) if config.embedding_dims.get(name, dim) != dim}
        )  # fmt: skip
        num_vectors = len(features) + bool(num_dense)
        self.interaction = DotInteraction(num_vectors)
        # Without dense features the embeddings themselves take their place beside the interactions.
        direct = dim if num_dense else dim * len(features)
        widths = [direct + self.interaction.num_pairs, *config.top_mlp, 1]
        self.top = MLP(widths, final_relu=False, dropout=config.dropout)

    @property
    def rounds_dense(self) -> bool:
        """Whether dense features are read by products alone, whose operands bf16 training rounds."""
        return type(self.bottom) is MLP

    def forward(self, dense: Tensor, embeddings: Mapping[str, Tensor]) -> Tensor:
        """Logits ``[B]`` from dense features ``[B, K]`` and the features' embeddings."""
        bottom = None if self.bottom is None else self.bottom(dense)
        if bottom is not None and not self.projections and isinstance(embeddings, FeatureEmbeddings):
            joined = embeddings.dot_interaction(bottom)
            if joined is not None:
                fused: Tensor = self.top(joined)
                return fused.squeeze(1)
        vectors = embeddings.stacked if isinstance(embeddings, FeatureEmbeddings) else None
        if vectors is None or self.projections:
            vectors = torch.stack([self._vector(index, embeddings[name]) for index, name in enumerate(self.names)], 1)
        direct = vectors.flatten(1)
        if bottom is not None:
            direct = bottom
            vectors = torch.cat([direct.unsqueeze(1), vectors], dim=1)
        logits: Tensor = self.top(torch.cat([direct, self.interaction(vectors)], dim=1))
        return logits.squeeze(1)

    def _vector(self, index: int, embedding: Tensor) -> Tensor:
        flat = embedding.flatten(1)  # an unpooled feature of one id is [B, 1, D]
        if str(index) not in self.projections:
            return flat
        weight = self.projections[str(index)].weight
        assert isinstance(weight, Tensor)
        return linear(flat, weight)
