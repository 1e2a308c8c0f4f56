"""One contract for placements: the promises that every entry of the registry keeps, tested on all of them."""

from __future__ import annotations

import copy
import dataclasses
import gc
import re
import tracemalloc
import typing

import numpy as np
import pytest
import torch

from fae.bench.config import CONTENDERS
from fae.core.errors import RecipeError
from fae.core.optimizers import OPTIMIZERS
from fae.embedding.placements import PLACEMENTS, find_placement, plan_memory
from fae.embedding.resident import ResidentEmbeddings
from fae.models.registry import build_model
from fae.streaming.row_store import RowOptimizer
from fae.training.config import TrainConfig
from fae.training.dense import dense_bytes, make_dense_optimizer
from fae.training.runner import StepRunner
from fae.training.step import train_step

from cases import assert_same_bytes, hot_and_cold_log, in_order_layout, make_embeddings, random_log, sized_hot_set

ADAM = RowOptimizer(name="adam", learning_rate=0.1)
DEPTH = 3
placements = pytest.mark.parametrize("placement", PLACEMENTS)
optimizers = pytest.mark.parametrize("optimizer", OPTIMIZERS)


class Setting:
    """Embeddings of one placement over a log, with a model and its optimizer."""

    def __init__(self, placement, log, layout, optimizer=ADAM):
        self.log, self.packed = log, log.packed(layout)
        self.embeddings = make_embeddings(placement, log, layout, optimizer, depth=DEPTH)
        self.embeddings.initialise(7)
        self.model = build_model(log.config(), log.features, log.dense.shape[1], seed=7)
        self.dense_optimizer = make_dense_optimizer(optimizer.name, self.model, log.dense_rate)

    def train(self, order, *, after_each=lambda setting: None):
        for batch in self.embeddings.stream(self.packed, order):
            train_step(self.model, self.embeddings, self.dense_optimizer, batch)
            after_each(self)
        return self

    def tables(self):
        return [part for table in range(len(self.log.features)) for part in self.embeddings.export_table(table)]

    def tensors(self):
        return [*self.tables(), *(parameter.detach() for parameter in self.model.parameters())]


def looked_up(embeddings, stream) -> list[torch.Tensor]:
    """Every feature of every batch of a stream."""
    found = []
    for batch in stream:
        features = embeddings.lookup(batch, requires_grad=False)
        assert not any(features[name].requires_grad for name in features)
        found += [features[name].clone() for name in features]
    return found


# The registry.


def test_recipes_may_name_every_placement_and_no_other():
    assert typing.get_args(typing.get_type_hints(TrainConfig)["placement"]) == tuple(PLACEMENTS)
    with pytest.raises(RecipeError, match=f"placement = 'gpu' is not one of {', '.join(PLACEMENTS)}"):
        find_placement("gpu")


def test_the_benchmark_measures_every_placement():
    assert set(PLACEMENTS) - {"spread"} <= set(CONTENDERS), "spread is device, but on several GPUs"


@placements
def test_an_entry_says_what_it_is(placement):
    entry, log = PLACEMENTS[placement], random_log(1)
    assert entry.name == placement
    assert len(entry.description) < 100
    assert str(entry.device_of("cuda")) == ("cpu" if entry.cpu_only else "cuda")
    embeddings = make_embeddings(placement, log, log.layout(0.4, 1), ADAM)
    assert type(embeddings) is (ResidentEmbeddings if placement == "spread" else entry.embeddings), "on one rank"
    assert embeddings.placement == placement


@placements
def test_embeddings_describe_themselves(placement):
    log = random_log(1)
    text = repr(make_embeddings(placement, log, log.layout(0.4, 1), ADAM))
    assert re.fullmatch(
        rf"<{placement}: 3 tables, adam, batches of 16; \d+ rows on cpu \(.*\), \d+ rows on the host \(.*\)>", text
    )


# Numbers: placement never changes them.


@placements
@optimizers
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [2, 0, 3, 1, 5, 4], [4, 4, 4], [2, 3, 5]])
def test_any_order_of_hot_and_cold_batches_gives_the_bytes_of_the_cpu(placement, optimizer, order):
    log = hot_and_cold_log()
    rows = RowOptimizer(name=optimizer, learning_rate=0.1)
    expected = Setting("cpu", log, in_order_layout(log), rows).train(order)
    ours = Setting(placement, log, in_order_layout(log), rows).train(order)
    assert_same_bytes(ours.tensors(), expected.tensors())


