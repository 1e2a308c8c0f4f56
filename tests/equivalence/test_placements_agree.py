"""Placement never changes the mathematics: the same bytes in every table and every dense weight."""

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
from fae.streaming.staging import FaultInjection
from fae.training.plain import PlainEmbeddings, PlainTrainer

from cases import adversarial_logs, assert_same_bytes, random_log, train

OTHERS = tuple(name for name in PLACEMENTS if name != "cpu")
optimizers = pytest.mark.parametrize("optimizer", OPTIMIZERS)
relaxed = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@relaxed
@given(
    seed=st.integers(0, 2**31),
    optimizer=st.sampled_from(OPTIMIZERS),
    share=st.floats(0, 1),
    depth=st.integers(2, 8),
    lists=st.booleans(),
    skew=st.floats(1.05, 3.0),
)
def test_placements_are_one(seed, optimizer, share, depth, lists, skew):
    log = random_log(seed, lists=lists, skew=skew)
    layout = log.layout(share, seed)
    expected = train(log, layout, optimizer, "cpu")
    for placement in OTHERS:
        assert_same_bytes(train(log, layout, optimizer, placement, depth=depth), expected)


@optimizers
def test_the_budget_does_not_matter(optimizer):
    log = random_log(3, lists=True)
    expected = train(log, log.layout(1.0, 0), optimizer, "cpu", epochs=2)
    for share in (0.0, 0.05, 0.3, 0.9):
        for seed in (0, 1):  # another storage order, too
            layout = log.layout(share, seed)
            assert_same_bytes(train(log, layout, optimizer, "tiered", depth=3, epochs=2), expected)
            assert_same_bytes(train(log, layout, optimizer, "paper", epochs=2), expected)


@optimizers
@pytest.mark.parametrize("name", adversarial_logs())
def test_adversarial_batches(name, optimizer):
    log = adversarial_logs()[name]
    for share in (0.0, 0.2):
        layout = log.layout(share, 1)
        expected = train(log, layout, optimizer, "cpu")
        for placement in OTHERS:
            assert_same_bytes(train(log, layout, optimizer, placement, depth=2), expected)
        for depth in (3, 8):
            assert_same_bytes(train(log, layout, optimizer, "tiered", depth=depth), expected)


@pytest.mark.parametrize("depth", [2, 3, 5, 8])
@pytest.mark.parametrize("seed", range(3))
def test_random_delays_and_nan_in_free_slots(depth, seed):
    log = random_log(seed, num_inputs=200, batch_size=8)
    layout = log.layout(0.1, seed)
    faults = FaultInjection(max_delay_seconds=0.004, fill_with_nan=True, seed=seed)
    optimizer = "adam" if seed == 0 else "rowwise_adagrad"
    ours = train(log, layout, optimizer, "tiered", depth=depth, faults=faults)
    assert_same_bytes(ours, train(log, layout, optimizer, "cpu"))


@optimizers
@pytest.mark.parametrize("lists", [False, True])
def test_plain_embedding_bags_agree_within_rounding(optimizer, lists):
    log = random_log(9, lists=lists)
    layout = log.layout(0.2, 4)
    ours = train(log, layout, optimizer, "tiered", depth=4)
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
    ours_tables = ours[: 2 * len(log.features) : 2]
    for table, (one, other) in enumerate(zip(ours_tables, tables, strict=True)):
        torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-5, msg=lambda text, t=table: f"table {t}: {text}")
    for one, other in zip(ours[2 * len(log.features) :], model.parameters(), strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=2e-4, atol=2e-5)
