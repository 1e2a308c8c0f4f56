"""Wide & Deep (Cheng et al., "Wide & Deep Learning for Recommender Systems", 2016).

    logit = bias + sum of the weights of the wide features + MLP(embeddings, dense features)

The first number of a row is the feature's weight in the wide part, the other D - 1 its embedding in the deep part (why
in one row: `fae.models.deepfm`). `wide` names the features that have a weight; the others give all D numbers to the
deep part. A feature of width 1 that has a weight is in the wide part alone. That is the place of the paper's cross
products: write the pair of values as one column of the log, with embedding_dims = {cross = 1}.

Where we differ: one optimizer for both parts (the paper: FTRL with L1 for the wide, AdaGrad for the deep one); cross
products are columns of the log, not made here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fae.artifacts.columnar_log import FeatureSchema
from fae.models.config import WideDeepConfig
from fae.models.layers import MLP, stack_features


class WideDeep(nn.Module):
    """The model.

    Parameters
    ----------
    config
        Wide features and widths.
    features
        Categorical features, pooled.
    num_dense
        K; dense features enter the deep part.
    """

    def __init__(self, config: WideDeepConfig, features: Sequence[FeatureSchema], num_dense: int) -> None:
        super().__init__()
        self.names = [feature.name for feature in features]
        wide = config.wide or self.names
        # Numbers at the start of each row that are the wide part's.
        self.skips = [int(name in wide) for name in self.names]
        dims = config.dims(self.names)
        self.uniform = len(set(dims)) == 1 and all(self.skips)
        width = sum(dims) - sum(self.skips) + num_dense
        self.bias = nn.Parameter(torch.zeros(1))
        self.deep = MLP([width, *config.deep_mlp, 1], final_relu=False, dropout=config.dropout) if width else None

    def forward(self, dense: Tensor, embeddings: Mapping[str, Tensor]) -> Tensor:
        """Logits ``[B]`` from dense features ``[B, K]`` and the features' embeddings."""
        if self.uniform:
            rows = stack_features(embeddings, self.names)
            weights, vectors = rows[:, :, 0], rows[:, :, 1:].flatten(1)
        else:
            parts = [embeddings[name].flatten(1) for name in self.names]
            weights = torch.cat([part[:, :skip] for part, skip in zip(parts, self.skips, strict=True)], 1)
            vectors = torch.cat([part[:, skip:] for part, skip in zip(parts, self.skips, strict=True)], 1)
        logits = self.bias + weights.sum(1)
        if self.deep is None:
            return logits
        deep: Tensor = self.deep(torch.cat([vectors, dense], 1))
        return logits + deep.squeeze(1)