@placements
def test_reading_between_steps_changes_nothing(placement):
    """In the middle of a phase rows of both tiers are read, or refused where slots may hold the newest values."""
    log = hot_and_cold_log()

    def read(setting):
        if PLACEMENTS[placement].one_stream:
            with pytest.raises(RuntimeError, match="still open"):
                setting.embeddings.export_table(0)
            return
        looked_up(setting.embeddings, setting.embeddings.stream_frozen(setting.packed, [0, 3, 4]))
        assert setting.embeddings.export_table(0)[0].isfinite().all()

    read_between = Setting(placement, log, in_order_layout(log)).train(range(6), after_each=read)
    alone = Setting(placement, log, in_order_layout(log)).train(range(6))
    assert_same_bytes(read_between.tensors(), alone.tensors())


@placements
def test_evaluation_writes_nothing(placement):
    log = random_log(4, lists=True)
    setting = Setting(placement, log, log.layout(0.3, 1)).train(range(5))
    before, steps = setting.tables(), setting.embeddings.steps
    everything = range(setting.packed.num_batches)
    found = looked_up(setting.embeddings, setting.embeddings.stream_frozen(setting.packed, everything))
    again = looked_up(setting.embeddings, setting.embeddings.stream_frozen(setting.packed, everything))
    assert_same_bytes(again, found)
    assert_same_bytes(setting.tables(), before)
    assert setting.embeddings.steps == steps


# Tables: export and import are inverse, under any two placements.


@placements
@pytest.mark.parametrize("other", PLACEMENTS)
def test_exported_tables_continue_under_any_placement(placement, other):
    log = random_log(5, lists=True)
    old = Setting(placement, log, log.layout(0.4, 1)).train([0, 1, 2])
    new = Setting(other, log, log.layout(0.2, 2))
    for table in range(len(log.features)):
        new.embeddings.import_table(table, *old.embeddings.export_table(table))
    new.embeddings.steps = old.embeddings.steps
    assert_same_bytes(new.tables(), old.tables())
    new.model.load_state_dict(old.model.state_dict())
    new.dense_optimizer.load_state_dict(copy.deepcopy(old.dense_optimizer.state_dict()))
    assert_same_bytes(new.train([3, 4]).tensors(), old.train([3, 4]).tensors())


@placements
def test_imported_rows_are_what_lookups_read(placement):
    """Hot and cold batches alike, although rows of both tiers were trained before."""
    log = hot_and_cold_log()
    setting = Setting(placement, log, in_order_layout(log)).train([0, 1, 2])
    for table, feature in enumerate(log.features):
        rows = torch.full((feature.num_embeddings, 8), 2.0)
        setting.embeddings.import_table(table, rows, torch.zeros(feature.num_embeddings, 16))
    for found in looked_up(setting.embeddings, setting.embeddings.stream_frozen(setting.packed, range(6))):
        assert torch.all(found == 2.0)


# Streams.


@placements
@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_closed_stream_leaves_every_update_in_place(placement, count):
    log = random_log(6, lists=True)
    setting = Setting(placement, log, log.layout(0.3, 1))
    stream = setting.embeddings.stream(setting.packed, range(setting.packed.num_batches))
    for _ in range(count):
        train_step(setting.model, setting.embeddings, setting.dense_optimizer, next(stream))
    stream.close()
    expected = Setting("cpu", log, log.layout(0.3, 1)).train(range(count))
    assert_same_bytes(setting.tensors(), expected.tensors())
    assert setting.embeddings.steps == count
    assert_same_bytes(setting.train([7, 8]).tensors(), expected.train([7, 8]).tensors())


@placements
def test_a_second_open_stream_is_refused_or_independent(placement):
    log = random_log(7)
    setting = Setting(placement, log, log.layout(0.1, 1))
    alone = looked_up(setting.embeddings, setting.embeddings.stream_frozen(setting.packed, [0, 1, 2]))
    first = setting.embeddings.stream_frozen(setting.packed, [3, 4])
    next(first)
    second = setting.embeddings.stream_frozen(setting.packed, [0, 1, 2])
    if PLACEMENTS[placement].one_stream:
        with pytest.raises(RuntimeError, match="a stream of these embeddings is still open"):
            next(second)
    else:
        assert_same_bytes(looked_up(setting.embeddings, second), alone)
    first.close()
    again = looked_up(setting.embeddings, setting.embeddings.stream_frozen(setting.packed, [0, 1, 2]))
    assert_same_bytes(again, alone)


# The turn of a batch: what is used outside of it is refused, never another batch's rows.

FIRST = "a"
OVER = "of a batch whose turn is over"


