"""Columns that share a table: all placements are the same bytes, and plain PyTorch with one weight agrees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fae.core.optimizers import OPTIMIZERS
from fae.embedding.placements import PLACEMENTS
from fae.models.registry import build_model
from fae.streaming.row_store import RowOptimizer
from fae.training.plain import PlainEmbeddings, PlainTrainer

from cases import assert_same_bytes, flat_shared_log, shared_history_log, shared_log, train

LOGS = {
    "flat": flat_shared_log,
    "lists": shared_log,
    "two widths": lambda seed: shared_log(seed, widths=(8, 8, 4)),
    "sequences": shared_history_log,
}
every_log = pytest.mark.parametrize("name", LOGS)
optimizers = pytest.mark.parametrize("optimizer", OPTIMIZERS)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**31),
    name=st.sampled_from(sorted(LOGS)),
    optimizer=st.sampled_from(OPTIMIZERS),
    share=st.floats(0, 1),
    depth=st.integers(2, 6),
)
def test_placements_are_one(seed: int, name: str, optimizer: str, share: float, depth: int) -> None:
    log = LOGS[name](seed)
    layout = log.layout(share, seed)
    expected = train(log, layout, optimizer, "cpu")
    for placement in PLACEMENTS:
        assert_same_bytes(train(log, layout, optimizer, placement, depth=depth), expected)


@every_log
def test_the_budget_does_not_matter(name: str) -> None:
    log = LOGS[name](3)
    expected = train(log, log.layout(1.0, 0), "rowwise_adagrad", "cpu", epochs=2)
    for share in (0.0, 0.1, 0.9):
        layout = log.layout(share, 1)
        assert_same_bytes(train(log, layout, "rowwise_adagrad", "tiered", depth=3, epochs=2), expected)


@every_log
@optimizers
def test_one_plain_table_of_several_columns_agrees_within_rounding(name: str, optimizer: str) -> None:
    log = LOGS[name](9)
    ours = train(log, log.layout(0.2, 4), optimizer, "tiered", depth=4)
    plain = PlainEmbeddings(log.features, log.embedding_dims, seed=7)
    model = build_model(log.config(), log.features, log.dense.shape[1], seed=7)
    trainer = PlainTrainer(
        model, plain, RowOptimizer(name=optimizer, learning_rate=0.1), dense_learning_rate=log.dense_rate
    )
    for group in log.groups:
        trainer.step(
            torch.from_numpy(log.ids[group].astype(np.int64)),
            torch.from_numpy(log.dense[group]),
            torch.from_numpy(log.labels[group].astype(np.float32)),
        )
    tables = [parameter.detach() for parameter in plain.parameters()]
    assert len(tables) == len(log.features)
    for table, (one, other) in enumerate(zip(ours[: 2 * len(tables) : 2], tables, strict=True)):
        torch.testing.assert_close(one, other, rtol=5e-4, atol=5e-5, msg=lambda text, t=table: f"table {t}: {text}")
    for one, other in zip(ours[2 * len(tables) :], model.parameters(), strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=5e-4, atol=5e-5)


def test_the_gradients_of_both_columns_are_added() -> None:
    log = flat_shared_log(1)
    plain = PlainEmbeddings(log.features, log.embedding_dims, seed=7, sparse=False)
    before = plain.tables[0].weight.detach().clone()
    outputs = plain(torch.tensor([[3, 5, 0], [5, 5, 1]]))
    (outputs["a"].sum() + 2 * outputs["b"].sum()).backward()
    gradient = plain.tables[0].weight.grad
    assert plain.tables[0].weight is plain.tables[1].weight
    assert gradient is not None
    assert gradient[3].tolist() == [1.0] * 8
    assert gradient[5].tolist() == [5.0] * 8
    torch.testing.assert_close(outputs["a"].detach(), before[[3, 5]])
