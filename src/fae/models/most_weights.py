"""A number of dense weights that a model surely does not exceed, from its widths alone. Imports no torch."""

from __future__ import annotations

import dataclasses

from fae.artifacts.columnar_log import FeatureSchema, model_features
from fae.models.config import ModelConfig

_MATRICES = 8
"""More than the layers of any model that have no list of widths, and the lists of widths that it has."""

BYTES_OF_WEIGHT = 20
"""What a weight takes with its gradient and the state of any optimizer."""


def most_weights(config: ModelConfig, features: tuple[FeatureSchema, ...], num_dense: int) -> int:
    """An upper limit, often ten times too high: a model far below any limit need not be built to be counted.

    Every layer leads from some of the model's widths to others of them, so a chain of layers has at most as many
    weights as the square of their sum.
    """
    columns = model_features(features)
    dims = config.dims([each.name for each in columns])
    vectors = len(columns) + num_dense + 1
    widths = [
        num_dense, 2, sum(dims), vectors * config.embedding_dim, vectors * vectors,
        *(each.length for each in columns), getattr(config, "cross_rank", 0),
    ]  # fmt: skip
    for option in dataclasses.fields(config):
        if option.name.endswith("_mlp"):
            widths += getattr(config, option.name)
    chains = _MATRICES + 2 * int(getattr(config, "cross_layers", 0))
    return chains * sum(widths) ** 2
