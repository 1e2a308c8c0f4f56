"""The Triton kernels of several ranks, in one process: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import dataclasses
from contextlib import closing

import numpy as np
import pytest
import torch
from torch import nn

from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.core.optimizers import OPTIMIZER_CODE, OPTIMIZERS, bias_corrected_rate, optimizer_facts, state_width
from fae.distributed.batch_slices import BatchSlice
from fae.distributed.exchange import total_sums
from fae.distributed.rank_batches import SEGMENT_LOOKUPS, RankBatches
from fae.distributed.tree_sum import tree_sum
from fae.kernels.cpu import CpuGroupKernels
from fae.kernels.geometry import group_geometries
from fae.kernels.input_views import InputViews
from fae.streaming.input_layout import InputLayout
from fae.streaming.input_ring import InputRing

from cases import Log, random_log

pytest.importorskip("triton")
from fae.kernels.triton_dense import dense_update, loss_and_gradient
from fae.kernels.triton_rows import RowPart, SharedSums, TritonGroupKernels
from fae.training.step import backward_on_device

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BETAS, EPS, RATE, STEP = (0.8, 0.97), 1e-3, 0.1, 3


def rank_log(*, lists: bool, dims: tuple[int, ...]) -> Log:
    """A full batch, one of a single input and one in between; with lists two groups, and one row for most of a list."""
    log = random_log(3, num_inputs=197, lists=lists)
    ids = log.ids.copy()
    if lists:
        ids[:170, 3:6] = 7
    groups = [np.arange(160), np.array([160]), np.arange(161, 197)]
    dims = (*dims[:1] * 4, *dims[1:]) if lists else dims * 3
    return dataclasses.replace(log, ids=ids, groups=groups, batch_size=160, embedding_dims=dims)


class Ranks:
    """One group of tables in one batch on W ranks, each with buffers and rows of its own.

    Parameters
    ----------
    slot_rows
        Rows of a staging slot, where rows are staged; else 0.

    Attributes
    ----------
    bank_rows, target_rows
        int64 ``[U]``: where each row that any slice looks up is read, and where it is written.
    """

    def __init__(
        self, log: Log, layout: RowLayout, world: int, group: int, index: int, optimizer: str, *, kept: float = 1.0,
        slot_rows: int = 0, rate: float = RATE,
    ) -> None:  # fmt: skip
        packed, features = log.packed(layout), layout.model_features
        self.world, self.group, self.optimizer, self.kept, self.rate = world, group, optimizer, kept, rate
        self.size = log.batch_size // world
        geometries = group_geometries(
            [feature.length for feature in features], [feature.pooling for feature in features], layout.feature_dims
        )
        self.geometry, slots = geometries[group], [len(geometry.slots) for geometry in geometries]
        self.dim, self.hot = self.geometry.embedding_dim, layout.groups[group].num_hot_rows
        hot_rows = [part.num_hot_rows for part in layout.groups]
        self.slices = [RankBatches(rank, world, slots, hot_rows).of(packed) for rank in range(world)]
        self.whole = packed.batch(index)
        self.cut = [BatchSlice(self.whole, rank, world, slots) for rank in range(world)]
        self.listed = self.cut[0].shared_rows[group].listed
        self.views = [self._views(split, index, len(geometries), slot_rows) for split in self.slices]
        self.kernels = [
            TritonGroupKernels(self.geometry, group, self.size, optimizer, DEVICE, staged=slot_rows > 0)
            for _ in range(world)
        ]
        self._random = np.random.default_rng(index)
        self._place_rows(slot_rows, layout)
        self.gradients = [self._normal(self.size, self.geometry.width) for _ in range(world)]

    def _views(self, split: BatchSet, index: int, num_groups: int, slot_rows: int) -> InputViews:
        layout = InputLayout(
            batch_size=self.size, num_slots=self.geometry.num_slots, num_dense=split.num_dense, num_groups=num_groups,
            with_cold_lists=not slot_rows, of_slices=True,
        )  # fmt: skip
        rate = bias_corrected_rate(self.rate, BETAS, STEP) if self.optimizer == "adam" else self.rate
        order, ring = np.array([index]), InputRing(layout, 2, DEVICE)
        table = layout.table(
            split, order, slots=np.array([1 if slot_rows else -1]), slot_rows=[slot_rows] * num_groups,
            rates=np.array([rate], np.float32), kept_shares=np.array([self.kept], np.float32),
        )  # fmt: skip
        ring.reserve(split)
        with closing(ring.run(split, order, table)) as run:
            _, buffer = next(run)
            # The order is written where the kernel joins the planes.
            return dataclasses.replace(
                buffer.views, words=buffer.views.words.clone(), order=torch.zeros_like(buffer.views.order)
            )

    def _place_rows(self, slot_rows: int, layout: RowLayout) -> None:
        rows, cold = self.listed.unique_rows.astype(np.int64), self.whole.cold_rows[self.group]
        is_cold, part = rows >= self.hot, layout.groups[self.group]
        self.bank_rows, self.target_rows = rows.copy(), rows.copy()
        if not slot_rows:
            self.num_rows = self.hot + part.num_cold_rows
            self.cold_lists = [views.longs for views in self.views]
            self.bank_rows[is_cold] = self.target_rows[is_cold] = cold[rows[is_cold] - self.hot]
            return
        assert len(cold) <= slot_rows
        self.num_rows = self.hot + 2 * slot_rows  # rows are read in slot 0, and written to slot 1
        places = self.hot + self._random.permutation(slot_rows)
        lists = torch.from_numpy(np.concatenate([np.full(slot_rows, -(2**40)), places])).to(DEVICE)
        self.cold_lists = [lists] * self.world
        self.bank_rows[is_cold] = places[rows[is_cold] - self.hot]
        self.target_rows[is_cold] += slot_rows

    def _normal(self, *shape: int) -> torch.Tensor:
        return torch.from_numpy(self._random.normal(size=shape).astype(np.float32))

    def sum_slices(self) -> list[np.ndarray]:
        """Let each rank sum its slice; returns what is in the buffers: for each rank its rows, in order."""
        shared = self.slices[0].arrays.shared
        assert shared is not None
        most = shared.most_own_rows[self.group]
        further = max(split.most_shared[self.group][2] for split in self.slices)
        weight = self._normal(self.num_rows, self.dim)
        self.buffers = [torch.full(((most + further) * self.dim,), float("nan"), device=DEVICE) for _ in self.cut]
        self.waiting, found = torch.zeros(1, dtype=torch.int32, device=DEVICE), []
        for rank, (kernels, views, cut) in enumerate(zip(self.kernels, self.views, self.cut, strict=True)):
            addresses = torch.full((self.size, self.geometry.num_slots), 77, dtype=torch.int32, device=DEVICE)
            kernels.derive_addresses(views, addresses)
            wanted = torch.from_numpy(cut.addresses.copy())
            assert torch.equal(addresses.cpu()[:, self.geometry.slots], wanted[:, self.geometry.slots])
            seen = dataclasses.replace(views, addresses=addresses)
            out = torch.empty((self.size, self.geometry.width), device=DEVICE)
            kernels.lookup(seen, self.cold_lists[rank], self.hot, weight.to(DEVICE), out)
            kernels.sum_slice(
                views, self.gradients[rank].to(DEVICE), self.buffers[rank], self.waiting, most_rows=most,
                segment_lookups=SEGMENT_LOOKUPS, most_further=further,
                most_long_rows=self.slices[rank].most_segments[self.group][1],
            )  # fmt: skip
            count = len(cut.shared_rows[self.group].own_starts)
            found.append(self.buffers[rank][: count * self.dim].cpu().numpy().reshape(count, self.dim).copy())
        return found

    def put(self, sums: list[np.ndarray]) -> None:
        """Let buffers have these sums, and NaN behind them."""
        for buffer, own in zip(self.buffers, sums, strict=True):
            buffer.fill_(float("nan"))
            buffer[: own.size] = torch.from_numpy(own.reshape(-1)).to(DEVICE)

    def sums_of_cpu(self, rank: int) -> np.ndarray:
        """The same of one rank by the kernels of a CPU."""
        kernels = CpuGroupKernels(self.geometry, self.size, self.optimizer)
        cut, weight = self.cut[rank], torch.zeros((self.num_rows + len(self.listed), self.dim))
        out = torch.empty((self.size, self.geometry.width))
        kernels.lookup(cut.addresses, self.hot, weight, out, shift=0, cold_rows=np.empty(0, np.int64))
        shared = cut.shared_rows[self.group]
        return kernels.sum_rows(cut.order, shared.own_starts, shared.own_end, self.gradients[rank].numpy())

    def step(
        self, weight: torch.Tensor, state: torch.Tensor, part: RowPart = "all"
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Let each rank step its own copy of the rows."""
        sums = SharedSums(
            pointers=torch.tensor([buffer.data_ptr() for buffer in self.buffers], device=DEVICE),
            waiting=self.waiting, most_rows=self.slices[0].most_shared[self.group][0],
        )  # fmt: skip
        ends = []
        for kernels, views, lists in zip(self.kernels, self.views, self.cold_lists, strict=True):
            rows, states = weight.to(DEVICE, copy=True), state.to(DEVICE, copy=True)
            kernels.step_shared(
                views, lists, self.hot, rows, states, sums, EPS, BETAS, decays=self.kept != 1, part=part
            )  # fmt: skip
            ends.append((rows.cpu(), states.cpu()))
        return ends


