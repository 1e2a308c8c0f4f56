"""Placement ``tiered``: FAE. Hot rows on the device, cold rows on the host, a ring of staging slots between them.

The bank of a group is ``[0, H)`` hot rows, then `ring_depth` slots of U_cap rows; a cold address ``a`` of a batch in
slot q is row ``a + q * U_cap``. Invariant: the bank and its state never take more bytes than calibrate promised.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.embedding.base import Embeddings, Engine, ReadyBatches
from fae.streaming.ready_batch import ReadyBatch
from fae.streaming.row_store import RowOptimizer, RowStore
from fae.streaming.staging import NO_FAULTS, FaultInjection, StagingPipeline
from fae.streaming.transfer import TierPair

_NO_ROWS = np.empty(0, np.int64)


class TieredEmbeddings(Embeddings):
    """Hot rows on `device`, cold rows in host memory.

    Parameters
    ----------
    staging_rows
        U_cap of each group.
    ring_depth
        Staging slots k.
    faults
        Delays and fill_with_nan for tests.
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
    ) -> None:
        super().__init__(layout, optimizer, batch_size, device, engine=engine, staged=True)
        self._staging_rows, self._ring_depth = tuple(staging_rows), ring_depth
        host = torch.device("cpu")
        self._tiers = [
            TierPair(
                num_hot_rows=group.num_hot_rows,
                slot_rows=slot_rows,
                bank=RowStore.zeros(
                    group.num_hot_rows + ring_depth * slot_rows, group.embedding_dim, optimizer, device
                ),
                host=RowStore.zeros(group.num_cold_rows, group.embedding_dim, optimizer, host),
            )
            for group, slot_rows in zip(layout.groups, self._staging_rows, strict=True)
        ]
        self._pipeline = StagingPipeline(self._tiers, ring_depth, device, faults, by_location=self._gpu is not None)
        if self._gpu is not None:
            self._gpu.slot_locations = self._pipeline.slot_locations

    def _stream(
        self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64], write_back: bool
    ) -> ReadyBatches:
        numbers = np.asarray(order, np.int64)
        is_cold = batches.has_cold_rows[numbers]
        slots = np.mod(np.cumsum(is_cold) - is_cold, self._ring_depth)
        slots[~is_cold] = -1
        with (
            closing(self._pipeline.run(batches, numbers, write_back=write_back)) as staged,
            closing(self._ready(batches, numbers, slots)) as ready,
        ):
            for _, ready_batch in zip(staged, ready, strict=False):  # the pipeline ends last: it drains
                steps = self.steps
                try:
                    yield ready_batch
                finally:
                    # Kernels that read by location write a batch's slot when they update it; who left it out has not.
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
        tier = self._tiers[group]
        index = torch.from_numpy(rows)
        hot = index < tier.num_hot_rows
        weight = torch.empty((len(rows), tier.host.weight.shape[1]))
        state = torch.empty((len(rows), tier.host.state.shape[1]))
        for store, chosen, first in ((tier.bank, hot, 0), (tier.host, ~hot, tier.num_hot_rows)):
            place = (index[chosen] - first).to(store.weight.device)
            weight[chosen] = store.weight[place].cpu()
            state[chosen] = store.state[place].cpu()
        return weight, state

    def _write_rows(self, group: int, rows: npt.NDArray[np.int64], weight: Tensor, state: Tensor) -> None:
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
    def device_bytes(self) -> int:
        return sum(tier.bank.num_bytes for tier in self._tiers)
