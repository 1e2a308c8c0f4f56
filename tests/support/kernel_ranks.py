"""One group of tables in one batch on several ranks, in one process: on a GPU, or in Triton's interpreter."""

from __future__ import annotations

import dataclasses
from contextlib import closing

import numpy as np
import torch

from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.core.optimizers import bias_corrected_rate
from fae.distributed.batch_slices import BatchSlice
from fae.distributed.rank_batches import SEGMENT_LOOKUPS, RankBatches
from fae.distributed.slice_plan import SlicePlan
from fae.kernels.cpu import CpuGroupKernels
from fae.kernels.geometry import group_geometries
from fae.kernels.input_views import InputViews
from fae.kernels.triton_rows import RowPart, SharedSums, TritonGroupKernels
from fae.streaming.input_layout import InputLayout
from fae.streaming.input_ring import InputRing

from cases import Log, many_rows_log, random_log

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
        slot_rows: int = 0, rate: float = RATE, num_hosts: int = 1,
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
        self.plans = [SlicePlan(num_slices=world, rank=rank, world=world, num_hosts=num_hosts) for rank in range(world)]
        self.slices = [
            RankBatches(rank, world, slots, hot_rows, plan=plan).of(packed) for rank, plan in enumerate(self.plans)
        ]
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
        pointers = torch.tensor([buffer.data_ptr() for buffer in self.buffers], device=DEVICE)
        plan, most = self.plans[0], self.slices[0].most_shared[self.group][0]
        if plan.num_hosts > 1:
            pointers = self._sum_hosts(pointers, most)
        sums = SharedSums(
            pointers=pointers, waiting=self.waiting, most_rows=most,
            host_slices=plan.host_slices if plan.num_hosts > 1 else 1,
        )  # fmt: skip
        ends = []
        for kernels, views, lists in zip(self.kernels, self.views, self.cold_lists, strict=True):
            rows, states = weight.to(DEVICE, copy=True), state.to(DEVICE, copy=True)
            kernels.step_shared(
                views, lists, self.hot, rows, states, sums, EPS, BETAS, decays=self.kept != 1, part=part
            )  # fmt: skip
            ends.append((rows.cpu(), states.cpu()))
        return ends

    def _sum_hosts(self, pointers: torch.Tensor, most: int) -> torch.Tensor:
        """Let each rank add its part of the sums of its host; returns where they are, by part and host."""
        shared, hosts, near = self.slices[0].arrays.shared, self.plans[0].num_hosts, self.plans[0].host_ranks
        assert shared is not None
        size = -(-max(1, shared.most_part_rows[self.group] * self.dim) // 4) * 4
        self.parts = torch.full((near, hosts, size), float("nan"), device=DEVICE)
        for rank, plan in enumerate(self.plans):
            own, part = pointers[plan.host * near : (plan.host + 1) * near].contiguous(), rank % near
            self.kernels[rank].sum_host(
                self.views[rank], own, self.parts[part, plan.host], most, part=(part, near), host=(plan.host, hosts)
            )
        offsets = 4 * size * torch.arange(near * hosts, device=DEVICE)
        return (self.parts.data_ptr() + offsets).view(near, hosts)


def require_alike(ends: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for tensors in ends[1:]:
        for one, other in zip(tensors, ends[0], strict=True):
            assert one.numpy().tobytes() == other.numpy().tobytes()


def many_rows() -> Log:
    """`cases.many_rows_log` with all rows in one group."""
    log = many_rows_log()
    return dataclasses.replace(log, embedding_dims=(4,) * len(log.features))


LOGS = {
    "flat, 12": (rank_log(lists=False, dims=(12,)), 0),
    "flat, 1": (rank_log(lists=False, dims=(1,)), 0),
    "lists, 12 beside 4": (rank_log(lists=True, dims=(12, 4)), 1),
    "lists, 1 beside 4": (rank_log(lists=True, dims=(1, 4)), 0),
    "lists, 5 in front of 8": (rank_log(lists=True, dims=(8, 5)), 0),
}
