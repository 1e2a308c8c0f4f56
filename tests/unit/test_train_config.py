"""What `[train]` says: the learning rate of the dense weights, and what is refused."""

from __future__ import annotations

import pytest

from fae.core.errors import RecipeError
from fae.training.config import TrainConfig


@pytest.mark.parametrize(
    ("optimizer", "expected"), [("rowwise_adagrad", 0.005), ("adagrad", 0.005), ("sgd", 0.05), ("adam", 0.05)]
)
def test_dense_weights_learn_at_a_tenth_under_adagrad(optimizer, expected) -> None:
    assert TrainConfig(optimizer=optimizer, learning_rate=0.05).dense_rate == pytest.approx(expected)
    assert TrainConfig(optimizer=optimizer, learning_rate=0.05, dense_learning_rate=0.3).dense_rate == 0.3


@pytest.mark.parametrize("tail", [-0.1, 1.5])
def test_a_tail_is_a_share(tail) -> None:
    with pytest.raises(RecipeError, match=r"adaptive_tail = .* must be from 0 to 1"):
        TrainConfig(adaptive_tail=tail)
