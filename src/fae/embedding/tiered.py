"""Placement ``tiered``: FAE. Hot rows on the device, cold rows on the host, a ring of staging slots between them.

The bank of a group is H hot rows, then `ring_depth` slots of U_cap rows each. A cold address ``a`` (from H on) of a
batch in slot ``q`` is row ``a + q * U_cap``: with H = 100 and U_cap = 8, address 103 of a batch in slot 2 is row 119.
The bank and its state never take more bytes than calibrate promised.
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

_NO_ROWS = np.empty(0, np.int64)
_NO_ROWS.flags.writeable = False  # as lists from files are: another type would compile the loop again

_ROWS_TOGETHER = 1 << 14
"""Rows that are copied by one call: their numbers stay in the cache."""


class TieredEmbeddings(Embeddings):
    """Hot rows on `device`, cold rows in host memory; each of several ranks has both, and stages the whole batch.

    Parameters
    ----------
    staging_rows
        U_cap of each group: rows of one staging slot.
    ring_depth
        k: number of staging slots.
    faults
        Delays, and NaN in free slots, for tests.
    """

    _has_gpu_ranks = True

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
        self._staging_rows, self._ring_depth = tuple(staging_rows), ring_depth
        host = torch.device("cpu")
        self._tiers = [
            TierPair(
                num_hot_rows=part.num_hot_rows,
                slot_rows=slot_rows,
                bank=RowStore.zeros(part.num_hot_rows + ring_depth * slot_rows, part.embedding_dim, optimizer, device),
                host=RowStore.zeros(part.num_cold_rows, part.embedding_dim, optimizer, host),
            )
            for part, slot_rows in zip(layout.groups, self._staging_rows, strict=True)
        ]
        self._pipeline = StagingPipeline(self._tiers, ring_depth, device, faults, by_location=self._gpu is not None)
        if self._gpu is not None:
            self._gpu.slot_locations = self._pipeline.slot_locations

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
        return MemoryPlan(
            device_rows=request.hot_rows + request.staging_slots,
            device_inputs=inputs.device + (locations(hot_set) if request.on_gpu else 0),
            device_work=request.device_work,
            host_rows=request.cold_rows,
            host_buffers=inputs.host + transfer_buffers(hot_set, request.row_floats, on_gpu=request.on_gpu),
            host_work=inputs.tables + pass_tables(hot_set, request.most_batches) + marks(num_cold_rows),
        )

    def _stream(
        self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64], write_back: bool
    ) -> ReadyBatches:
        numbers = np.asarray(order, np.int64)
        is_cold = batches.has_cold_rows[numbers]
        slots = np.mod(np.cumsum(is_cold) - is_cold, self._ring_depth)
        slots[~is_cold] = -1
        with (
            closing(self._pipeline.run(batches, numbers, write_back=write_back)) as staged,
            closing(self._ready(batches, numbers, slots, frozen=not write_back)) as ready,
        ):
            for _, ready_batch in zip(staged, ready, strict=False):  # the pipeline ends last: it drains
                steps = self.steps
                try:
                    yield ready_batch
                finally:
                    # Kernels that read by location write a batch's slot when they update it. Without an update the
                    # rows must be copied there.
                    if write_back and self._gpu is not None and self.steps == steps:
                        self._gpu.carry(ready_batch, [tier.bank for tier in self._tiers])

    def stream(self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64]) -> ReadyBatches:
        return self._stream(batches, order, write_back=True)

    def stream_frozen(self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64]) -> ReadyBatches:
        return self._stream(batches, order, write_back=False)

    def _bank(self, group: int) -> RowStore:
        return self._tiers[group].bank

    def _cold_rows(self, batch: ReadyBatch, group: int) -> tuple[int, npt.NDArray[np.int64]]:
        return batch.slot * self._staging_rows[group], _NO_ROWS

    def _read_rows(self, group: int, rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        self._pipeline.require_idle()
        tier = self._tiers[group]
        weight = torch.empty((len(rows), tier.host.weight.shape[1]))
        state = torch.empty((len(rows), tier.host.state.shape[1]))
        hot = np.flatnonzero(rows < tier.num_hot_rows)
        where, place = torch.from_numpy(hot), torch.from_numpy(rows[hot]).to(self.device)
        for found, bank, host in (
            (weight, tier.bank.weight, tier.host.weight),
            (state, tier.bank.state, tier.host.state),
        ):
            found[where] = bank[place].cpu()
            _copy_cold_rows(host.numpy(), rows - tier.num_hot_rows, found.numpy())
        return weight, state

    def _write_rows(self, group: int, rows: npt.NDArray[np.int64], weight: Tensor, state: Tensor) -> None:
        self._pipeline.require_idle()
        tier = self._tiers[group]
        index = torch.from_numpy(rows)
        hot = index < tier.num_hot_rows
        for store, chosen, first in ((tier.bank, hot, 0), (tier.host, ~hot, tier.num_hot_rows)):
            device = store.weight.device
            place = (index[chosen] - first).to(device)
            store.weight[place] = weight[chosen].to(device)
            store.state[place] = state[chosen].to(device)

    def graph_key(self, batch: ReadyBatch) -> int | None:
        return None if self._gpu is None else self._gpu.generation

    @property
    def device_stores(self) -> Sequence[RowStore]:
        return [tier.bank for tier in self._tiers]

    @property
    def host_stores(self) -> Sequence[RowStore]:
        return [tier.host for tier in self._tiers]


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
