"""The streaming pipeline: cold rows fetched before their batch, written back after it, forwarded in between.

Only batches with cold rows take part; they are numbered c = 0, 1, 2, ... in training order and use slot ``c % k``.
Threads of several kinds work at once: they plan forwards; fetch (gather host rows into a transfer buffer, then into the
slot); let a batch depart (slot to buffer); scatter the buffer to the host; the consumer computes. Several of a kind
share batches, those that scatter share rows: each has its own part of all cold rows, so a row's updates stay in order.
Invariants, whatever the threads and streams do:

1. The host gather of c starts only after the scatter of c - k is complete; a row's scatters run in order.
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
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from fae.core.threads import num_threads
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

_PLANNERS = 3 if num_threads() >= 8 else 1
_FETCHERS = 2 if num_threads() >= 8 else 1
_SCATTERERS = 2 if num_threads() >= 8 else 1


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
            for first in range(_PLANNERS):
                worker.start(partial(self._plan, batches, cold, first))
            for first in range(_FETCHERS):
                worker.start(partial(self._fetch, batches, cold, first))
            worker.start(partial(self._depart, batches, cold, write_back))
            for part in range(_SCATTERERS):
                worker.start(partial(self._scatter, batches, cold, write_back, part))
        position = 0
        try:
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
                position += 1
                try:
                    yield packed, slot
                finally:
                    # Also when the consumer leaves here: it may have updated the batch.
                    self._transfer.mark_updated(slot)
                    worker.reached("updated", position)
        finally:
            try:
                self._wait_written_back(position)  # also when the consumer leaves: it has updated these
            finally:
                worker.stop()

    def _plan(self, batches: BatchSet, cold: Sequence[int], first: int) -> None:
        for position in range(first, len(cold), _PLANNERS):
            self._worker.wait("arrived", position - 2 * self._depth)  # far enough ahead, and no further
            forwards = self._plan_forwards(batches, cold, position)  # invariant 2
            self._worker.wait("planned", position)
            self._forwards[position] = forwards
            self._worker.reached("planned", position + 1)

    def _fetch(self, batches: BatchSet, cold: Sequence[int], first: int) -> None:
        for position in range(first, len(cold), _FETCHERS):
            slot, cold_rows = position % self._depth, batches.batch(cold[position]).cold_rows
            self._worker.wait("planned", position + 1)
            self._wait_written_back(position - self._depth + 1)  # invariant 1
            self._delay()
            self._transfer.gather(slot, cold_rows, self._forwards[position], poison=self._faults.poison)
            self._worker.wait("forwarded", position)  # invariant 3: every earlier batch has taken what it needs
            self._delay()
            self._transfer.arrive(slot, cold_rows, poison=self._faults.poison)
            self._worker.reached("arrived", position + 1)

    def _wait_written_back(self, count: int) -> None:
        for part in range(_SCATTERERS):
            self._worker.wait(f"written_back {part}", count)

    def _plan_forwards(self, batches: BatchSet, cold: Sequence[int], position: int) -> list[npt.NDArray[np.int64]]:
        in_flight = range(position - 1, max(-1, position - self._depth), -1)  # the latest first
        forwards = []
        for group, rows in enumerate(batches.batch(cold[position]).cold_rows):
            source = np.full(len(rows), -1, np.int64)
            for earlier in in_flight:
                first_row = earlier % self._depth * self._tiers[group].slot_rows
                find_forwards(rows, batches.batch(cold[earlier]).cold_rows[group], first_row, source)
            forwards.append(source)
        return forwards

    def _depart(self, batches: BatchSet, cold: Sequence[int], write_back: bool) -> None:
        for position, index in enumerate(cold):
            self._worker.wait("updated", position + 1)
            if write_back:
                self._delay()
                self._transfer.depart(position % self._depth, batches.batch(index).cold_rows)
            self._worker.reached("departed", position + 1)

    def _scatter(self, batches: BatchSet, cold: Sequence[int], write_back: bool, part: int) -> None:
        for position, index in enumerate(cold):
            self._worker.wait("departed", position + 1)
            if write_back:
                self._delay()
                cold_rows = batches.batch(index).cold_rows
                self._transfer.scatter(position % self._depth, cold_rows, part, _SCATTERERS)
            self._worker.reached(f"written_back {part}", position + 1)

    def _delay(self) -> None:
        if self._faults.max_delay_seconds > 0:
            time.sleep(self._random.random() * self._faults.max_delay_seconds)
