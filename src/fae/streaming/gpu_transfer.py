"""GpuTransfer: copies between transfer buffers and slots on a GPU, by its copy engine, ordered by events.

`fae.streaming.staging` says when rows are copied, this module how. Cold rows lie in ordinary host memory; only the
buffers of the ring are pinned. The commands of each batch (waits, copies, records) are in tables that are made when a
pass begins. A worker thread starts them (`fae.streaming.copy_loops`); the consumer only lets the computing stream wait
for a batch's copy, and records an event behind its step. No call but `end` waits for the device.

A pinned buffer is written again only after its slot's last write-back, which comes after the copy out of it. A slot is
written again only after the last batch that may read it has done so.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fae.kernels.torch_private import busy_stream
from fae.streaming import cuda_commands
from fae.streaming.copier import Copier
from fae.streaming.copy_loops import copy_rows
from fae.streaming.cuda_commands import command_table, new_events
from fae.streaming.driver_calls import COPY, DELAY, FILL, RECORD, WAIT
from fae.streaming.transfer import FaultInjection, Pass, TierPair, TransferBuffers

_CYCLES_A_SECOND = 1.5e9


class GpuTransfer:
    """Streams and events of a ring of `depth` slots whose banks are on a CUDA device.

    Parameters
    ----------
    by_location
        Whether kernels read rows where they are (`slot_locations`); else `acquire` copies them.
    """

    def __init__(
        self,
        tiers: Sequence[TierPair],
        buffers: Sequence[TransferBuffers],
        depth: int,
        device: torch.device,
        faults: FaultInjection,
        *,
        by_location: bool,
    ) -> None:
        self._tiers, self._buffers, self._depth, self._device = list(tiers), list(buffers), depth, device
        self._faults, self._random, self._by_location = faults, random.Random(faults.seed), by_location
        self.slot_locations = [torch.zeros((depth, tier.slot_rows), dtype=torch.int64, device=device) for tier in tiers]
        self._up = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._down = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        (self._forwarded,) = new_events(1, self._up)
        self._events = [new_events(depth, self._up) for _ in range(3)]  # kept alive: the rest uses only their handles
        self._arrived, self._updated, self._down_done = map(cuda_commands.handles, self._events)

    def begin(self, this: Pass) -> None:
        """As `Transfer.begin`."""
        commands_up, commands_down = self._tables([each.ends - each.begins for each in this.lists], this.write_back)
        self._copier = Copier(
            this.workers, self._device, self._arrived, self._updated, copy_rows, len(commands_up), this.sources,
            commands_up, commands_down, this.copied_down, self._down_done, 1 if self._by_location else 0,
            self._faults.longest, self._faults.seed,
        )  # fmt: skip

    def _tables(
        self, counts: Sequence[npt.NDArray[np.int64]], write_back: bool
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Commands that copy each position up, and commands that copy it down."""
        self._counts = [each.tolist() for each in counts]
        positions = np.arange(len(counts[0]))
        slots, up, down = positions % self._depth, self._up.cuda_stream, self._down.cuda_stream
        copies_up, copies_down, fills = [], [], []
        for rows, tier, each in zip(counts, self._tiers, self._buffers, strict=True):
            first = tier.num_hot_rows + slots * tier.slot_rows
            for bank, above, below in zip((tier.bank.weight, tier.bank.state), each.up, each.down, strict=True):
                row_bytes = 4 * bank.shape[1]
                staged, in_buffer = bank.data_ptr() + row_bytes * first, row_bytes * slots * tier.slot_rows
                copies_up.append((COPY, staged, above.data_ptr() + in_buffer, row_bytes * rows, up))
                copies_down.append((COPY, below.data_ptr() + in_buffer, staged, row_bytes * rows, down))
                if bank.shape[1] and tier.slot_rows:
                    fills.append((FILL, staged, bank.shape[1] * tier.slot_rows, up))
        for rows, tier, each, locations in zip(counts, self._tiers, self._buffers, self.slot_locations, strict=True):
            planned = each.locations.data_ptr() + 8 * tier.slot_rows * slots
            copies_up.append((COPY, locations.data_ptr() + 8 * tier.slot_rows * slots, planned, 8 * rows, up))
        # The event of the last batch that may read this slot: two before, or the one before, which reads at its start.
        last_read = self._updated[(positions - 2) % self._depth] if self._by_location else self._forwarded.cuda_event
        faults = [*self._delays(up, len(positions)), *(fills if self._faults.fill_with_nan else ())]
        return (
            command_table(
                len(positions), [(WAIT, up, last_read), *faults, *copies_up, (RECORD, self._arrived[slots], up)]
            ),
            command_table(
                len(positions),
                [
                    (WAIT, down, self._updated[slots]), *self._delays(down, len(positions)),
                    *(copies_down if write_back else ()), (RECORD, self._down_done[slots], down),
                ],
            ),
        )  # fmt: skip

    def _delays(self, stream: int, count: int) -> list[tuple[Any, ...]]:
        # These are host functions: the driver may call those of both streams one after the other.
        if self._faults.longest <= 0:
            return []
        return [(DELAY, stream, np.array([self._random.randint(0, self._faults.longest) for _ in range(count)]))]

    def acquire(self, position: int) -> None:
        """As `Transfer.acquire`."""
        self._copier.acquire(position)
        self._random_delay()
        if not self._by_location:
            self._forward(position)

    def _forward(self, position: int) -> None:
        slot, compute = position % self._depth, torch.cuda.current_stream(self._device)
        for group, tier in enumerate(self._tiers):
            rows = self._counts[group][position]
            origins = self.slot_locations[group][slot, :rows]
            for staged, whole in zip(tier.slot(slot), (tier.bank.weight, tier.bank.state), strict=True):
                if whole.shape[1]:
                    staged[:rows] = whole[origins]
        self._forwarded.record(compute)

    def release(self, position: int) -> None:
        """As `Transfer.release`."""
        self._copier.release(position)

    def end(self) -> None:
        """As `Transfer.end`."""
        self._up.synchronize()
        self._down.synchronize()  # after a pass that failed

    def _random_delay(self) -> None:
        """Keep the current stream busy for a while, for tests of the invariants."""
        if self._faults.max_delay_seconds > 0:
            seconds = self._random.random() * self._faults.max_delay_seconds
            busy_stream(int(seconds * _CYCLES_A_SECOND))
