"""The captured dense part: every batch's inputs go where a replay reads them, and gradients come from where it leaves
them. The capture is one of CPU memory: a replay does the work again on the same tensors, and nothing else."""

from __future__ import annotations

import gc
import itertools
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from fae.artifacts.packed import PackedBatch
from fae.distributed.group import Group
from fae.embedding.base import Embeddings
from fae.models.registry import build_model
from fae.streaming.row_store import RowOptimizer
from fae.training.dense import FlatOptimizer, make_dense_optimizer
from fae.training.dense_graph import DenseGraph
from fae.training.runner import StepRunner
from fae.training.step import train_step

from cases import Log, history_log, make_embeddings, random_log

WARM_UP = 2


class Recorder:
    """A capture that runs nothing, and replays that write where it put things."""

    def __init__(self, model, embeddings, loss_sum) -> None:
        self.model, self.leaves, self.loss_sum = model, embeddings._leaves, loss_sum
        self.captures = self.replays = self.warm_ups = 0

    def on_capture_stream(self, work) -> None:
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
            model, embeddings, optimizer, loss_sum, on_capture_stream=recorders[-1].on_capture_stream,
            capture=recorders[-1].capture,
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


@pytest.mark.parametrize("is_weighted", [False, True])
def test_a_slice_counts_what_it_is_of_the_whole_batch(is_weighted, monkeypatch):
    """By the number of its inputs, or by their weight."""
    monkeypatch.setattr(PackedBatch, "total_inputs", property(lambda batch: batch.num_inputs + 5))
    monkeypatch.setattr(PackedBatch, "total_weight", property(lambda batch: batch.num_inputs + 5.0))
    log = random_log(4, num_inputs=150, batch_size=16)
    if is_weighted:
        log = Log(**{**vars(log), "weights": np.random.default_rng(1).uniform(0, 3, 150).astype(np.float32)})

    def captured(model, embeddings, optimizer, loss_sum):
        embeddings.group = Group(world=2)
        recorder = Recorder(model, embeddings, loss_sum)
        graph = DenseGraph(
            model, embeddings, optimizer, loss_sum, on_capture_stream=recorder.on_capture_stream,
            capture=recorder.capture, warm_up_steps=WARM_UP,
        )  # fmt: skip
        return lambda batch: graph(batch, "fp32")

    def plain(model, embeddings, optimizer, loss_sum):
        return lambda batch: train_step(model, embeddings, optimizer, batch, loss_sum=loss_sum)

    for one, other in zip(trained(log, captured), trained(log, plain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("is_captured", [False, True])
def test_gradients_are_written_when_all_ranks_have_read_the_last_ones(is_captured, monkeypatch):
    notes, optimizers, log = [], [], random_log(4, num_inputs=96, batch_size=16)
    monkeypatch.setattr(FlatOptimizer, "await_readers", lambda self: notes.append("all have read"))
    monkeypatch.setattr(FlatOptimizer, "step", lambda self: notes.append("step"))

    def step_of(model, embeddings, _, loss_sum):
        optimizers.append(make_dense_optimizer("sgd", model, 0.1, flat=True))
        for weight in model.parameters():
            weight.register_hook(lambda gradient: notes.append("gradient"))
        recorder = Recorder(model, embeddings, loss_sum)
        graph = DenseGraph(
            model, embeddings, optimizers[0], loss_sum, on_capture_stream=recorder.on_capture_stream,
            capture=recorder.capture, warm_up_steps=WARM_UP,
        )  # fmt: skip
        if is_captured:
            return lambda batch: graph(batch, "fp32")
        return lambda batch: train_step(model, embeddings, optimizers[0], batch, loss_sum=loss_sum)

    trained(log, step_of)
    order = [note for note, _ in itertools.groupby(notes)]
    assert order == ["all have read", "gradient", "step"] * (12 + is_captured)  # a capture is one more


def test_another_precision_is_captured_anew():
    log = random_log(4, num_inputs=96, batch_size=16)
    recorders, states, in_bf16 = [], [], []

    def changing(model, embeddings, optimizer, loss_sum):
        recorders.append(Recorder(model, embeddings, loss_sum))

        def forward(dense, features):
            in_bf16.append(torch.is_autocast_enabled("cpu"))
            return model(dense, features)

        graph = DenseGraph(
            forward, embeddings, optimizer, loss_sum, on_capture_stream=recorders[-1].on_capture_stream,
            capture=recorders[-1].capture,
            warm_up_steps=0,
        )  # fmt: skip

        def step(batch):
            graph(batch, "bf16" if len(states) > 3 else "fp32")
            states.append(graph.setting_up)

        return step

    trained(log, changing)
    assert recorders[0].captures == 2
    assert states == [True, False, False, False, True, *[False] * 7]
    # Captures and replays: 1 + 4, then 1 + 8.
    assert in_bf16 == [*[False] * 5, *[True] * 9]


def test_where_nothing_is_on_a_gpu_nothing_is_computed_for_one():
    log = random_log(4)
    layout = log.layout(0.2, 1)
    for placement in ("cpu", "hybrid", "paper", "tiered"):
        embeddings = make_embeddings(placement, log, layout, RowOptimizer(name="sgd", learning_rate=0.1))
        packed = log.packed(layout)
        for batch in embeddings.stream(packed, range(packed.num_batches)):
            assert not embeddings.computes_on_host(batch)


def runner_as_on_a_gpu(model, embeddings, optimizer, *, capture=None) -> tuple[StepRunner, Recorder]:
    """A runner that captures dense parts in memory; `capture` in place of the recorder's."""
    runner = StepRunner(model, embeddings, optimizer)
    recorder = Recorder(model, getattr(embeddings, "_cold_side", embeddings), runner._loss_sums[0])
    runner._capture = True
    runner._dense_graph = DenseGraph(
        runner._through_forward, embeddings, optimizer, runner._loss_sums[0],
        on_capture_stream=recorder.on_capture_stream, capture=capture or recorder.capture, warm_up_steps=WARM_UP,
    )  # fmt: skip
    return runner, recorder


def runs(log: Log, prepare, placement="hybrid", epochs=1) -> tuple[list[torch.Tensor], Embeddings]:
    """Tables, dense weights and sum of losses of a training by the runner that `prepare` makes."""
    layout = log.layout(0.2, 1)
    embeddings = make_embeddings(placement, log, layout, RowOptimizer(name="adagrad", learning_rate=0.1))
    getattr(embeddings, "_cold_side", embeddings)._make_leaves()
    embeddings.initialise(7)
    model = build_model(log.config(), log.features, log.dense.shape[1], seed=7)
    runner = prepare(model, embeddings, make_dense_optimizer("sgd", model, 0.1))
    packed = log.packed(layout)
    for _ in range(epochs):
        for batch in embeddings.stream(packed, range(packed.num_batches)):
            runner(batch)
    tables = [tensor for table in range(len(log.features)) for tensor in embeddings.export_table(table)]
    loss = torch.tensor(runner.take_loss())
    return [loss, *tables, *(parameter.detach() for parameter in model.parameters())], embeddings


def assert_close(ours, expected) -> None:
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("placement", ["hybrid", "paper"])
def test_a_runner_replays_where_the_cpu_computes_rows(placement):
    log = random_log(4, num_inputs=150, batch_size=16)
    made = []

    def captured(*parts):
        made.append(runner_as_on_a_gpu(*parts))
        return made[0][0]

    def noting(*parts):
        runner, states = captured(*parts), []
        made.append(states)

        def step(batch):
            runner(batch)
            if runner._embeddings.computes_on_host(batch):
                states.append(runner.setting_up)

        step.take_loss = runner.take_loss
        return step

    ours, embeddings = runs(log, noting, placement, epochs=2)
    assert_close(ours, runs(log, StepRunner, placement, epochs=2)[0])
    (runner, recorder), states = made
    assert embeddings.steps == 2 * -(-150 // 16)
    assert states == [*[True] * (WARM_UP + 1), *[False] * (len(states) - WARM_UP - 1)]
    assert (recorder.warm_ups, recorder.captures, recorder.replays) == (WARM_UP, 1, len(states) - WARM_UP)
    assert recorder.replays > 3
    assert not runner.not_captured


def test_a_failed_capture_leaves_the_step_undone(monkeypatch, capsys):
    """Leaves may have gradients by then, of memory that is no longer theirs."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    log, runners, asked = random_log(4, num_inputs=150, batch_size=16), [], []

    def prepare(model, embeddings, optimizer):
        def fails(work):
            asked.append(embeddings.steps)
            for leaf in embeddings._leaves:
                leaf.grad = torch.full_like(leaf, 1e6)
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

        runners.append(runner_as_on_a_gpu(model, embeddings, optimizer, capture=fails)[0])
        return runners[0]

    ours, embeddings = runs(log, prepare)
    assert_close(ours, runs(log, StepRunner)[0])
    assert asked == [WARM_UP], "it is not tried again"
    assert embeddings.steps == -(-150 // 16)
    assert runners[0].not_captured == "operation not permitted when stream is capturing"
    assert capsys.readouterr().err.count("cannot be captured") == 1


@pytest.mark.parametrize("where", ["warm-up", "rows"])
def test_an_error_that_is_not_the_captures_is_raised_once(where, monkeypatch, capsys):
    """A step that went wrong half way must not be made again: its dense update would be made twice."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    log, asked = random_log(4, num_inputs=150, batch_size=16), []

    def prepare(model, embeddings, optimizer):
        runner, recorder = runner_as_on_a_gpu(model, embeddings, optimizer)

        def fails(*_, **__):
            asked.append(embeddings.steps)
            raise RuntimeError("out of threads")

        if where == "warm-up":
            runner._forward = fails
        else:
            update = embeddings.update
            embeddings.update = lambda batch: (fails if recorder.replays else update)(batch)
        return runner

    with pytest.raises(RuntimeError, match=r"^out of threads$"):
        runs(log, prepare)
    assert asked == [0 if where == "warm-up" else WARM_UP]
    assert "cannot be" not in capsys.readouterr().err


def test_a_model_is_compiled_before_it_is_captured():
    """The first step shows whether it can be; what is captured is what runs from then on."""
    log, made, calls = random_log(4, num_inputs=150, batch_size=16), [], []

    def prepare(model, embeddings, optimizer):
        runner, recorder = runner_as_on_a_gpu(model, embeddings, optimizer)
        made.append(recorder)

        def cannot(dense, features):
            calls.append(recorder.warm_ups)
            raise TypeError("cannot be traced")

        runner._forward, runner._is_proven = cannot, False
        return runner

    ours, _ = runs(log, prepare)
    assert_close(ours, runs(log, StepRunner)[0])
    assert calls == [0]
    assert (made[0].warm_ups, made[0].captures) == (WARM_UP, 1)


class FakeStream:
    """Notes who waits for whom."""

    def __init__(self, name, notes) -> None:
        self.name, self.notes = name, notes

    def wait_stream(self, other) -> None:
        self.notes.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def streams(monkeypatch):
    """A runner with a stream of its own; the list of what is asked of streams; the current one, last."""
    log = random_log(4)
    embeddings = make_embeddings("hybrid", log, log.layout(0.2, 1), RowOptimizer(name="sgd", learning_rate=0.1))
    runner = StepRunner(torch.nn.Linear(1, 1), embeddings, torch.optim.SGD([torch.zeros(1)], 0.1))
    notes: list[str] = []
    current = [FakeStream("current", notes)]
    runner._stream = FakeStream("own", notes)

    @contextmanager
    def on(stream):
        before = len(current)
        current.append(stream)
        try:
            yield
        finally:
            del current[before:]

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: current[-1])
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: "a graph")
    return runner, notes, current


def test_work_on_the_capture_stream_waits_and_is_waited_for(streams):
    runner, notes, current = streams
    runner._on_capture_stream(lambda: notes.append(f"work on {current[-1].name}"))
    assert notes == ["own waits for current", "work on own", "current waits for own"]


def test_a_capture_is_on_the_stream_of_the_steps_before(streams, monkeypatch):
    """It collects no garbage meanwhile; the threads that copy inputs may run."""
    runner, notes, _ = streams

    @contextmanager
    def graph(graph, pool, stream, *, capture_error_mode):
        notes.append(f"{graph} in {pool} on {stream.name}, {capture_error_mode}, garbage: {gc.isenabled()}")
        yield

    monkeypatch.setattr(torch.cuda, "graph", graph)
    assert runner._record_graph(lambda: notes.append("work"), "a pool") == "a graph"
    assert notes == ["a graph in a pool on own, thread_local, garbage: False", "work"]
    assert gc.isenabled()


def test_a_capture_that_cannot_be_ended_leaves_the_current_stream_as_it_was(streams, monkeypatch):
    """As `torch.cuda.graph`: where the end of a capture raises, it does not go back."""
    runner, _, current = streams

    class Graph:
        def __init__(self, graph, pool, stream, *, capture_error_mode) -> None:
            self.stream = stream

        def __enter__(self) -> None:
            current.append(self.stream)

        def __exit__(self, *_) -> None:
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "graph", Graph)
    with pytest.raises(RuntimeError, match="previous error"):
        runner._record_graph(lambda: None, None)
    assert current[-1].name == "current"
    assert gc.isenabled()
