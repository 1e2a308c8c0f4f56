"""Placement ``tiered``: FAE. Hot rows on the device, cold rows on the host, a ring of staging slots between them.

The bank of a group is H hot rows, then `ring_depth` slots of U_cap rows each. A cold address ``a`` (from H on) of a
batch in slot ``q`` is row ``a + q * U_cap``: with H = 100 and U_cap = 8, address 103 of a batch in slot 2 is row 119.
The bank and its state take no more bytes than calibrate promised.

Ranks on the GPUs of one host share the cold rows (`fae.embedding.ranks.staged_shares`). Between its hot rows and its
slots each bank then has places for the rows that a batch pulls, which take the memory of one of four slots or more;
with fewer slots they come on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.core.threads import run_ranges
from fae.distributed.group import Group
from fae.distributed.peers.written_words import await_reads
from fae.embedding.base import Embeddings, Engine, ReadyBatches
from fae.embedding.memory_plan import MemoryPlan
from fae.embedding.memory_request import MemoryRequest
from fae.embedding.working_memory import locations, marks, pass_tables, transfer_buffers
from fae.streaming.ready_batch import ReadyBatch
from fae.streaming.row_store import RowOptimizer, RowStore
from fae.streaming.staging import NO_FAULTS, FaultInjection, StagingPipeline
from fae.streaming.transfer import TierPair

if TYPE_CHECKING:
    from fae.artifacts.hot_set import HotSet
    from fae.embedding.ranks.staged_shares import OwnedHostRows, StagedShares

_NO_ROWS = np.empty(0, np.int64)
_NO_ROWS.flags.writeable = False  # as lists from files are: another type would compile the loop again

_FEWEST_SLOTS = 3
_ROWS_TOGETHER = 1 << 14
"""Rows that are copied by one call: their numbers stay in the cache."""


class TieredEmbeddings(Embeddings):
    """Hot rows on `device`, cold rows in host memory; each of several ranks has both, and stages the whole batch.

    On the GPUs of one host, ranks have the cold rows together, and each stages those that it owns.

    Parameters
    ----------
    staging_rows
        U_cap of each group: rows of one staging slot.
    ring_depth
        k: number of staging slots.
    faults
        Delays, and NaN in free slots, for tests.
    """

    def __init__(
        self,
        layout: RowLayout,
        optimizer: RowOptimizer,
        batch_size: int,
        device: torch.device,
        *,
        staging_rows: Sequence[int],
        ring_depth: int,
        faults: FaultInjection = NO_FAULTS,
        engine: Engine | None = None,
        group: Group | None = None,
    ) -> None:
        super().__init__(layout, optimizer, batch_size, device, engine=engine, staged=True, group=group)
        is_shared = shares_cold_rows(self.group, on_gpu=self._gpu is not None)
        self._ring_depth = slots_beside_places(ring_depth) if is_shared else ring_depth
        self._staging_rows = tuple(staging_rows)
        self._shares: StagedShares | None = None
        self._host_rows: OwnedHostRows | None = None
        self._tiers, self._banks = self._make_tiers(is_shared)
        self._pipeline = StagingPipeline(
            self._tiers, self._ring_depth, device, faults, by_location=self._gpu is not None
        )  # fmt: skip
        self._fills_with_nan = faults.fill_with_nan
        if self._gpu is not None:
            self._gpu.slot_locations = self._pipeline.slot_locations
        self.has_rows_together = is_shared
        if is_shared:
            from fae.embedding.ranks.staged_shares import StagedShares

            assert self._gpu is not None
            stores = [tier.bank for tier in self._tiers]
            self._shares = StagedShares(self.group.neighbours, layout, self._staging_rows, stores, device)
            self._gpu.leave_cold_rows_to(self._shares)

    def _make_tiers(self, is_shared: bool) -> tuple[list[TierPair], list[RowStore]]:
        """The tiers of each group, and the rows that lookups read: hot ones, places for pulled ones, slots."""
        optimizer, host = self.optimizer, torch.device("cpu")
        if is_shared:
            from fae.embedding.ranks.staged_shares import OwnedHostRows

            self._host_rows = OwnedHostRows(self.group.neighbours, self.layout, optimizer)
        tiers, banks = [], []
        for number, (part, rows) in enumerate(zip(self.layout.groups, self._staging_rows, strict=True)):
            staged = part.num_hot_rows + self._ring_depth * rows
            places, width = rows if is_shared else 0, optimizer.state_width(part.embedding_dim)
            bank = RowStore.zeros(staged + places, part.embedding_dim, optimizer, self.device)
            if is_shared:
                bank = RowStore(bank.weight, torch.zeros((staged, width), device=self.device))
            tiers.append(
                TierPair(
                    num_hot_rows=part.num_hot_rows,
                    slot_rows=rows,
                    # As staging numbers them: slots follow behind H rows.
                    bank=RowStore(bank.weight[places:], bank.state),
                    host=(
                        RowStore.zeros(part.num_cold_rows, part.embedding_dim, optimizer, host)
                        if self._host_rows is None
                        else self._host_rows.stores[number]
                    ),
                )
            )
            banks.append(bank)
        return tiers, banks

    @classmethod
    def from_hot_set(
        cls,
        hot_set: HotSet,
        optimizer: RowOptimizer,
        device: torch.device,
        *,
        engine: Engine | None = None,
        faults: FaultInjection = NO_FAULTS,
        group: Group | None = None,
    ) -> TieredEmbeddings:
        """As `Embeddings.from_hot_set`."""
        return cls(
            hot_set.layout,
            optimizer,
            hot_set.batch_size,
            device,
            staging_rows=hot_set.staging_rows,
            ring_depth=hot_set.ring_depth,
            faults=faults,
            engine=engine,
            group=group,
        )

    @staticmethod
    def plan_memory(request: MemoryRequest) -> MemoryPlan:
        """Hot rows and staging on the device, cold rows and the buffers of the streaming pipeline in host memory."""
        hot_set, inputs = request.hot_set, request.input_memory(with_cold_lists=False)
        num_cold_rows = sum(group.num_cold_rows for group in hot_set.layout.groups)
        slots, offered, host_rows = request.staging_slots, 0, request.cold_rows
        if request.world > 1 and request.on_gpu and request.have_rows_together:
            inputs = request.input_memory(with_cold_lists=False, with_places=True)
            places = offered = request.pulled_rows
            slots = slots // hot_set.ring_depth * slots_beside_places(hot_set.ring_depth) + places
            host_rows = -(-host_rows // request.host_ranks)
        return MemoryPlan(
            device_rows=request.hot_rows + slots,
            device_inputs=inputs.device + (locations(hot_set) if request.on_gpu else 0),
            device_work=request.device_work + offered,
            host_rows=host_rows,
            host_buffers=inputs.host + transfer_buffers(hot_set, request.row_floats, on_gpu=request.on_gpu),
            host_work=inputs.tables + pass_tables(hot_set, request.most_batches) + marks(num_cold_rows),
        )

    def _stream(
        self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64], write_back: bool
    ) -> ReadyBatches:
        numbers, staged_batches = np.asarray(order, np.int64), batches
        if self._shares is not None:
            assert self._gpu is not None
            assert self._gpu.ranks is not None
            staged_batches = self._gpu.ranks.cut(batches)[0]  # which lists the rows that this rank owns
            self._shares.meet()  # what was offered in an evaluation is pulled
        is_cold = staged_batches.has_cold_rows[numbers]
        slots = np.mod(np.cumsum(is_cold) - is_cold, self._ring_depth)
        slots[~is_cold] = -1
        with (
            closing(self._pipeline.run(staged_batches, numbers, write_back=write_back)) as staged,
            closing(self._ready(batches, numbers, slots, frozen=not write_back)) as ready,
        ):
            for _, ready_batch in zip(staged, ready, strict=False):  # the pipeline ends last: it drains
                steps, is_over = self.steps, False
                if self._shares is not None and self._fills_with_nan:
                    for bank, end, part in zip(self._banks, self._shares.places_end, self.layout.groups, strict=True):
                        bank.weight[part.num_hot_rows : end].fill_(float("nan"))
                try:
                    yield ready_batch
                    is_over = True
                finally:
                    # Kernels that read by location write a batch's slot when they update it. Without an update the
                    # rows must be copied there.
                    if self._gpu is not None and self.steps == steps:
                        self._gpu.await_side_work()
                    elif self._gpu is not None and self._gpu.ranks is not None:
                        self._gpu.ranks.end_batch()
                    if write_back and self._gpu is not None and self.steps == steps:
                        self._gpu.carry(ready_batch, self._banks)
                    # What ends a step else: all have pulled what was offered. Not where this rank leaves the stream,
                    # which may be by an error that the others do not have.
                    if self._shares is not None and is_over and self.steps == steps and ready_batch.packed.is_ordered:
                        self._shares.meet()

    def stream(self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64]) -> ReadyBatches:
        try:
            yield from self._stream(batches, order, write_back=True)
        finally:
            self._say_written()

    def stream_frozen(self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64]) -> ReadyBatches:
        yield from self._stream(batches, order, write_back=False)

    def _say_written(self) -> None:
        if self._host_rows is not None:
            self._host_rows.written.say()

    def initialise(self, seed: int) -> None:
        self._await_reads()
        super().initialise(seed)
        self._say_written()

    def import_table(self, table: int, weight: Tensor, state: Tensor) -> None:
        self._await_reads()
        super().import_table(table, weight, state)
        self._say_written()

    def _await_reads(self) -> None:
        self._pipeline.require_idle()
        if self._host_rows is not None:
            await_reads(self.group, self.device)

    def _bank(self, group: int) -> RowStore:
        return self._banks[group]

    def _cold_rows(self, batch: ReadyBatch, group: int) -> tuple[int, npt.NDArray[np.int64]]:
        return batch.slot * self._staging_rows[group], _NO_ROWS

    def _read_rows(self, group: int, rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        self._pipeline.require_idle()
        if self._host_rows is not None:
            self._host_rows.written.wait()
        tier = self._tiers[group]
        weight = torch.empty((len(rows), tier.host.weight.shape[1]))
        state = torch.empty((len(rows), tier.host.state.shape[1]))
        hot = np.flatnonzero(rows < tier.num_hot_rows)
        where, place = torch.from_numpy(hot), torch.from_numpy(rows[hot]).to(self.device)
        for found, bank, host in (
            (weight, self._banks[group].weight, tier.host.weight),
            (state, self._banks[group].state, tier.host.state),
        ):
            found[where] = bank[place].cpu()
            _copy_cold_rows(host.numpy(), rows - tier.num_hot_rows, found.numpy())
        return weight, state

    def _write_rows(self, group: int, rows: npt.NDArray[np.int64], weight: Tensor, state: Tensor) -> None:
        self._pipeline.require_idle()
        tier = self._tiers[group]
        index = torch.from_numpy(rows)
        hot = index < tier.num_hot_rows
        cold = ~hot if self._host_rows is None else ~hot & self._host_rows.owns(index - tier.num_hot_rows)
        for store, chosen, first in ((self._banks[group], hot, 0), (tier.host, cold, tier.num_hot_rows)):
            device = store.weight.device
            place = (index[chosen] - first).to(device)
            store.weight[place] = weight[chosen].to(device)
            store.state[place] = state[chosen].to(device)

    @property
    def device_stores(self) -> Sequence[RowStore]:
        return self._banks

    @property
    def host_stores(self) -> Sequence[RowStore]:
        return [tier.host for tier in self._tiers]


def shares_cold_rows(group: Group, *, on_gpu: bool) -> bool:
    """Whether ranks of a host have the cold rows together: on GPUs that read each other's memory."""
    return on_gpu and group.world > 1 and (group.wire in ("peer", "hosts") or group.device == "cpu")


def slots_beside_places(ring_depth: int) -> int:
    """Slots where places for pulled rows take the memory of one; of three none is taken: two move nothing ahead."""
    return ring_depth - 1 if ring_depth > _FEWEST_SLOTS else ring_depth


def _copy_cold_rows(host: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], found: npt.NDArray[np.float32]) -> None:
    """Copy the rows of these numbers, on all threads; one below 0 is not in host memory."""

    def copy(start: int, stop: int) -> None:
        for first in range(start, stop, _ROWS_TOGETHER):
            part = slice(first, min(first + _ROWS_TOGETHER, stop))
            there = rows[part] >= 0
            if there.all():
                np.take(host, rows[part], axis=0, out=found[part], mode="clip")
            else:
                found[part][there] = host[rows[part][there]]

    run_ranges(copy, len(rows), min_range=_ROWS_TOGETHER)
