"""Names of models in recipes, and how one is built with seeded first weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from fae.core.seeds import derive_seed
from fae.data.columnar import FeatureSchema
from fae.models.config import ModelConfig
from fae.models.dlrm import DLRM

MODELS = {"dlrm": DLRM}


def build_model(config: ModelConfig, features: Sequence[FeatureSchema], num_dense: int, *, seed: int) -> nn.Module:
    """The recipe's model on the CPU; the same seed gives the same first weights on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "dense weights"))
        return MODELS[config.name](config, features, num_dense)


def embedding_dims(config: ModelConfig, features: Sequence[FeatureSchema]) -> list[int]:
    """D of every table, in feature order."""
    return [config.embedding_dims.get(feature.name, config.embedding_dim) for feature in features]
