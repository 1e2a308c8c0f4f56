"""What `[train]` says: the learning rate of the dense weights, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fae.core.errors import RecipeError
from fae.models.config import MODEL_CONFIGS
from fae.run.recipe import parse_recipe
from fae.training.config import TrainConfig

LOG = {"train": "log.csv", "categorical": ["user", "item"]}
SHARES = {"dlrm": 0.1, "tbsm": 0.5, "deepfm": 0.5, "dcnv2": 0.5, "wide_deep": 0.5}


@pytest.mark.parametrize(
    ("optimizer", "expected"), [("rowwise_adagrad", 0.005), ("adagrad", 0.005), ("sgd", 0.05), ("adam", 0.05)]
)
def test_dense_weights_of_any_model_learn_at_a_tenth_under_adagrad(optimizer, expected) -> None:
    assert TrainConfig(optimizer=optimizer, learning_rate=0.05).dense_rate == pytest.approx(expected)
    assert TrainConfig(optimizer=optimizer, learning_rate=0.05, dense_learning_rate=0.3).dense_rate == 0.3


def test_every_model_has_its_share() -> None:
    assert {name: config.dense_share for name, config in MODEL_CONFIGS.items()} == SHARES


def test_runs_of_before_keep_their_fingerprint() -> None:
    assert "reproducible" not in TrainConfig().to_parameters()
    assert TrainConfig(reproducible=True).to_parameters()["reproducible"]


def test_slices_are_equal() -> None:
    TrainConfig(batch_size=40, reproducible=True)
    with pytest.raises(RecipeError, match=r"batch_size = 34 cannot.*8 equal slices.*set train\.batch_size=40"):
        TrainConfig(batch_size=34, reproducible=True)


@pytest.mark.parametrize("model", SHARES)
@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adagrad", "sgd", "adam"])
def test_a_recipe_takes_its_models_share(model, optimizer) -> None:
    def rate(**train):
        tables = {"log": LOG, "model": {"name": model}, "train": {"optimizer": optimizer, **train}}
        return parse_recipe(tables, base=Path()).train.dense_rate

    share = SHARES[model] if "adagrad" in optimizer else 1.0
    assert rate(learning_rate=0.04) == pytest.approx(0.04 * share)
    assert rate() == pytest.approx(0.02 * share)
    assert rate(learning_rate=0.04, dense_learning_rate=0.3) == 0.3


def test_only_what_changed_gets_another_name() -> None:
    """A trained DLRM must not be trained anew for a default that is what it was."""
    trains = {
        model: parse_recipe({"log": LOG, "model": {"name": model}}, base=Path()).train for model in ("dlrm", "dcnv2")
    }
    assert trains["dlrm"] == TrainConfig()
    assert trains["dcnv2"] == TrainConfig(dense_learning_rate=0.01)


def test_a_share_is_no_option_of_a_recipe() -> None:
    with pytest.raises(RecipeError, match="dense_share"):
        parse_recipe({"log": LOG, "model": {"name": "dlrm", "dense_share": 0.2}}, base=Path())


@pytest.mark.parametrize("tail", [-0.1, 1.5])
def test_a_tail_is_a_share(tail) -> None:
    with pytest.raises(RecipeError, match=r"adaptive_tail = .* must be from 0 to 1"):
        TrainConfig(adaptive_tail=tail)
