"""Placements ``hybrid`` and ``paper``: what they copy, when, and that they count it."""

from __future__ import annotations

import pytest
import torch

from fae.core.optimizers import OPTIMIZERS
from fae.embedding.base import Embeddings
from fae.models.registry import build_model
from fae.streaming.row_store import RowOptimizer
from fae.training.dense import make_dense_optimizer
from fae.training.runner import StepRunner
from fae.training.step import train_step

from cases import assert_same_bytes, hot_and_cold_log, in_order_layout, make_embeddings, random_log, train


def run(log, embeddings, order):
    """Train on some batches; every table with its state, and every dense weight."""
    embeddings.initialise(7)
    model = build_model(log.config(), log.features, log.dense.shape[1], seed=7)
    optimizer = make_dense_optimizer(embeddings.optimizer.name, model, log.dense_rate)
    packed = log.packed(embeddings.layout)
    for batch in embeddings.stream(packed, order):
        train_step(model, embeddings, optimizer, batch)
    return [*(part for table in range(3) for part in embeddings.export_table(table)), *model.parameters()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_swap_copies_the_hot_rows_with_their_state(optimizer):
    log = hot_and_cold_log()
    layout = in_order_layout(log)
    rows = RowOptimizer(name=optimizer, learning_rate=0.1)
    paper = make_embeddings("paper", log, layout, rows)
    assert [log.packed(layout).batch(i).has_cold_rows for i in range(6)] == [False, False, True, True, False, True]
    run(log, paper, range(6))
    hot_bytes = 4 * layout.groups[0].num_hot_rows * (8 + rows.state_width(8))
    assert paper.device_bytes == hot_bytes
    traffic = paper.traffic
    # To the bank before batches 0 and 4, to the host before batches 2 and 5.
    assert traffic["swaps"] == 4
    assert traffic["swap_bytes_to_device"] == traffic["swap_bytes_to_host"] == 2 * hot_bytes
    # Pooled rows of the three cold batches: 16 inputs, 3 features of 8 floats.
    assert traffic["pooled_bytes_to_device"] == traffic["gradient_bytes_to_host"] == 3 * 16 * 24 * 4


def test_a_swap_copies_nothing_where_no_row_has_changed():
    log = hot_and_cold_log()
    layout = in_order_layout(log)
    paper = make_embeddings("paper", log, layout, RowOptimizer())
    paper.initialise(7)
    packed = log.packed(layout)
    for _ in range(2):
        for batch in paper.stream_frozen(packed, [0, 2, 4, 5]):
            paper.lookup(batch, requires_grad=False)
    assert paper.traffic["swaps"] == 1, "only the first fill of the bank"


@pytest.mark.parametrize("lists", [False, True])
def test_hybrid_with_buffers_as_for_another_device_is_the_same(lists, monkeypatch):
    """The copies that are made where the model is on a GPU, made on the CPU."""
    from fae.embedding.hybrid import HybridEmbeddings

    log = random_log(11, lists=lists)
    layout = log.layout(0.2, 1)
    expected = train(log, layout, "adam", "cpu")
    made, real = [], HybridEmbeddings.__init__

    def with_buffers(self, *arguments, **options):
        real(self, *arguments, **options)
        self._make_leaves()
        made.append(self)

    monkeypatch.setattr(HybridEmbeddings, "__init__", with_buffers)
    for placement in ("hybrid", "paper"):
        assert_same_bytes(train(log, layout, "adam", placement), expected)
    assert len(made) == 2
    assert made[0].device_bytes == 0
    width = sum(geometry.width for geometry in made[0].geometries)
    assert made[0].traffic["pooled_bytes_to_device"] == len(log.groups) * 16 * width * 4
    assert made[0].traffic["gradient_bytes_to_host"] == len(log.groups) * 16 * width * 4


def test_hybrid_forgets_the_gradient_of_a_group_that_is_not_used():
    log = random_log(12, lists=True)
    layout = log.layout(0.2, 1)
    hybrid = make_embeddings("hybrid", log, layout, RowOptimizer(name="sgd", learning_rate=0.1))
    hybrid._make_leaves()
    hybrid.initialise(1)
    packed = log.packed(layout)
    for count, batch in enumerate(hybrid.stream(packed, [0, 1])):
        features = hybrid.lookup(batch)
        (features["a"].sum() if count else features["e"].sum() + features["a"].sum()).backward()
        before = hybrid.export_table(4)[0]
        hybrid.update(batch)
        assert torch.equal(hybrid.export_table(4)[0], before) == bool(count)


@pytest.mark.parametrize("order", [[0, 2, 1, 3, 4, 5, 0], [2, 0, 1, 4, 5]])
def test_a_replayed_step_makes_the_host_stale_too(order):
    """A captured step changes the bank and the step count, and `update` of the placement is not called."""
    log = hot_and_cold_log()
    layout = in_order_layout(log)
    rows = RowOptimizer(name="adam", learning_rate=0.1)
    paper = make_embeddings("paper", log, layout, rows)
    whole = paper.update

    def replayed(batch, **options):
        if batch.packed.has_cold_rows:
            whole(batch, **options)
        else:
            Embeddings.update(paper, batch, **options)

    paper.update = replayed
    got = run(log, paper, order)
    expected = run(log, make_embeddings("cpu", log, layout, rows), order)
    assert_same_bytes([t.detach() for t in got], [t.detach() for t in expected])


def test_hot_steps_warm_up_by_themselves():
    """Cold batches run on the CPU: they compile nothing that a hot batch's capture could do without."""
    pytest.importorskip("triton")
    log = hot_and_cold_log()
    layout = in_order_layout(log)
    paper = make_embeddings("paper", log, layout, RowOptimizer(), engine="triton")
    paper.initialise(7)
    model = build_model(log.config(), log.features, log.dense.shape[1], seed=7)
    runner = StepRunner(model, paper, make_dense_optimizer("rowwise_adagrad", model, log.dense_rate, flat=True))
    runner._capture, captured = True, []  # as on a GPU; a graph that cannot be made is told by what it raises

    def capture(batch):
        captured.append(batch)
        raise RuntimeError("no graphs here")

    runner._capture_step, runner._give_up = capture, lambda error: setattr(runner, "_capture", False)
    seen = []
    for batch in paper.stream(log.packed(layout), [2, 3, 5, 2, 0, 1, 4, 0]):
        runner(batch)
        seen.append((runner.setting_up, len(captured)))
    assert seen == [(True, 0)] * 3 + [(False, 0)] + [(True, 0)] * 3 + [(True, 1)]
    assert paper.steps == 8
