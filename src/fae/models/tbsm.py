"""TBSM (Ishkhanov et al., "Time-based Sequence Model for Personalization and Recommendation Systems", 2020).

One DLRM turns every step of a user's history, and the candidate, into a vector of length 1 (z_1 .. z_T and w); the time
series layer weighs the history by its products with the candidate; a last MLP sees context and candidate:

    z_t = normalise(top(interactions(bottom(dense), rows of step t)))
    a_t = z_t w  |  z_t A w  |  z_t A'A w                             inner = dot, indefinite, definite
    c   = sum_t f(a)_t z_t                                            f = sigmoid(MLP(a)), softmax(a) or a itself
    logit = final(c, w)

Sequences are features with ``pooling = "none"``, all L = T + 1 slots long, oldest step first, pads last; the last slot
in use is the candidate, so history and candidate share a table. Features with one vector (the user) and the dense
features are the same in every step. The attention's MLP has an input for each place, counted back from the candidate.

From the public code (facebookresearch/tbsm): ReLU behind every layer of bottom and top, sigmoid behind the last layer
of the attention's MLP; the dense feature of a step is its place in time, t / (T + 1), which we compute here instead of
storing it in the log. Where we differ: pads have no row, no weight and no gradient (there, they are id 0); one time
series layer with one head (there, several heads or LSTM and multi-head attention for comparison); the first weights are
drawn once (there, the best of five seeds is kept). Pads change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fae.artifacts.columnar_log import FeatureSchema
from fae.models.config import TBSMConfig
from fae.models.layers import MLP, DotInteraction, linear, sequence_lengths, small_products

_SHORTEST = 1e-6
"""Steps shorter than this are not stretched to length 1: torch's own 1e-12 lets gradients overflow half precision."""


class TBSM(nn.Module):
    """The model.

    Parameters
    ----------
    config
        Widths, inner product, attention.
    features
        Categorical features; those kept as sequences have one length.
    num_dense
        K; dense features join the step's place in time.
    """

    slots: Tensor

    def __init__(self, config: TBSMConfig, features: Sequence[FeatureSchema], num_dense: int) -> None:
        super().__init__()
        self.names = [feature.name for feature in features]
        lengths = {f.name: f.length for f in features if f.pooling == "none" and f.length > 1}
        self.sequence = next(iter(lengths))
        length, width, drop = lengths[self.sequence], config.top_mlp[-1], config.dropout
        self.register_buffer("slots", torch.arange(length), persistent=False)
        self.bottom = MLP([1 + num_dense, *config.bottom_mlp, config.embedding_dim], final_relu=True, dropout=drop)
        self.interaction = DotInteraction(1 + len(features))
        self.top = MLP(
            [config.embedding_dim + self.interaction.num_pairs, *config.top_mlp], final_relu=True, dropout=drop
        )
        self.attention = TimeSeriesLayer(config, length, width)
        self.final = MLP([2 * width, *config.final_mlp, 1], final_relu=False, dropout=drop)

    def forward(self, dense: Tensor, embeddings: Mapping[str, Tensor]) -> Tensor:
        """Logits ``[B]`` from dense features ``[B, K]`` and the features' embeddings."""
        last = sequence_lengths(embeddings, self.sequence).unsqueeze(1) - 1
        steps = self._steps(dense, embeddings, last)
        # One row of this picks the candidate's slot; in padded inputs (no slot in use) nothing.
        candidate = small_products((self.slots == last).to(steps.dtype).unsqueeze(1), steps).squeeze(1)
        context = self.attention(candidate, steps, last)
        logits: Tensor = self.final(torch.cat([context, candidate], 1))
        return logits.squeeze(1)

    def _steps(self, dense: Tensor, embeddings: Mapping[str, Tensor], last: Tensor) -> Tensor:
        """The vector of every slot ``[B, L, width]``, pads included; `last` ``[B, 1]`` is the candidate's slot."""
        batch, length = last.shape[0], len(self.slots)  # len() would make the batch a constant of an export
        place = (self.slots - last + (length - 1)).to(dense.dtype) / length
        timed = torch.cat([place.unsqueeze(2), dense.unsqueeze(1).expand(-1, length, -1)], 2)
        direct = self.bottom(timed.flatten(0, 1))
        vectors = [direct.view(batch, length, -1)]
        for name in self.names:
            embedding = embeddings[name]
            # [B, D] and [B, 1, D] are the same in every step.
            vectors.append(embedding.view(batch, -1, embedding.shape[-1]).expand(-1, length, -1))
        interactions = self.interaction(torch.stack(vectors, 2).flatten(0, 1))
        steps = self.top(torch.cat([direct, interactions], 1))
        return nn.functional.normalize(steps, dim=1, eps=_SHORTEST).view(batch, length, -1)


class TimeSeriesLayer(nn.Module):
    """Weighs the steps of a history by their products with the candidate, and sums them to the context."""

    slots: Tensor

    def __init__(self, config: TBSMConfig, length: int, width: int) -> None:
        super().__init__()
        self.inner, self.kind = config.inner, config.attention
        self.register_buffer("slots", torch.arange(length), persistent=False)
        if config.inner != "dot":
            self.matrix = nn.Parameter(torch.empty(width, width).normal_(std=math.sqrt(1 / width)))
        if config.attention == "mlp":
            self.mlp = MLP([length - 1, *config.attention_mlp, length - 1], final_relu=False, dropout=config.dropout)

    def forward(self, candidate: Tensor, steps: Tensor, last: Tensor) -> Tensor:
        """Context ``[B, width]`` of candidates ``[B, width]``, steps ``[B, L, width]`` and the candidates' slots."""
        query = candidate
        if self.inner != "dot":
            query = linear(query, self.matrix)
        if self.inner == "definite":
            query = linear(query, self.matrix.t())
        is_history = self.slots < last
        products = small_products(steps, query.unsqueeze(2)).squeeze(2).masked_fill(~is_history, 0)
        if self.kind == "mlp":
            weights = self._weigh(products, last)
        elif self.kind == "softmax":
            # A large negative number, not -inf: an input without a history would come out as NaN.
            weights = torch.softmax(products.masked_fill(~is_history, -1e4), 1)
        else:
            weights = products
        return small_products(weights.masked_fill(~is_history, 0).unsqueeze(1), steps).squeeze(1)

    def _weigh(self, products: Tensor, last: Tensor) -> Tensor:
        """Coefficients of the products ``[B, L]``; the MLP sees them with the youngest step always in its last place.

        Rolling a row is a permutation, so its backward adds nothing to anything and has no order to depend on.
        """
        length = len(self.slots)
        shift = (length - 1) - last
        placed = products.gather(1, (self.slots - shift).remainder(length))
        coefficients = torch.sigmoid(self.mlp(placed[:, :-1]))
        return nn.functional.pad(coefficients, (0, 1)).gather(1, (self.slots + shift).remainder(length))
