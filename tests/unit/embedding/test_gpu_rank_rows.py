"""Buffers of several ranks on GPUs are made by all of them or by none, and what sums no gradients is refused."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch

from fae.artifacts.columnar_log import FeatureSchema
from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.distributed.group import Group
from fae.embedding.base import Embeddings
from fae.models.registry import build_model
from fae.streaming.row_store import RowOptimizer
from fae.training.dense import make_dense_optimizer
from fae.training.runner import StepRunner

from cases import Log, make_embeddings, random_log
from packs import store_addresses

pytest.importorskip("triton")
from fae.embedding.ranks.gpu_rank_rows import GpuRankRows

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class FakeGroup(Group):
    """One of two ranks, alone: it writes down what it does with the other, and hears what it has said itself."""

    def __init__(self, rank: int, others: list[list[list[int]]] | None = None) -> None:
        super().__init__(rank=rank, world=2, hosts=("here",) * 2, wire="gather")
        object.__setattr__(self, "done", [])
        object.__setattr__(self, "others", others)

    def gather_json(self, value: Any, what: str) -> list[Any]:
        self.done.append(what)
        return [value, *(self.others or [])]

    def barrier(self, what: str) -> None:
        self.done.append(what)

    def any(self, flag: bool, what: str) -> bool:
        self.done.append(what)
        return flag

    def all_gather(self, tensor: torch.Tensor, what: str, out: torch.Tensor | None = None) -> torch.Tensor:
        self.done.append(what)
        found = tensor.new_empty((2, *tensor.shape)) if out is None else out
        found[:] = tensor
        return found


def one_table_log(ids: list[int]) -> Log:
    """A log of one batch and one table."""
    count = len(ids)
    return Log(
        ids=np.array(ids, np.int32)[:, None], dense=np.zeros((count, 1), np.float32),
        labels=np.zeros(count, np.uint8), groups=[np.arange(count)],
        features=(FeatureSchema(name="a", num_embeddings=400),), embedding_dims=(4,), batch_size=count,
    )  # fmt: skip


def on_a_rank(log: Log, layout: RowLayout, group: Group | None) -> Embeddings:
    """Embeddings of one rank, through the kernels of GPUs."""
    optimizer = RowOptimizer(name="sgd", learning_rate=0.1)
    return make_embeddings("device", log, layout, optimizer, device=DEVICE, engine="triton", group=group)


def rank_rows(log: Log, group: Group) -> tuple[RowLayout, GpuRankRows]:
    layout = log.layout(0.4, 1)
    embeddings = on_a_rank(log, layout, group)
    assert embeddings._gpu is not None
    assert embeddings._gpu.ranks is not None
    return layout, embeddings._gpu.ranks


def test_ranks_make_buffers_together() -> None:
    """What one rank needs all have: so a split that gives one of them more long rows lets all or none capture again."""
    size = 800
    spread = [row % 400 for row in range(size // 2)]
    first = one_table_log([1] * 320 + spread[:80] + spread)
    second = one_table_log([2] * 64 + [3] * 64 + spread[:272] + spread)
    assert (len(first.ids), len(second.ids)) == (size, size)
    done = []
    for rank in range(2):
        group = FakeGroup(rank, [[[9, 1]]])
        layout, rows = rank_rows(first, group)
        changes = [rows.reserve(rows.cut(log.packed(layout))) for log in (first, second, second)]
        assert changes == [True, rank == 0, False], "the other one says that it has one long row, both times"
        done.append(list(group.done))
    assert done[0] == done[1]


def test_ranks_capture_again_together() -> None:
    """Where the other rank has more long rows, this one launches as many programs."""
    log = one_table_log([1] * 320 + [row % 400 for row in range(480)])
    group = FakeGroup(0, [[[9, 1]]])
    layout, rows = rank_rows(log, group)
    assert rows.reserve(rows.cut(log.packed(layout)))
    object.__setattr__(group, "others", [[[9, 5]]])
    assert rows.reserve(rows.cut(log.packed(layout)))
    assert not rows.reserve(rows.cut(log.packed(layout)))


def test_buffers_grow_and_do_not_shrink() -> None:
    group = FakeGroup(0)
    small, large = one_table_log([1, 2] * 400), one_table_log([row % 400 for row in range(800)])
    layout, rows = rank_rows(small, group)
    found = []
    for log in (small, large, small):
        changed = rows.reserve(rows.cut(log.packed(layout)))
        found.append((changed, len(rows._sums[0].buffer.own)))
    (_, at_first), (_, grown), _ = found
    assert at_first < grown
    assert found == [(True, at_first), (True, grown), (False, grown)]


def test_a_split_for_evaluation_needs_no_buffer() -> None:
    group = FakeGroup(0)
    log = one_table_log([1, 2, 3, 4])
    layout, rows = rank_rows(log, group)
    arrays = log.packed(layout).arrays
    frozen = dataclasses.replace(
        arrays, addresses=np.zeros((1, 4, 1), np.int32), order=None, segments=None, group_places=None
    )  # fmt: skip
    assert not rows.reserve(rows.cut(BatchSet(frozen, 0)))
    assert group.done == []


def test_slices_for_evaluation_have_the_embeddings_of_the_batch() -> None:
    """Where addresses are stored and there is no order; the last batch leaves a rank without inputs."""
    log = random_log(4, num_inputs=37, batch_size=16, lists=True)
    layout = log.layout(0.4, 1)
    arrays = store_addresses(log.packed(layout)).arrays
    frozen = BatchSet(dataclasses.replace(arrays, order=None, segments=None), 0)
    found = []
    for group in (None, FakeGroup(0), FakeGroup(1)):
        embeddings = on_a_rank(log, layout, group)
        embeddings.initialise(3)
        batches = []
        for batch in embeddings.stream_frozen(frozen, [2, 0, 1]):
            features = embeddings.lookup(batch, requires_grad=False)
            batches.append([features[feature.name].cpu().clone() for feature in log.features])
        found.append(batches)
    for whole, first, second in zip(*found, strict=True):
        for parts in zip(whole, first, second, strict=True):
            assert torch.equal(parts[0], torch.cat(parts[1:]))


def test_other_numbers_of_ranks_are_refused() -> None:
    log = one_table_log([1] * 12)
    three = FakeGroup(0)
    object.__setattr__(three, "world", 3)
    with pytest.raises(ValueError, match="3 slices"):
        on_a_rank(log, log.layout(0.4, 1), three)


def test_batches_that_look_nothing_up() -> None:
    """All slots of all inputs are empty; ranks still wait for each other, for the dense gradients."""
    group = FakeGroup(0)
    log = one_table_log([-1] * 8)
    layout = log.layout(0.4, 1)
    embeddings = on_a_rank(log, layout, group)
    embeddings.initialise(1)
    before = embeddings.export_table(0)
    for batch in embeddings.stream(log.packed(layout), [0, 0]):
        features = embeddings.lookup(batch)
        assert not features["a"].any()
        features["a"].sum().backward()
        embeddings.update(batch)
    for ours, expected in zip(embeddings.export_table(0), before, strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("looked_up", [False, True])
@pytest.mark.parametrize("ends", [False, True])
def test_a_batch_that_is_not_trained_keeps_what_the_one_before_did(looked_up: bool, ends: bool) -> None:
    """Its rows are others than those whose sums wait, and it may be the last one of the stream, or not be looked up."""
    log = one_table_log([1, 2, 3, 4])
    ids = np.array([[1], [2], [3], [4], [5], [6], [7], [8], [9], [10], [11], [12]], np.int32)
    log = dataclasses.replace(
        log, ids=ids, dense=np.zeros((12, 1), np.float32), labels=np.zeros(12, np.uint8),
        groups=[np.arange(4), np.arange(4, 8), np.arange(8, 12)],
    )  # fmt: skip
    layout, group = log.layout(0.4, 1), FakeGroup(0)
    embeddings = on_a_rank(log, layout, group)
    embeddings.initialise(1)
    before = embeddings.export_table(0)[0].clone()
    trained = (0,) if ends else (0, 2)
    with closing(embeddings.stream(log.packed(layout), [0, 1, 2])) as stream:
        for number, batch in enumerate(stream):
            if number in trained or looked_up:
                features = embeddings.lookup(batch)
            if number in trained:
                features["a"].sum().backward()
                embeddings.update(batch)
            elif ends:
                break
    changed = (embeddings.export_table(0)[0] != before).any(dim=1).nonzero().reshape(-1).tolist()
    # The fake of the other rank has the sums of this one, for rows of its own: those of its slice come first.
    assert set(changed) == {row for number in trained for row in ids[log.groups[number], 0].tolist()}


def test_a_group_of_tables_that_no_input_looks_up_and_one_that_the_model_leaves_out() -> None:
    """One of three groups has no row in any batch, and one no gradient: both keep their rows."""
    group, base = FakeGroup(0), random_log(2)
    ids = base.ids.copy()
    ids[:, 1] = -1
    log = dataclasses.replace(base, ids=ids, embedding_dims=(4, 8, 12))
    layout = log.layout(0.4, 1)
    embeddings = on_a_rank(log, layout, group)
    embeddings.initialise(1)
    before = [embeddings.export_table(table)[0] for table in range(3)]
    packed = log.packed(layout)
    for batch in embeddings.stream(packed, range(packed.num_batches)):
        features = embeddings.lookup(batch)
        (features["a"].sum() + features["b"].sum()).backward()
        embeddings.update(batch)
    after = [embeddings.export_table(table)[0] for table in range(3)]
    assert [torch.equal(one, other) for one, other in zip(before, after, strict=True)] == [False, True, True]
    assert not any(torch.isnan(each).any() for each in after)


def test_a_dense_optimizer_of_another_number_of_ranks_is_refused() -> None:
    log = random_log(1)
    layout = log.layout(0.4, 1)
    model = build_model(log.config(), log.features, 3, seed=1).to(DEVICE)
    alone, together = make_dense_optimizer("sgd", model, 0.1, flat=True), FakeGroup(0)
    of_ranks = make_dense_optimizer("sgd", model, 0.1, flat=True, group=together)
    for group, fits, other in ((together, of_ranks, alone), (None, alone, of_ranks)):
        embeddings = on_a_rank(log, layout, group)
        StepRunner(model, embeddings, fits)
        with pytest.raises(ValueError, match=r"group=embeddings\.group"):
            StepRunner(model, embeddings, other)


def test_a_dense_optimizer_that_knows_nothing_of_slices_is_refused() -> None:
    log, group = random_log(1, batch_size=16), Group(reproducible=True)
    model = build_model(log.config(), log.features, 3, seed=1).to(DEVICE)
    embeddings = on_a_rank(log, log.layout(0.4, 1), group)
    StepRunner(model, embeddings, make_dense_optimizer("sgd", model, 0.1, flat=True, group=group))
    with pytest.raises(ValueError, match=r"1 with 8 slices each train: make_dense_optimizer\(..., group="):
        StepRunner(model, embeddings, make_dense_optimizer("sgd", model, 0.1, flat=True))
