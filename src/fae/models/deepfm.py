"""DeepFM (Guo, Tang, Ye, Li & He, "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", 2017).

    logit = bias + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j + MLP(x_1 v_1, ..., x_n v_n)

over all fields, categorical (x = 1) and dense; the factorization machine and the MLP share the vectors v.

First-order weights: the first number of a row is w, the other D - 1 are v. One row holds both, so they are hot or cold
together, are looked up and moved at once, and count once against the budget; tables of width 1 beside the others
would double the lookups, and rows of D + 1 numbers would straddle cache lines. A feature of width 1 has a weight alone.

Where we differ: k = D - 1; a row's weight shares the row's optimizer state under row-wise Adagrad; dropout is 0 unless
a recipe sets it; dense features are used as they are (ingest has taken their logarithm), not cut into intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fae.artifacts.columnar_log import FeatureSchema
from fae.models.config import DeepFMConfig
from fae.models.layers import MLP, concat_features, stack_features


class DeepFM(nn.Module):
    """The model.

    Parameters
    ----------
    config
        Widths.
    features
        Categorical features, pooled, of the model's embedding_dim or of 1.
    num_dense
        K; each dense feature is a field with a row of its own among the dense weights.
    """

    def __init__(self, config: DeepFMConfig, features: Sequence[FeatureSchema], num_dense: int) -> None:
        super().__init__()
        dim = config.embedding_dim
        dims = config.dims([feature.name for feature in features])
        self.names = [feature.name for feature, d in zip(features, dims, strict=True) if d == dim]
        self.weights_only = [feature.name for feature, d in zip(features, dims, strict=True) if d == 1]
        self.bias = nn.Parameter(torch.zeros(1))
        self.dense_rows: nn.Parameter | None = None
        if num_dense:
            # Small: K fields are always there together, and the pairs grow with the square of their sum.
            self.dense_rows = nn.Parameter(torch.empty(num_dense, dim).normal_(std=0.01))
        num_fields = len(self.names) + num_dense
        self.deep: MLP | None = None
        if num_fields:
            self.deep = MLP([num_fields * (dim - 1), *config.deep_mlp, 1], final_relu=False, dropout=config.dropout)

    def forward(self, dense: Tensor, embeddings: Mapping[str, Tensor]) -> Tensor:
        """Logits ``[B]`` from dense features ``[B, K]`` and the features' embeddings."""
        logits: Tensor = self.bias
        if self.weights_only:
            logits = logits + concat_features(embeddings, self.weights_only).sum(1)
        if self.deep is None:
            return logits
        parts = [stack_features(embeddings, self.names)] if self.names else []
        if self.dense_rows is not None:
            parts.append(dense.unsqueeze(2) * self.dense_rows)
        fields = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        vectors = fields[:, :, 1:]
        # All pairs at once: half of (square of the sum - sum of the squares).
        pairs = 0.5 * (vectors.sum(1).square() - vectors.square().sum(1)).sum(1)
        deep: Tensor = self.deep(vectors.flatten(1))
        return logits + fields[:, :, 0].sum(1) + pairs + deep.squeeze(1)
