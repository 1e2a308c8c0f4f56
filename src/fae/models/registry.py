"""The registry of models: the class behind each name of a recipe, built with seeded first weights.

A new model is one file with its class, its configuration class in `fae.models.config`, and one entry of `MODELS`. The
contract tests (``tests/contract/test_models.py``) then run over it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fae.artifacts.columnar_log import FeatureSchema, feature_tables, model_features
from fae.core.seeds import derive_seed
from fae.models.config import ModelConfig
from fae.models.dcnv2 import DCNv2
from fae.models.deepfm import DeepFM
from fae.models.dlrm import DLRM
from fae.models.tbsm import TBSM
from fae.models.wide_deep import WideDeep

MODELS: dict[str, Callable[[Any, Sequence[FeatureSchema], int], nn.Module]] = {
    "dlrm": DLRM,
    "tbsm": TBSM,
    "deepfm": DeepFM,
    "dcnv2": DCNv2,
    "wide_deep": WideDeep,
}
"""By name; each takes its own configuration class (`fae.models.config.MODEL_CONFIGS`), the features and K."""


def build_model(config: ModelConfig, features: Sequence[FeatureSchema], num_dense: int, *, seed: int) -> nn.Module:
    """Build a recipe's model on the CPU; the same seed gives the same first weights on every device.

    Raises
    ------
    RecipeError
        If the model cannot take these features.
    """
    config, features = _of_columns(config, features)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "dense weights"))
        return MODELS[config.name](config, features, num_dense)


def sketch_model(config: ModelConfig, features: Sequence[FeatureSchema], num_dense: int) -> nn.Module:
    """A recipe's model without weights, on torch's meta device: its shapes, in no memory.

    Raises
    ------
    RecipeError
        If the model cannot take these features.
    """
    config, features = _of_columns(config, features)
    with torch.device("meta"), _Sketching():
        return MODELS[config.name](config, features, num_dense)


class _Sketching(TorchFunctionMode):
    """Go around what the meta device does in Python: with it torch imports its compiler, which takes two seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, named = getattr(func, "__name__", ""), kwargs or {}
        if name == "normal_":  # Tensor.normal_ and nn.init.normal_: there are no weights to draw
            return args[0] if args else named["tensor"]
        if name == "arange":
            return func(*args, **{**named, "device": "cpu"}).to("meta")
        return func(*args, **named)


def _of_columns(
    config: ModelConfig, features: Sequence[FeatureSchema]
) -> tuple[ModelConfig, tuple[FeatureSchema, ...]]:
    """What the model is made from: the columns of the tables, which the configuration is checked against."""
    columns = model_features(features)
    tables = {each.name: features[table].name for each, table in zip(columns, feature_tables(features), strict=True)}
    config = config.with_parts(tables)
    config.check({each.name: each.length if each.pooling == "none" else 1 for each in columns})
    return config, columns


def embedding_dims(config: ModelConfig, features: Sequence[FeatureSchema]) -> list[int]:
    """Width D of every table, in their order."""
    return config.dims([feature.name for feature in features])
