"""Placements ``cpu`` and ``device``: every row in one memory, no staging.

The bank is numbered like the row layout, so a cold address of a batch is an index of the batch's own list of cold rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.distributed.group import Group
from fae.embedding.base import Embeddings, Engine, ReadyBatches
from fae.embedding.memory_plan import MemoryPlan
from fae.embedding.memory_request import MemoryRequest
from fae.streaming.ready_batch import ReadyBatch
from fae.streaming.row_store import RowOptimizer, RowStore


class ResidentEmbeddings(Embeddings):
    """Every row on `device`; where several ranks train together, on that of each of them."""

    _has_gpu_ranks = True

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
        self._stores = [
            RowStore.zeros(part.num_hot_rows + part.num_cold_rows, part.embedding_dim, optimizer, device)
            for part in layout.groups
        ]

    @staticmethod
    def plan_memory(request: MemoryRequest) -> MemoryPlan:
        """Every row on the device; see `plan_cpu_memory` for placement ``cpu``."""
        inputs = request.input_memory(with_cold_lists=True)
        return MemoryPlan(
            device_rows=request.hot_rows + request.cold_rows,
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
        index = torch.from_numpy(rows).to(store.weight.device)
        return store.weight[index].cpu(), store.state[index].cpu()

    def _write_rows(self, group: int, rows: npt.NDArray[np.int64], weight: Tensor, state: Tensor) -> None:
        store = self._stores[group]
        where = store.weight.device
        index = torch.from_numpy(rows).to(where)
        store.weight[index] = weight.to(where)
        store.state[index] = state.to(where)

    def graph_key(self, batch: ReadyBatch) -> int | None:
        return None if self._gpu is None else self._gpu.generation

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
        host_rows=request.hot_rows + request.cold_rows,
        host_buffers=0,
        host_work=request.cpu_work + request.loose_batches + request.dense_bytes,
    )