@placements
@pytest.mark.parametrize("frozen", [False, True])
def test_a_batch_is_refused_once_the_next_one_has_come(placement, frozen):
    log = hot_and_cold_log()
    setting = Setting(placement, log, in_order_layout(log))
    embeddings = setting.embeddings
    before = setting.tables()
    stream = (embeddings.stream_frozen if frozen else embeddings.stream)(setting.packed, [0, 3, 4])
    first = next(stream)
    kept = embeddings.lookup(first)
    second = next(stream)
    for use in (embeddings.lookup, embeddings.update):
        with pytest.raises(RuntimeError, match=f"{OVER}: its stream has yielded the next batch"):
            use(first)
    with pytest.raises(RuntimeError, match=OVER):
        kept[FIRST]  # memory of the first batch's rows
    embeddings.lookup(second)
    last = next(stream)
    stream.close()
    with pytest.raises(RuntimeError, match=f"lookup {OVER}: its stream was closed"):
        embeddings.lookup(last)
    rest = list((embeddings.stream_frozen if frozen else embeddings.stream)(setting.packed, [0, 3]))
    for batch in rest:
        with pytest.raises(RuntimeError, match=OVER):
            embeddings.lookup(batch)
    assert_same_bytes(setting.tables(), before)


@placements
def test_one_backward_is_one_update(placement):
    log = hot_and_cold_log()
    setting = Setting(placement, log, in_order_layout(log)).train([0, 3])
    again = Setting(placement, log, in_order_layout(log))
    for batch in again.embeddings.stream(again.packed, [0, 3]):
        train_step(again.model, again.embeddings, again.dense_optimizer, batch)
        with pytest.raises(RuntimeError, match=f"update {OVER}: update has trained it already"):
            again.embeddings.update(batch)
        with pytest.raises(RuntimeError, match=f"lookup {OVER}: update has trained it already"):
            again.embeddings.lookup(batch)
    assert_same_bytes(again.tensors(), setting.tensors())
    assert again.embeddings.steps == 2


@placements
def test_an_update_belongs_to_the_latest_lookup(placement):
    log = hot_and_cold_log()
    setting, other = (Setting(placement, log, in_order_layout(log)) for _ in range(2))
    embeddings, before = setting.embeddings, setting.tables()
    for batch in embeddings.stream(setting.packed, [0, 3]):
        with pytest.raises(RuntimeError, match="not the one whose lookup"):
            embeddings.update(batch)
        embeddings.lookup(batch, requires_grad=False)
        with pytest.raises(RuntimeError, match="not the one whose lookup, with requires_grad=True, came last"):
            embeddings.update(batch)
        for use in (other.embeddings.lookup, other.embeddings.update):
            with pytest.raises(RuntimeError, match="that other embeddings have streamed"):
                use(batch)
    if not PLACEMENTS[placement].one_stream:
        first, second = (embeddings.stream(setting.packed, [number]) for number in (0, 3))
        one, two = next(first), next(second)
        embeddings.lookup(one)[FIRST].sum().backward()
        embeddings.lookup(two)
        with pytest.raises(RuntimeError, match="not the one whose lookup"):
            embeddings.update(one)
    assert_same_bytes(setting.tables(), before)
    assert embeddings.steps == 0


@placements
def test_a_batch_for_evaluation_is_not_updated(placement):
    log = hot_and_cold_log()
    setting = Setting(placement, log, in_order_layout(log))
    before = setting.tables()
    for batch in setting.embeddings.stream_frozen(setting.packed, [0]):
        setting.embeddings.lookup(batch)[FIRST].sum().backward()
        with pytest.raises(RuntimeError, match="for evaluation"):
            setting.embeddings.update(batch)
    assert_same_bytes(setting.tables(), before)


@placements
def test_gradients_of_an_earlier_lookup_are_refused(placement):
    """The leaves are reused: a backward pass through them after the next lookup would read the next batch's rows."""
    log = hot_and_cold_log()
    setting = Setting(placement, log, in_order_layout(log))
    stream = setting.embeddings.stream(setting.packed, [0, 1])
    sums = []
    for batch in stream:
        features = setting.embeddings.lookup(batch)
        sums.append((features[FIRST] ** 2).sum())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        sums[0].backward()


# Weights of inputs.


def weighted(log, weights):
    return dataclasses.replace(log, weights=np.asarray(weights, np.float32))


@placements
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_weights_of_one_train_to_the_same_bytes(placement, optimizer):
    log, rows = random_log(8, lists=True), RowOptimizer(name=optimizer, learning_rate=0.1)
    plain = Setting(placement, log, log.layout(0.3, 1), rows).train(range(9))
    ones = Setting(placement, weighted(log, np.ones(150)), log.layout(0.3, 1), rows).train(range(9))
    assert_same_bytes(ones.tensors(), plain.tensors())


@placements
def test_weights_train_to_the_bytes_of_the_cpu(placement):
    log = weighted(hot_and_cold_log(), np.random.default_rng(4).uniform(0, 5, 96))
    expected = Setting("cpu", log, in_order_layout(log)).train(range(6))
    assert_same_bytes(Setting(placement, log, in_order_layout(log)).train(range(6)).tensors(), expected.tensors())


