"""Placement ``spread``: hot rows on every GPU, each cold row on one of them. W GPUs hold about W times the rows of one.

The bank of a group is H hot rows and places for the cold rows that a batch pulls. One rank, and ranks of CPUs, have all
rows, as under placement ``device``: they train the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.core.optimizers import row_bytes
from fae.distributed.group import Group
from fae.distributed.peers.written_words import await_reads
from fae.embedding.base import Embeddings, Engine, ReadyBatches
from fae.embedding.memory_plan import MemoryPlan
from fae.embedding.memory_request import MemoryRequest
from fae.embedding.resident import ResidentEmbeddings
from fae.streaming.ready_batch import ReadyBatch
from fae.streaming.row_store import RowOptimizer, RowStore
from fae.streaming.staging import NO_FAULTS, FaultInjection

if TYPE_CHECKING:
    from fae.artifacts.hot_set import HotSet
    from fae.embedding.ranks.spread_rows import OwnedRows


_NUMBERS_TOGETHER = 1 << 24
"""Numbers that are copied together: what that takes of a GPU is not counted."""


def _parts(num_rows: int, share: OwnedRows) -> Iterator[slice]:
    together = max(1, _NUMBERS_TOGETHER // max(share.dim, share.width))
    return (slice(first, first + together) for first in range(0, num_rows, together))


class SpreadEmbeddings(Embeddings):
    """Hot rows on `device` of each of several ranks, each cold row on that of one of them.

    Parameters
    ----------
    pulled_rows
        The most unique cold rows of a batch, per group.
    """

    def __init__(
        self,
        layout: RowLayout,
        optimizer: RowOptimizer,
        batch_size: int,
        device: torch.device,
        *,
        pulled_rows: Sequence[int],
        group: Group,
        engine: Engine | None = None,
        faults: FaultInjection = NO_FAULTS,
    ) -> None:
        from fae.embedding.ranks.spread_rows import SpreadRows

        super().__init__(layout, optimizer, batch_size, device, engine=engine, group=group)
        assert self._gpu is not None
        self._fills_with_nan = faults.fill_with_nan
        self._near = group.neighbours
        self._spread = SpreadRows(self._near, layout, optimizer, pulled_rows, device)
        self._gpu.leave_cold_rows_to(self._spread)
        self._banks = [
            RowStore(
                torch.zeros((end, part.embedding_dim), device=device),
                torch.zeros((part.num_hot_rows, optimizer.state_width(part.embedding_dim)), device=device),
            )
            for end, part in zip(self._spread.places_end, layout.groups, strict=True)
        ]

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
    ) -> Embeddings:
        """As `Embeddings.from_hot_set`; on one rank, and on CPUs, those that have every row."""
        engine = engine or ("triton" if device.type == "cuda" else "cpu")
        if group is None or group.world == 1 or engine != "triton":
            return ResidentEmbeddings.from_hot_set(
                hot_set, optimizer, device, engine=engine, faults=faults, group=group
            )  # fmt: skip
        return cls(
            hot_set.layout, optimizer, hot_set.batch_size, device, pulled_rows=hot_set.staging_rows, group=group,
            engine=engine, faults=faults,
        )  # fmt: skip

    @staticmethod
    def plan_memory(request: MemoryRequest) -> MemoryPlan:
        """Hot rows, a share of the cold ones and places for those of a batch on the device."""
        if request.world == 1 or not request.on_gpu:
            return ResidentEmbeddings.plan_memory(request)
        inputs, groups = request.input_memory(with_cold_lists=False, with_places=True), request.hot_set.layout.groups
        shares = sum(
            row_bytes(request.optimizer, part.embedding_dim) * -(-part.num_cold_rows // request.host_ranks)
            for part in groups
        )
        return MemoryPlan(
            device_rows=request.hot_rows + shares + request.pulled_rows,
            device_inputs=inputs.device,
            device_work=request.device_work,
            host_rows=0,
            host_buffers=inputs.host,
            host_work=inputs.tables,
        )

    def initialise(self, seed: int) -> None:
        await_reads(self.group, self.device)
        super().initialise(seed)
        self._spread.say_written()

    def import_table(self, table: int, weight: Tensor, state: Tensor) -> None:
        await_reads(self.group, self.device)
        super().import_table(table, weight, state)
        self._spread.say_written()

    def stream(self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64]) -> ReadyBatches:
        yield from self._with_free_places(self._ready(batches, order, frozen=False))

    def stream_frozen(self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64]) -> ReadyBatches:
        self._spread.await_written()
        yield from self._with_free_places(self._ready(batches, order, frozen=True))

    def _with_free_places(self, ready: ReadyBatches) -> ReadyBatches:
        """The same batches; for tests, places for pulled rows hold NaN until they are."""
        for batch in ready:
            if self._fills_with_nan:
                for bank, part in zip(self._banks, self.layout.groups, strict=True):
                    bank.weight[part.num_hot_rows :].fill_(float("nan"))
            yield batch

    def _bank(self, group: int) -> RowStore:
        return self._banks[group]

    def _cold_rows(self, batch: ReadyBatch, group: int) -> tuple[int, npt.NDArray[np.int64]]:
        raise AssertionError("rows are spread over GPUs alone, whose kernels find them")

    def _read_rows(self, group: int, rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        self._spread.await_written()
        where, share = self._banks[group].weight.device, self._spread.shares[group]
        found = (torch.empty((len(rows), share.dim)), torch.empty((len(rows), share.width)))
        for part in _parts(len(rows), share):
            for _, store, chosen, place in self._stores_of(group, rows[part]):
                for numbers, kept in zip(found, (store.weight, store.state), strict=True):
                    numbers[part][chosen] = kept[place.to(where)].cpu()
        return found

    def _write_rows(self, group: int, rows: npt.NDArray[np.int64], weight: Tensor, state: Tensor) -> None:
        where = self._banks[group].weight.device
        for part in _parts(len(rows), self._spread.shares[group]):
            for owner, store, chosen, place in self._stores_of(group, rows[part]):
                if owner in (None, self._near.rank):
                    store.weight[place.to(where)] = weight[part][chosen].to(where)
                    store.state[place.to(where)] = state[part][chosen].to(where)

    def _stores_of(
        self, group: int, rows: npt.NDArray[np.int64]
    ) -> Iterator[tuple[int | None, RowStore, Tensor, Tensor]]:
        """Where these rows are: their owner (None for hot rows), a store, which of them, and their places in it."""
        num_hot, world = self.layout.groups[group].num_hot_rows, self._near.world
        index = torch.from_numpy(rows)
        hot = torch.nonzero(index < num_hot).view(-1)
        yield None, self._banks[group], hot, index[hot]
        for rank in range(world):
            chosen = torch.nonzero((index >= num_hot) & ((index - num_hot) % world == rank)).view(-1)
            yield rank, self._spread.shares[group].of(rank), chosen, (index[chosen] - num_hot) // world

    @property
    def device_stores(self) -> Sequence[RowStore]:
        return [*self._banks, *self._spread.stores]

    @property
    def host_stores(self) -> Sequence[RowStore]:
        return ()
