"""The upper limit of a model's weights is above those of every model, at usual and at odd widths."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from fae.artifacts.columnar_log import FeatureSchema
from fae.models.config import MODEL_CONFIGS
from fae.models.most_weights import BYTES_OF_WEIGHT, most_weights
from fae.models.registry import sketch_model
from fae.training.dense import dense_bytes

from model_cases import CASES, HISTORY, Case


def check(case: Case) -> None:
    model = sketch_model(case.config, case.features, case.num_dense)
    most = most_weights(case.config, case.features, case.num_dense)
    assert sum(parameter.numel() for parameter in model.parameters()) <= most
    for optimizer in ("sgd", "adagrad", "adam"):
        assert dense_bytes(optimizer, model) <= BYTES_OF_WEIGHT * most


@pytest.mark.parametrize("name", CASES)
def test_every_form_of_every_model(name: str) -> None:
    check(CASES[name])


@pytest.mark.parametrize("name", MODEL_CONFIGS)
@pytest.mark.parametrize("seed", range(4))
def test_drawn_widths(name: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    kind = MODEL_CONFIGS[name]

    def widths() -> tuple[int, ...]:
        return tuple(int(1 << random.integers(0, 14)) for _ in range(random.integers(1, 5)))

    options: dict[str, Any] = {each.name: widths() for each in dataclasses.fields(kind) if each.name.endswith("_mlp")}
    if name == "dcnv2":
        options |= {"cross_layers": int(random.integers(1, 9)), "cross_rank": int(random.integers(0, 3) * 300)}
    features = HISTORY if name == "tbsm" else tuple(
        FeatureSchema(name=f"c{number}", num_embeddings=5) for number in range(int(random.integers(1, 60)))
    )  # fmt: skip
    check(Case(kind(embedding_dim=int(random.integers(4, 257)), **options), features, int(random.integers(1, 200))))


def test_a_usual_model_is_far_below_the_memory_of_a_small_machine() -> None:
    criteo = tuple(FeatureSchema(name=f"C{number}", num_embeddings=5) for number in range(26))
    assert BYTES_OF_WEIGHT * most_weights(MODEL_CONFIGS["dlrm"](), criteo, 13) < 3 * 2**30