@placements
def test_an_input_of_weight_two_is_the_input_twice(placement):
    """And one of weight 0 is not there; batches of other sizes, so within rounding."""
    log = random_log(9, num_inputs=48, batch_size=48)
    times = np.random.default_rng(5).integers(0, 3, 48)
    often = np.repeat(np.arange(48), times)
    small = [log.groups[0]]
    twice = dataclasses.replace(log, groups=[often], batch_size=96)
    sgd = RowOptimizer(name="sgd", learning_rate=0.5)
    one = Setting(placement, dataclasses.replace(weighted(log, times), groups=small), log.layout(0.5, 1), sgd)
    two = Setting(placement, twice, twice.layout(0.5, 1), sgd)
    before = [tensor.clone() for tensor in one.tensors()]
    for mine, theirs, old in zip(one.train([0]).tensors(), two.train([0]).tensors(), before, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
        assert mine.numel() == 0 or not torch.equal(mine, old) or len(mine) == 0


# Memory: what is stated is what is allocated.


@placements
@optimizers
def test_rows_take_the_bytes_that_were_stated(placement, optimizer):
    log = random_log(1, lists=True)
    layout = log.layout(0.4, 1)
    hot_set = sized_hot_set(log, layout, depth=DEPTH)
    plan = plan_memory(placement, hot_set, optimizer, [log.packed(layout)], on_gpu=False)
    embeddings = find_placement(placement).make(hot_set, RowOptimizer(name=optimizer), "cpu")
    assert plan.device_rows + plan.host_rows == embeddings.device_bytes + embeddings.host_bytes
    if not find_placement(placement).cpu_only:  # there the device is the host
        assert (plan.device_rows, plan.host_rows) == (embeddings.device_bytes, embeddings.host_bytes)
    stores = (*embeddings.device_stores, *embeddings.host_stores)
    storages = [tensor.untyped_storage() for store in stores for tensor in (store.weight, store.state)]
    assert sum(storage.nbytes() for storage in storages) == plan.device_rows + plan.host_rows


def live_tensors() -> dict[int, int]:
    """Bytes of every piece of memory that a tensor holds, gradients included, by address."""
    tensors = [each for each in gc.get_objects() if type(each) in (torch.Tensor, torch.nn.Parameter)]
    tensors += [each.grad for each in tensors if each.is_leaf and each.grad is not None]
    storages = [each.untyped_storage() for each in tensors]
    return {storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}


@pytest.mark.parametrize(
    ("placement", "engine", "optimizer"),
    [
        *((placement, "cpu", optimizer) for placement in PLACEMENTS for optimizer in OPTIMIZERS),
        ("tiered", "triton", "sgd"), ("tiered", "triton", "adam"), ("device", "triton", "rowwise_adagrad"),
    ],
)  # fmt: skip
def test_a_training_holds_what_was_stated(placement, engine, optimizer):
    """Every tensor and every array that exists while a stream is open, against the statement."""
    on_gpu = engine == "triton"
    if on_gpu:
        pytest.importorskip("triton")
    # Triton's interpreter takes a second for what a GPU does in a microsecond.
    num_inputs, batch_size, steps = (300, 50, 2) if on_gpu else (3000, 500, 4)
    log = random_log(1, num_inputs=num_inputs, batch_size=batch_size, lists=True)
    layout = log.layout(0.4, 1)
    packed, hot_set = log.packed(layout), sized_hot_set(log, layout, depth=DEPTH)
    gc.collect()
    before = live_tensors()
    tracemalloc.start()
    model = build_model(log.config(), log.features, log.dense.shape[1], seed=1)
    dense = dense_bytes(optimizer, model, flat=on_gpu)
    plan = plan_memory(placement, hot_set, optimizer, [packed], on_gpu=on_gpu, dense_bytes=dense)
    embeddings = find_placement(placement).make(hot_set, RowOptimizer(name=optimizer), "cpu", engine=engine)
    embeddings.initialise(1)
    runner = StepRunner(model, embeddings, make_dense_optimizer(optimizer, model, 0.1, flat=on_gpu), capture=False)
    stream = embeddings.stream(packed, range(packed.num_batches))
    for _ in range(steps):
        batch = next(stream)
        runner(batch)
    gc.collect()
    tensors = sum(size for place, size in live_tensors().items() if place not in before)
    taken = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)])
    tracemalloc.stop()
    arrays = sum(trace.size for trace in taken.traces)
    del batch
    stream.close()
    stated = plan.device_rows + plan.device_beside + plan.on_host
    assert tensors + arrays <= stated
    # Nor is too much stated: the rest is rounding on a GPU, and gradients of the side of `paper` that has had none.
    least = 0.6 if on_gpu else {"paper": 0.8}.get(placement, 0.85)
    assert tensors + arrays > least * stated, (tensors, arrays, plan)
