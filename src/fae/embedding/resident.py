"""Placements ``cpu`` and ``device``: every row in one memory, no staging.

The bank is numbered like the row layout, so a cold address of a batch is an index of the batch's own list of cold rows.
Where CPUs step the rows of several ranks of one host, these have them once, in memory that all map
(`fae.embedding.ranks.host_rows`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.distributed.group import Group
from fae.embedding.base import Embeddings, Engine, ReadyBatches
from fae.embedding.features import FeatureEmbeddings
from fae.embedding.memory_plan import MemoryPlan
from fae.embedding.memory_request import MemoryRequest
from fae.streaming.ready_batch import ReadyBatch
from fae.streaming.row_store import RowOptimizer, RowStore

if TYPE_CHECKING:
    from fae.embedding.ranks.host_rows import HostRows


class ResidentEmbeddings(Embeddings):
    """Every row on `device`; where several ranks train together, on that of each of them, or once in their host."""

    def __init__(
        self,
        layout: RowLayout,
        optimizer: RowOptimizer,
        batch_size: int,
        device: torch.device,
        *,
        engine: Engine | None = None,
        group: Group | None = None,
    ) -> None:
        super().__init__(layout, optimizer, batch_size, device, engine=engine, group=group)
        self._host_rows: HostRows | None = None
        if self._ranks is not None and self.group.meeting is not None:
            from fae.embedding.ranks.host_rows import HostRows

            self._host_rows = HostRows(self.group, layout, optimizer)
            self._stores, self.has_rows_together = self._host_rows.stores, True
            self._ranks.have_rows_together()
            return
        self._stores = [
            RowStore.zeros(part.num_hot_rows + part.num_cold_rows, part.embedding_dim, optimizer, device)
            for part in layout.groups
        ]

    @staticmethod
    def plan_memory(request: MemoryRequest) -> MemoryPlan:
        """Every row on the device; see `plan_cpu_memory` for placement ``cpu``."""
        inputs, rows = request.input_memory(with_cold_lists=True), request.hot_rows + request.cold_rows
        return MemoryPlan(
            device_rows=rows if request.on_gpu else request.of_host(rows),
            device_inputs=inputs.device,
            device_work=request.device_work,
            host_rows=0,
            host_buffers=inputs.host,
            host_work=inputs.tables,
        )

    def stream(self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64]) -> ReadyBatches:
        return self._ready(batches, order, frozen=False)

    def stream_frozen(self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64]) -> ReadyBatches:
        return self._ready(batches, order, frozen=True)

    def _bank(self, group: int) -> RowStore:
        return self._stores[group]

    def _cold_rows(self, batch: ReadyBatch, group: int) -> tuple[int, npt.NDArray[np.int64]]:
        return 0, batch.packed.cold_rows[group]

    def _read_rows(self, group: int, rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        store = self._stores[group]
        if self._host_rows is not None:
            self._host_rows.await_written()
        index = torch.from_numpy(rows).to(store.weight.device)
        return store.weight[index].cpu(), store.state[index].cpu()

    def _write_rows(self, group: int, rows: npt.NDArray[np.int64], weight: Tensor, state: Tensor) -> None:
        store = self._stores[group]
        where = store.weight.device
        with self._replacing(len(rows)) as own:
            index = torch.from_numpy(rows[own]).to(where)
            store.weight[index] = weight[own].to(where)
            store.state[index] = state[own].to(where)

    def _look_up(self, batch: ReadyBatch, *, requires_grad: bool) -> FeatureEmbeddings:
        """As `Embeddings._look_up`; rows that other ranks step are read when all have."""
        if self._host_rows is not None:
            self._host_rows.await_written()
        return super()._look_up(batch, requires_grad=requires_grad)

    def swap(self, group: int, hot: RowStore, *, to_host: bool) -> None:
        """Copy the hot rows of a width, with state, from `hot` (`to_host`) or to it; all ranks do so together."""
        every = self._stores[group]
        if self._host_rows is not None:
            self._host_rows.await_written()
        with self._replacing(len(hot.weight)) if to_host else nullcontext(slice(len(hot.weight))) as own:
            for mine, kept in ((hot.weight, every.weight), (hot.state, every.state)):
                if to_host:
                    kept[: len(mine)][own].copy_(mine[own])
                else:
                    mine[own].copy_(kept[own])

    def _replacing(self, num_rows: int) -> AbstractContextManager[slice]:
        """Which of `num_rows` rows this rank replaces in the block."""
        return nullcontext(slice(num_rows)) if self._host_rows is None else self._host_rows.replacing(num_rows)

    @property
    def device_stores(self) -> Sequence[RowStore]:
        return self._stores

    @property
    def host_stores(self) -> Sequence[RowStore]:
        return ()


def plan_cpu_memory(request: MemoryRequest) -> MemoryPlan:
    """Memory of placement ``cpu``: everything in host memory, nothing on a device."""
    return MemoryPlan(
        device_rows=0,
        device_inputs=0,
        host_rows=request.of_host(request.hot_rows + request.cold_rows),
        host_buffers=0,
        host_work=request.cpu_work + request.loose_batches + request.dense_bytes,
    )