def require_alike(ends: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for tensors in ends[1:]:
        for one, other in zip(tensors, ends[0], strict=True):
            assert one.numpy().tobytes() == other.numpy().tobytes()


LOGS = {
    "flat, 12": (rank_log(lists=False, dims=(12,)), 0),
    "flat, 1": (rank_log(lists=False, dims=(1,)), 0),
    "lists, 12 beside 4": (rank_log(lists=True, dims=(12, 4)), 1),
    "lists, 1 beside 4": (rank_log(lists=True, dims=(1, 4)), 0),
    "lists, 5 in front of 8": (rank_log(lists=True, dims=(8, 5)), 0),
}


@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize("world", [2, 4, 8])
@pytest.mark.parametrize("name", LOGS)
def test_totals_are_those_of_the_reference_to_the_byte(name, world, batch):
    """A row of -0 from which -1 times the total is taken is the total, of either sign of 0."""
    log, group = LOGS[name]
    ranks = Ranks(log, log.layout(0.4, 1), world, group, batch, "sgd", rate=-1.0)
    sums = ranks.sum_slices()
    for rank, own in enumerate(sums):
        np.testing.assert_allclose(own, ranks.sums_of_cpu(rank), rtol=1e-5, atol=1e-5)
    if name.startswith("lists, 1") and not batch:
        assert len(ranks.slices[0].batch(0).segments[group].long_rows), "there are long rows"
    random = np.random.default_rng(world)
    sums = [np.where(random.random(own.shape) < 0.3, np.float32(-0.0), own) for own in sums]
    ranks.put(sums)
    ends = ranks.step(torch.full((ranks.num_rows, ranks.dim), -0.0), torch.empty((ranks.num_rows, 0)))
    require_alike(ends)
    expected = np.full((ranks.num_rows, ranks.dim), -0.0, np.float32)
    expected[ranks.target_rows] = total_sums(ranks.listed, sums, ranks.dim)
    assert ends[0][0].numpy().tobytes() == expected.tobytes()
    assert np.signbit(expected[ranks.target_rows][expected[ranks.target_rows] == 0]).any() or batch


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("kept", [1.0, 0.75])
@pytest.mark.parametrize(("optimizer", "world"), [*zip(OPTIMIZERS, (2, 4, 8, 4), strict=True)])
def test_steps_are_those_of_the_cpu(optimizer, world, kept, staged):
    log, group = LOGS["lists, 12 beside 4"]
    ranks = Ranks(log, log.layout(0.4, 1), world, group, 2, optimizer, kept=kept, slot_rows=90 * staged)
    sums = ranks.sum_slices()
    random = np.random.default_rng(1)
    weight = torch.from_numpy(random.normal(size=(ranks.num_rows, ranks.dim)).astype(np.float32))
    state = torch.from_numpy(random.random((ranks.num_rows, state_width(optimizer, ranks.dim)), np.float32))
    ends = ranks.step(weight, state)
    require_alike(ends)
    assert len(np.setdiff1d(np.arange(ranks.num_rows), ranks.target_rows)), "some row must be left alone"
    for tensor in (weight, state):
        tensor[ranks.target_rows] = tensor[ranks.bank_rows].clone()
    CpuGroupKernels(ranks.geometry, ranks.size, optimizer).step_rows(
        weight, state, ranks.target_rows, total_sums(ranks.listed, sums, ranks.dim), RATE, EPS, betas=BETAS,
        step=STEP, kept_share=kept,
    )  # fmt: skip
    for ours, expected in zip(ends[0], (weight, state), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
        left = np.setdiff1d(np.arange(ranks.num_rows), ranks.target_rows)
        assert torch.equal(ours[left], expected[left])


def test_hot_and_cold_rows_are_stepped_by_themselves():
    """What steps the ones reads no sum of the others; and nothing is stepped where no sums wait."""
    log, group = LOGS["lists, 12 beside 4"]
    ranks = Ranks(log, log.layout(0.4, 1), 4, group, 0, "sgd", rate=-1.0)
    sums = ranks.sum_slices()
    is_hot, totals = ranks.listed.unique_rows < ranks.hot, total_sums(ranks.listed, sums, ranks.dim)
    blank, nothing = torch.full((ranks.num_rows, ranks.dim), -0.0), torch.empty((ranks.num_rows, 0))
    for part, stepped in (("hot", is_hot), ("cold", ~is_hot)):
        own = [stepped[ranks.listed.places_of_slice(rank)] for rank in range(4)]
        ranks.put([np.where(keep[:, None], each, np.float32("nan")) for keep, each in zip(own, sums, strict=True)])
        expected = blank.numpy().copy()
        expected[ranks.target_rows[stepped]] = totals[stepped]
        assert 0 < stepped.sum() < len(stepped)
        for rows, _ in ranks.step(blank, nothing, part):
            assert rows.numpy().tobytes() == expected.tobytes()
    ranks.waiting.zero_()
    assert ranks.step(blank, nothing)[0][0].numpy().tobytes() == blank.numpy().tobytes()


def test_a_row_of_thousands_of_lookups():
    """More further segments than are added together."""
    log = random_log(1, num_inputs=5000, batch_size=5000)
    log = dataclasses.replace(
        log, ids=np.where(np.arange(5000) % 99 == 0, 2, 1)[:, None].astype(np.int32), features=log.features[1:2],
        embedding_dims=(1,), groups=[np.arange(5000)],
    )  # fmt: skip
    ranks = Ranks(log, log.layout(0.4, 1), 2, 0, 0, "sgd")
    assert ranks.slices[0].most_shared[0][2] > 64
    for gradient in ranks.gradients:
        gradient.abs_()
    for rank, own in enumerate(ranks.sum_slices()):
        np.testing.assert_allclose(own, ranks.sums_of_cpu(rank), rtol=1e-5)


def test_other_numbers_of_ranks_are_refused():
    log, group = LOGS["flat, 1"]
    ranks = Ranks(log, log.layout(0.4, 1), 2, group, 1, "sgd")
    ranks.sum_slices()
    ranks.buffers += ranks.buffers[:1]
    with pytest.raises(ValueError, match="3 slices"):
        ranks.step(torch.zeros((ranks.num_rows, 1)), torch.empty((ranks.num_rows, 0)))
    pointers = torch.zeros(3, dtype=torch.int64, device=DEVICE)
    nothing = torch.zeros(0, device=DEVICE)
    vector = torch.zeros(8, device=DEVICE)
    with pytest.raises(ValueError, match="3 slices"):
        dense_update(
            OPTIMIZER_CODE["sgd"], vector, vector, nothing, nothing.bfloat16(), torch.ones(2, device=DEVICE),
            torch.ones(1, device=DEVICE), eps=0.0, betas=BETAS, of_ranks=pointers,
        )  # fmt: skip


@pytest.mark.parametrize("world", [2, 4, 8])
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam"])
def test_dense_gradients_are_summed_in_the_tree(optimizer, world):
    random, size = np.random.default_rng(world), 1500

    def tensor(*shape: int) -> torch.Tensor:
        return torch.from_numpy(random.standard_normal(shape).astype(np.float32)).to(DEVICE)

    scales = torch.from_numpy(10.0 ** random.integers(-6, 7, size)).float().to(DEVICE)
    grads = [tensor(size) * scales for _ in range(world)]
    pointers = torch.tensor([grad.data_ptr() for grad in grads], device=DEVICE)
    weight, state = tensor(size), tensor(state_width(optimizer_facts(optimizer).dense, size)).abs()
    rate = torch.full((1,), 0.1, device=DEVICE)
    corrections, results = torch.tensor([0.3, 0.2], device=DEVICE), []
    unread = torch.full_like(weight, float("nan"))
    for grad, of_ranks in ((unread, pointers), (tree_sum(grads), None)):
        ends = weight.clone(), state.clone(), torch.zeros(size, dtype=torch.bfloat16, device=DEVICE)
        dense_update(
            OPTIMIZER_CODE[optimizer], ends[0], grad, ends[1], ends[2], corrections, rate, eps=1e-8, betas=BETAS,
            of_ranks=of_ranks,
        )  # fmt: skip
        assert not torch.equal(ends[0], weight)
        results.append([each.float().cpu().numpy().tobytes() for each in ends])
    assert results[0] == results[1]


def slice_words(num_inputs: int, size: int, rank: int) -> torch.Tensor:
    """The first words of an input buffer of a slice."""
    own = min(max(num_inputs - rank * size, 0), size)
    return torch.tensor([own, 0, 0, num_inputs], dtype=torch.int32, device=DEVICE)


@pytest.mark.parametrize("num_inputs", [1, 1500, 4096])
@pytest.mark.parametrize("world", [2, 8])
def test_losses_of_slices_add_up_to_that_of_the_batch(num_inputs, world):
    random, size = np.random.default_rng(1), 4096 // world
    logits = torch.from_numpy(random.normal(size=4096).astype(np.float32)).to(DEVICE)
    labels = torch.from_numpy(random.integers(0, 2, 4096).astype(np.float32)).to(DEVICE)
    labels[num_inputs:] = float("nan")
    total = torch.zeros((), dtype=torch.float64, device=DEVICE)
    parts = []
    for rank in range(world):
        part, words = slice(rank * size, (rank + 1) * size), slice_words(num_inputs, size, rank)
        parts.append(loss_and_gradient(logits[part], labels[part], words, total, words[3:4]))
    leaf = logits[:num_inputs].clone().requires_grad_()
    expected = nn.functional.binary_cross_entropy_with_logits(leaf, labels[:num_inputs])
    expected.backward()
    torch.testing.assert_close(sum(loss for loss, _ in parts), expected.detach(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(total, num_inputs * expected.detach().double(), rtol=1e-5, atol=1e-5)
    grad = torch.cat([each for _, each in parts])
    torch.testing.assert_close(grad[:num_inputs], leaf.grad, rtol=1e-5, atol=1e-9)
    assert not grad[num_inputs:].any()


@pytest.mark.parametrize(("weighted", "scale"), [(False, 1.0), (True, 1.0), (True, 0.0)])
def test_backward_of_slices_is_that_of_the_batch(weighted, scale):
    """By weight too, where one slice may have none of it, or all."""
    random, world, num_inputs = np.random.default_rng(2), 4, 70
    logits = torch.from_numpy(random.normal(size=128).astype(np.float32)).to(DEVICE)
    labels = torch.from_numpy(random.integers(0, 2, 128).astype(np.float32)).to(DEVICE)
    weights = torch.from_numpy(scale * random.uniform(0, 3, 128).astype(np.float32)).to(DEVICE)
    weights[32:64] = 0
    weights[num_inputs:] = 0
    whole = weights.double().sum().view(1)
    results = []
    for ranks in (1, world):
        total = torch.zeros((), dtype=torch.float64, device=DEVICE)
        loss, leaf = 0.0, logits.clone().requires_grad_()
        for rank in range(ranks):
            part = slice(rank * 128 // ranks, (rank + 1) * 128 // ranks)
            words = slice_words(num_inputs, 128 // ranks, rank)
            of_batch = None if ranks == 1 else whole if weighted else words[3:4]
            loss = loss + backward_on_device(
                leaf[part] * 1.0, labels[part], words, total, weights[part] if weighted else None, of_batch
            )
        results.append((loss, total, leaf.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    real = weights if weighted else (torch.arange(128, device=DEVICE) < num_inputs).float()
    leaf = logits.clone().requires_grad_()
    losses = nn.functional.binary_cross_entropy_with_logits(leaf, labels, reduction="none")
    mean = (losses * real).sum() / (real.sum() if real.any() else 1.0)
    mean.backward()
    torch.testing.assert_close(results[1][0], mean.detach(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(results[1][2], leaf.grad, rtol=1e-5, atol=1e-8)
