"""Placement ``paper``: FAE of the paper. Hot batches run on the device; cold batches look up and update on the CPU.

The hot rows exist twice: in the device's bank, and in host memory among all rows. A batch without cold rows runs on the
bank; any other runs as under placement ``hybrid``. A side is never read while the other side has newer hot rows: at a
swap they are all copied over *with their optimizer state*, and the copy is counted. It neither stages
nor forwards rows: it is the baseline for both.

On several ranks each has both sides; ranks of one host have that in host memory once, and each of them copies a part of
the hot rows to it. Rows of a hot batch that still wait for the sums of other ranks are stepped before
a swap; those of a cold batch are exchanged through host memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.distributed.group import Group
from fae.embedding.base import Embeddings, Engine, ReadyBatches
from fae.embedding.features import FeatureEmbeddings
from fae.embedding.hybrid import HybridEmbeddings
from fae.embedding.memory_plan import MemoryPlan
from fae.embedding.memory_request import MemoryRequest
from fae.streaming.ready_batch import InputSlot, ReadyBatch
from fae.streaming.row_store import RowOptimizer, RowStore

_NO_ROWS = np.empty(0, np.int64)
_NO_ROWS.flags.writeable = False  # as lists from files are: another type would compile the loop again


class PaperEmbeddings(Embeddings):
    """A copy of the hot rows on `device` beside all rows in host memory."""

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
        self._cold_side = HybridEmbeddings(layout, optimizer, batch_size, device, group=group)
        self._banks = [
            RowStore.zeros(part.num_hot_rows, part.embedding_dim, optimizer, device) for part in layout.groups
        ]
        self._bank_is_stale, self._host_is_stale = False, False  # never both; at first, both sides are zeros
        self._swap_seconds = {"to_device": 0.0, "to_host": 0.0}
        self._swaps = {"swaps": 0, "swap_bytes_to_device": 0, "swap_bytes_to_host": 0}

    @staticmethod
    def plan_memory(request: MemoryRequest) -> MemoryPlan:
        """Hot rows on the device, every row in host memory, and work of both sides."""
        inputs, (on_device, on_host) = request.input_memory(with_cold_lists=True), request.hybrid_work
        return MemoryPlan(
            device_rows=request.hot_rows,
            device_inputs=inputs.device,
            device_work=request.device_work + on_device,
            host_rows=request.of_host(request.hot_rows + request.cold_rows),
            host_buffers=inputs.host,
            host_work=inputs.tables + on_host,
        )

    def stream(self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64]) -> ReadyBatches:
        return self._stream(batches, order, frozen=False)

    def stream_frozen(self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64]) -> ReadyBatches:
        return self._stream(batches, order, frozen=True)

    def _stream(self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64], *, frozen: bool) -> ReadyBatches:
        before: InputSlot | None = None  # the input buffer of the batch before, where there are any
        with closing(self._ready(batches, order, frozen=frozen)) as ready:
            for batch in ready:
                # A swap belongs to no step: it is done here, outside of what may be captured.
                if batch.packed.has_cold_rows:
                    if self._host_is_stale and before is not None and self._gpu is not None:
                        self._gpu.finish(before, self._banks)
                    self._refresh_host()
                else:
                    self._refresh_bank()
                steps, before = self.steps, batch.buffer
                try:
                    yield batch
                finally:
                    # Not left to `update`: a captured step is replayed without calling it.
                    if self.steps != steps and not batch.packed.has_cold_rows and not self._bank_is_stale:
                        self._host_is_stale = True

    def _look_up(self, batch: ReadyBatch, *, requires_grad: bool) -> FeatureEmbeddings:
        """As `Embeddings._look_up`, on the side that the batch belongs to; `stream` has updated that side."""
        if batch.packed.has_cold_rows:
            return self._cold_side._look_up(batch, requires_grad=requires_grad)
        return super()._look_up(batch, requires_grad=requires_grad)

    def awaits_readers(self, batch: ReadyBatch) -> bool:
        return not batch.packed.has_cold_rows and super().awaits_readers(batch)

    def _has_gradients(self, batch: ReadyBatch) -> bool:
        if batch.packed.has_cold_rows:
            return self._cold_side._has_gradients(batch)
        return super()._has_gradients(batch)

    def _keep(self, part: ReadyBatch) -> None:
        if part.packed.has_cold_rows:
            self._cold_side._keep(part)
        else:
            super()._keep(part)

    def _update(self, batch: ReadyBatch) -> None:
        """As `Embeddings._update`; the other side's hot rows are stale from here on."""
        if batch.packed.has_cold_rows:
            self._cold_side.steps = self.steps  # one step count for all rows
            self._cold_side._update(batch)
            self.steps = self._cold_side.steps
            self._bank_is_stale = True
        else:
            super()._update(batch)
            self._host_is_stale = True

    def follow_rates(self, factor: Callable[[int], float] | None) -> None:
        super().follow_rates(factor)
        self._cold_side.follow_rates(factor)

    def _refresh_bank(self) -> None:
        if self._bank_is_stale:
            self._bank_is_stale = False
            self._swaps["swap_bytes_to_device"] += self._copy_hot_rows(to_host=False)

    def _refresh_host(self) -> None:
        if self._host_is_stale:
            self._host_is_stale = False
            self._swaps["swap_bytes_to_host"] += self._copy_hot_rows(to_host=True)

    def graph_key(self, batch: ReadyBatch) -> int | None:
        return None if batch.packed.has_cold_rows else super().graph_key(batch)

    def computes_on_host(self, batch: ReadyBatch) -> bool:
        return batch.packed.has_cold_rows and self._cold_side.computes_on_host(batch)

    def _copy_hot_rows(self, *, to_host: bool) -> int:
        """Hot rows are the first rows of host memory, so a swap is one copy a group and array; returns its bytes."""
        self._wait()  # for the steps before it, so that they are not counted as part of the swap
        started = time.perf_counter()
        self._swaps["swaps"] += 1
        for group, bank in enumerate(self._banks):
            self._cold_side.swap(group, bank, to_host=to_host)
        self._wait()
        self._swap_seconds["to_host" if to_host else "to_device"] += time.perf_counter() - started
        return self.device_bytes

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _bank(self, group: int) -> RowStore:
        return self._banks[group]

    def _cold_rows(self, batch: ReadyBatch, group: int) -> tuple[int, npt.NDArray[np.int64]]:
        return 0, _NO_ROWS  # called for hot batches only

    def _read_rows(self, group: int, rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        self._refresh_host()
        return self._cold_side._read_rows(group, rows)

    def _write_rows(self, group: int, rows: npt.NDArray[np.int64], weight: Tensor, state: Tensor) -> None:
        self._refresh_host()
        self._cold_side._write_rows(group, rows, weight, state)
        self._bank_is_stale = True

    @property
    def device_stores(self) -> Sequence[RowStore]:
        return self._banks

    @property
    def host_stores(self) -> Sequence[RowStore]:
        return self._cold_side.host_stores

    @property
    def traffic(self) -> dict[str, int]:
        """Swaps (each copies every hot row with its state, the first fill of the bank included) and bytes moved."""
        return {**self._swaps, **self._cold_side.traffic}

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of the swaps, by direction."""
        return {f"swap_{direction}": seconds for direction, seconds in self._swap_seconds.items()}
