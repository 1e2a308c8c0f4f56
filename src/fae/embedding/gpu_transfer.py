"""The moves of the streaming pipeline on a GPU: the copy engine moves, events order.

Place in the flow: `fae.embedding.pipeline` says when, this says how. Cold rows lie in ordinary host memory; only the
buffers of the ring are pinned. Only the consumer's thread calls the driver; no call but `end` waits for the device:
copies up are started and leave an event, for which `bring` makes the computing stream wait; copies down leave one
that the host looks at. What is waited for, copied and recorded for each batch stands in tables that are made when a
pass begins; all that is done before a batch is one call (`fae.kernels.turns`), and all behind it another. Invariants: a
pinned buffer is written again only after its slot's last write-back, which comes after the copy out of it; a slot is
written again only after the last batch that may read it has done so.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from fae.embedding.transfer import FaultInjection, Pass, TierPair, TransferBuffers
from fae.kernels import driver, turns
from fae.kernels.driver import COPY, RECORD, WAIT, command_table, new_events, require_success
from fae.kernels.streaming import poison_forwarded

_NAN = float("nan")
_CYCLES_A_SECOND = 1.5e9


class GpuTransfer:
    """Streams and events of a ring of `depth` slots whose banks are on a CUDA device.

    Parameters
    ----------
    by_location
        Whether kernels read rows where they are (`slot_locations`); else `bring` copies them.
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
        self._slots = [
            [
                tuple(
                    (up[slot], staged, down[slot])
                    for up, staged, down in zip(each.up, tier.slot(slot), each.down, strict=True)
                    if staged.shape[1]
                )
                for tier, each in zip(tiers, buffers, strict=True)
            ]
            for slot in range(depth)
        ]
        self._up = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._down = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        (self._forwarded,) = new_events(1, self._up)
        self._events = [new_events(depth, self._up) for _ in range(3)]
        self._arrived, self._updated, self._departed = map(driver.handles, self._events)
        self._functions, self._progress = driver.command_functions(), np.zeros(3, np.int64)
        self._early = 1 if by_location else 0  # batches that may be copied up before the one in hand is computed
        self._is_tested = faults.poison or faults.max_delay_seconds > 0

    def begin(self, this: Pass) -> None:
        """As `Transfer.begin`."""
        self._pass = this
        self._progress[:] = 0
        counts = [each.ends - each.begins for each in this.lists]
        self._counts = [each.tolist() for each in counts]
        positions = np.arange(len(counts[0]))
        slots, up, down = positions % self._depth, self._up.cuda_stream, self._down.cuda_stream

        arrivals, departures = [], []
        for rows, tier, each in zip(counts, self._tiers, self._buffers, strict=True):
            first = tier.num_hot_rows + slots * tier.slot_rows
            for bank, above, below in zip((tier.bank.weight, tier.bank.state), each.up, each.down, strict=True):
                row_bytes = 4 * bank.shape[1]
                staged, in_buffer = bank.data_ptr() + row_bytes * first, row_bytes * slots * tier.slot_rows
                arrivals.append((COPY, staged, above.data_ptr() + in_buffer, row_bytes * rows, up))
                departures.append((COPY, below.data_ptr() + in_buffer, staged, row_bytes * rows, down))
        for rows, tier, each, locations in zip(counts, self._tiers, self._buffers, self.slot_locations, strict=True):
            planned = each.locations.data_ptr() + 8 * tier.slot_rows * slots
            arrivals.append((COPY, locations.data_ptr() + 8 * tier.slot_rows * slots, planned, 8 * rows, up))
        # Of the last batch that may read this slot: it is two before, or the one before and read at its start.
        last_read = self._updated[(positions - 2) % self._depth] if self._by_location else self._forwarded.cuda_event
        self._arrivals = command_table(
            len(positions), [(WAIT, up, last_read), *arrivals, (RECORD, self._arrived[slots], up)]
        )
        updated, departed = self._updated[slots], self._departed[slots]
        # The computing stream's handle is not known yet.
        self._departures = command_table(
            len(positions),
            [
                (RECORD, updated, 0), (WAIT, down, updated), *(departures if this.write_back else ()),
                (RECORD, departed, down),
            ],
        )  # fmt: skip

    def poll(self) -> None:
        """As `Transfer.poll`."""
        this, progress = self._pass, self._progress
        require_success(
            turns.see(
                self._functions, this.lanes.counters, this.departed, self._departed, progress, progress[turns.LEFT]
            )
        )

    def advance(self, position: int) -> None:
        """As `Transfer.advance`."""
        self._turn(position + self._early + 1, -1, 0)

    def bring(self, position: int) -> bool:
        """As `Transfer.bring`."""
        if not self._turn(position + self._early + 1, position, driver.current_stream(self._device)):
            return False
        self._dawdle()
        if not self._by_location:
            self._forward(position)
        return True

    def _turn(self, limit: int, position: int, compute: int) -> bool:
        this, progress = self._pass, self._progress
        if self._is_tested:
            self._start_tested(limit)
        code = turns.bring_rows(
            self._functions, this.lanes.counters, this.sources, self._arrivals, self._arrived, this.departed,
            self._departed, progress, 0 if self._is_tested else limit, position, compute,
        )  # fmt: skip
        if code == turns.NOT_THERE:
            return False
        require_success(code)
        return True

    def _start_tested(self, limit: int) -> None:
        """Arrivals with delays and poison between their commands."""
        lanes, sources, started = self._pass.lanes, self._pass.sources, int(self._progress[turns.STARTED])
        for position in range(started, min(limit, len(self._arrivals))):
            if not lanes.have(sources, position + 1):
                return
            commands = self._arrivals[position]
            self._run(commands[:1])
            with torch.cuda.stream(self._up):
                self._dawdle()
                for group in range(len(self._tiers) if self._faults.poison else 0):
                    self._poison(group, position)
            self._run(commands[1:])
            self._progress[turns.STARTED] = position + 1

    def _run(self, commands: npt.NDArray[np.int64]) -> None:
        require_success(driver.run_commands(self._functions, commands))

    def _planned(self, group: int, position: int) -> torch.Tensor:
        return self._buffers[group].locations[position % self._depth, : self._counts[group][position]]

    def _poison(self, group: int, position: int) -> None:
        slot, tier = position % self._depth, self._tiers[group]
        first_row, planned = tier.num_hot_rows + slot * tier.slot_rows, self._planned(group, position).numpy()
        for up, staged, _ in self._slots[slot][group]:
            poison_forwarded(planned, first_row, up.numpy())
            staged.fill_(_NAN)

    def _forward(self, position: int) -> None:
        slot, compute = position % self._depth, torch.cuda.current_stream(self._device)
        for group, (tier, tensors) in enumerate(zip(self._tiers, self._slots[slot], strict=True)):
            rows = self._counts[group][position]
            origins = self.slot_locations[group][slot, :rows]
            for (_, staged, _), whole in zip(tensors, (tier.bank.weight, tier.bank.state), strict=False):
                staged[:rows] = whole[origins]
        self._forwarded.record(compute)

    def depart(self, position: int) -> None:
        """As `Transfer.depart`."""
        this, compute = self._pass, driver.current_stream(self._device)
        if self._is_tested:
            commands = self._departures[position]
            commands[0, 2] = compute
            self._run(commands[:2])
            with torch.cuda.stream(self._down):
                self._dawdle()
            self._run(commands[2:])
            self._progress[turns.LEFT] = position + 1
            self.poll()
            return
        require_success(
            turns.leave_rows(
                self._functions, this.lanes.counters, self._departures, this.departed, self._departed,
                self._progress, position, compute,
            )
        )  # fmt: skip

    def end(self) -> None:
        """As `Transfer.end`."""
        self._up.synchronize()

    def _dawdle(self) -> None:
        """Keep the current stream busy for a while, for tests of the invariants."""
        if self._faults.max_delay_seconds > 0:
            seconds = self._random.random() * self._faults.max_delay_seconds
            torch.cuda._sleep(int(seconds * _CYCLES_A_SECOND))  # type: ignore[no-untyped-call]
