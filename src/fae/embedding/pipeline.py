"""The streaming pipeline: cold rows fetched before their batch, written back after it, forwarded in between.

Only batches with cold rows take part; they are numbered c = 0, 1, 2, ... in training order and use slot ``c % k``.
One thread plans forwards, one fetches (gathers host rows into a transfer buffer, then into the slot), one writes back
(slot to buffer, scattered to the host); the consumer computes. Invariants, whatever the threads and streams do:

1. The host gather of c starts only after the scatter of c - k is complete; scatters run in order.
2. A row of c that was last listed by a batch j, c - k < j < c, is not taken from the host: it is forwarded from j's
   slot, after the update of j and after c's rows have arrived, before c is looked up. Positions decide, never timing.
3. A slot is written again only after its write-back and every forward from it are done.
4. The iterator returns only when every write-back is complete (the pipeline is drained).
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fae.core.worker import Worker
from fae.embedding.transfer import HostTransfer, TierPair, Transfer
from fae.kernels.forwarding import find_forwards
from fae.packing.dataset import BatchSet, PackedBatch


@dataclass(frozen=True, kw_only=True)
class FaultInjection:
    """Random delays and poison, for tests of the invariants.

    Attributes
    ----------
    max_delay_seconds
        Every step of every thread first sleeps up to this long.
    poison
        Fill freed slots and transfer buffers with NaN.
    seed
        Of the delays.
    """

    max_delay_seconds: float = 0.0
    poison: bool = False
    seed: int = 0


NO_FAULTS = FaultInjection()


def make_transfer(tiers: Sequence[TierPair], depth: int, device: torch.device) -> Transfer:
    """The moves for banks on `device`."""
    if device.type == "cuda":
        from fae.embedding.gpu_transfer import GpuTransfer

        return GpuTransfer(tiers, depth, device)
    return HostTransfer(tiers, depth)


class StagingPipeline:
    """Passes over batches, one at a time: ``for packed, slot in pipeline.run(batches, order, write_back=True)``.

    Parameters
    ----------
    tiers
        One pair per group.
    depth
        Slots k, at least 2.
    device
        Of the banks.
    """

    def __init__(
        self, tiers: Sequence[TierPair], depth: int, device: torch.device, faults: FaultInjection = NO_FAULTS
    ) -> None:
        self._tiers, self._depth, self._faults = list(tiers), depth, faults
        self._transfer = make_transfer(tiers, depth, device)
        self._random = random.Random(faults.seed)
        self._worker = Worker("staging")
        self._forwards: dict[int, list[npt.NDArray[np.int64]]] = {}

    def run(
        self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64], *, write_back: bool
    ) -> Generator[tuple[PackedBatch, int], None, None]:
        """Yield each batch with its slot once its rows are there; drained when the iterator ends or is closed.

        Asking for the next batch says that the update of this one is done (on a GPU: has been launched).
        """
        cold = [int(index) for index in order if batches.has_cold_rows[index]]
        self._worker, self._forwards = Worker("staging"), {}
        worker = self._worker
        if cold:
            worker.start(lambda: self._plan(batches, cold))
            worker.start(lambda: self._fetch(batches, cold))
            worker.start(lambda: self._write_back(batches, cold, write_back))
        try:
            position = 0
            for index in map(int, order):
                packed = batches.batch(index)
                if not packed.has_cold_rows:
                    yield packed, 0
                    continue
                slot = position % self._depth
                worker.wait("arrived", position + 1)
                self._delay()
                self._transfer.forward(slot, self._forwards.pop(position))
                worker.reached("forwarded", position + 1)
                try:
                    yield packed, slot
                finally:
                    # Also when the consumer leaves here: it may have updated the batch.
                    self._transfer.mark_updated(slot)
                    worker.reached("updated", position + 1)
                position += 1
            worker.wait("written_back", len(cold))
        finally:
            worker.stop()

    def _plan(self, batches: BatchSet, cold: Sequence[int]) -> None:
        listed: list[Sequence[npt.NDArray[np.int64]]] = []
        for position, index in enumerate(cold):
            self._worker.wait("arrived", position - 2 * self._depth)  # far enough ahead, and no further
            cold_rows = batches.batch(index).cold_rows
            self._forwards[position] = self._plan_forwards(cold_rows, listed, position)  # invariant 2
            listed = [*listed, cold_rows][-(self._depth - 1) :]
            self._worker.reached("planned", position + 1)

    def _fetch(self, batches: BatchSet, cold: Sequence[int]) -> None:
        for position, index in enumerate(cold):
            slot, cold_rows = position % self._depth, batches.batch(index).cold_rows
            self._worker.wait("planned", position + 1)
            self._worker.wait("written_back", position - self._depth + 1)  # invariant 1
            self._delay()
            self._transfer.gather(slot, cold_rows, self._forwards[position], poison=self._faults.poison)
            self._worker.wait("forwarded", position)  # invariant 3: every earlier batch has taken what it needs
            self._delay()
            self._transfer.arrive(slot, cold_rows, poison=self._faults.poison)
            self._worker.reached("arrived", position + 1)

    def _plan_forwards(
        self,
        cold_rows: Sequence[npt.NDArray[np.int64]],
        listed: Sequence[Sequence[npt.NDArray[np.int64]]],
        position: int,
    ) -> list[npt.NDArray[np.int64]]:
        forwards = []
        for group, rows in enumerate(cold_rows):
            source = np.full(len(rows), -1, np.int64)
            for back, earlier in enumerate(reversed(listed), start=1):
                slot = (position - back) % self._depth
                find_forwards(rows, earlier[group], slot * self._tiers[group].slot_rows, source)
            forwards.append(source)
        return forwards

    def _write_back(self, batches: BatchSet, cold: Sequence[int], write_back: bool) -> None:
        for position, index in enumerate(cold):
            self._worker.wait("updated", position + 1)
            if write_back:
                self._delay()
                slot, cold_rows = position % self._depth, batches.batch(index).cold_rows
                self._transfer.depart(slot, cold_rows)
                self._delay()
                self._transfer.scatter(slot, cold_rows)
            self._worker.reached("written_back", position + 1)

    def _delay(self) -> None:
        if self._faults.max_delay_seconds > 0:
            time.sleep(self._random.random() * self._faults.max_delay_seconds)
