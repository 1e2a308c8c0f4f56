"""The captured dense part: every batch's inputs go where a replay reads them, and gradients come from where it leaves
them. The capture is one of CPU memory: a replay does the work again on the same tensors, and nothing else."""

from __future__ import annotations

import pytest
import torch

from fae.embedding.rows import RowOptimizer
from fae.models.registry import build_model
from fae.training.dense import make_dense_optimizer
from fae.training.dense_graph import DenseGraph
from fae.training.step import train_step

from cases import Log, history_log, make_embeddings, random_log

WARM_UP = 2


class Recorder:
    """A capture that runs nothing, and replays that write where it put things."""

    def __init__(self, model, embeddings, loss_sum) -> None:
        self.model, self.leaves, self.loss_sum = model, embeddings._leaves, loss_sum
        self.captures = self.replays = self.warm_ups = 0

    def aside(self, work) -> None:
        self.warm_ups += 1
        work()

    def capture(self, work):
        self.captures += 1
        weights = [parameter.detach().clone() for parameter in self.model.parameters()]
        loss = self.loss_sum.clone()
        work()
        with torch.no_grad():
            for parameter, before in zip(self.model.parameters(), weights, strict=True):
                parameter.copy_(before)
            self.loss_sum.copy_(loss)
        places = [leaf.grad for leaf in self.leaves]

        def replay() -> None:
            self.replays += 1
            for leaf in self.leaves:
                leaf.grad = None
            work()
            for leaf, place in zip(self.leaves, places, strict=True):
                place.copy_(leaf.grad)
                leaf.grad = None

        return replay


def trained(log: Log, step_of) -> list[torch.Tensor]:
    """Tables and dense weights after two epochs, and the sum of losses."""
    layout = log.layout(0.2, 1)
    embeddings = make_embeddings("hybrid", log, layout, RowOptimizer(name="adagrad", learning_rate=0.1))
    embeddings._make_leaves()  # as on a GPU
    embeddings.initialise(7)
    model = build_model(log.config(), log.features, log.dense.shape[1], seed=7)
    loss_sum = torch.zeros((), dtype=torch.float64)
    step = step_of(model, embeddings, make_dense_optimizer("sgd", model, 0.1), loss_sum)
    packed = log.packed(layout)
    for _ in range(2):
        for batch in embeddings.stream(packed, range(packed.num_batches)):
            assert embeddings.computes_on_host(batch)
            step(batch)
    tables = [tensor for table in range(len(log.features)) for tensor in embeddings.export_table(table)]
    return [loss_sum, *tables, *(parameter.detach() for parameter in model.parameters())]


@pytest.mark.parametrize("make_log", [random_log, history_log])
def test_the_same_steps(make_log):
    log = make_log(4, num_inputs=150, batch_size=16)  # the last batch is padded
    recorders = []

    def captured(model, embeddings, optimizer, loss_sum):
        recorders.append(Recorder(model, embeddings, loss_sum))
        graph = DenseGraph(
            model, embeddings, optimizer, loss_sum, aside=recorders[-1].aside, capture=recorders[-1].capture,
            warm_up_steps=WARM_UP,
        )  # fmt: skip
        return lambda batch: graph(batch, "fp32")

    def plain(model, embeddings, optimizer, loss_sum):
        return lambda batch: train_step(model, embeddings, optimizer, batch, loss_sum=loss_sum)

    ours, expected = trained(log, captured), trained(log, plain)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    (recorder,) = recorders
    assert (recorder.warm_ups, recorder.captures) == (WARM_UP, 1)
    assert recorder.replays == 2 * -(-150 // 16) - WARM_UP


def test_another_precision_is_captured_anew():
    log = random_log(4, num_inputs=96, batch_size=16)
    recorders, states = [], []

    def changing(model, embeddings, optimizer, loss_sum):
        recorders.append(Recorder(model, embeddings, loss_sum))
        graph = DenseGraph(
            model, embeddings, optimizer, loss_sum, aside=recorders[-1].aside, capture=recorders[-1].capture,
            warm_up_steps=0,
        )  # fmt: skip

        def step(batch):
            graph(batch, "bf16" if len(states) > 3 else "fp32")
            states.append(graph.setting_up)

        return step

    trained(log, changing)
    assert recorders[0].captures == 2
    assert states == [True, False, False, False, True, *[False] * 7]


def test_where_nothing_is_on_a_gpu_nothing_is_computed_for_one():
    log = random_log(4)
    layout = log.layout(0.2, 1)
    for placement in ("cpu", "hybrid", "paper", "tiered"):
        embeddings = make_embeddings(placement, log, layout, RowOptimizer(name="sgd", learning_rate=0.1))
        packed = log.packed(layout)
        for batch in embeddings.stream(packed, range(packed.num_batches)):
            assert not embeddings.computes_on_host(batch)
