"""The moves of the streaming pipeline on a GPU: the copy engine moves, events order.

Place in the flow: `fae.embedding.pipeline` says when, this says how. Cold rows lie in ordinary host memory; only the
buffers of the ring are pinned. Only the consumer's thread calls the driver; no call but `end` waits for the device:
copies up are started and leave an event, for which `forward` makes the computing stream wait; copies down leave one
that `poll` looks at. What is waited for, copied and recorded for each batch stands in tables that are made when a pass
begins; a batch's share of them is one call. Invariants: a pinned buffer is written again only after its slot's last
write-back, which comes after the copy out of it; a slot is written again only after the last batch that may read it
has done so.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from fae.embedding.transfer import FaultInjection, Pass, TierPair, TransferBuffers
from fae.kernels.driver import COPY, RECORD, WAIT, Commands, command_table, new_events
from fae.kernels.streaming import poison_forwarded

_NAN = float("nan")
_CYCLES_A_SECOND = 1.5e9


class GpuTransfer:
    """Streams and events of a ring of `depth` slots whose banks are on a CUDA device.

    Parameters
    ----------
    by_location
        Whether kernels read rows where they are (`slot_locations`); else `forward` copies them.
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
        self._launched = self._seen = 0
        self._up = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._down = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        (self._forwarded,) = new_events(1, self._up)
        self._arrived, self._updated, self._departed = (new_events(depth, self._up) for _ in range(3))
        self._driver, self._is_tested = Commands(), faults.poison or faults.max_delay_seconds > 0

    def begin(self, this: Pass) -> None:
        """As `Transfer.begin`."""
        self._pass, self._launched, self._seen = this, 0, 0
        counts = [each.ends - each.begins for each in this.lists]
        self._counts = [each.tolist() for each in counts]
        positions = np.arange(len(counts[0]))
        slots, up, down = positions % self._depth, self._up.cuda_stream, self._down.cuda_stream

        def of(events: Sequence[torch.cuda.Event], places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
            return np.array([event.cuda_event for event in events])[places]

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
        last_read = (
            of(self._updated, (positions - 2) % self._depth) if self._by_location else self._forwarded.cuda_event
        )
        self._arrivals = command_table(
            len(positions), [(WAIT, up, last_read), *arrivals, (RECORD, of(self._arrived, slots), up)]
        )
        updated, departed = of(self._updated, slots), of(self._departed, slots)
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
        before = self._seen
        while self._seen < self._launched:
            if not self._departed[self._seen % self._depth].query():  # type: ignore[no-untyped-call]
                break
            self._seen += 1
        if self._seen > before:
            for cell in self._pass.departed.tolist():
                self._pass.lanes.publish(cell, self._seen)

    def arrive(self, position: int) -> None:
        """As `Transfer.arrive`."""
        commands = self._arrivals[position]
        if self._is_tested:
            self._driver.run(commands[:1])
            with torch.cuda.stream(self._up):
                self._dawdle()
                for group in range(len(self._tiers) if self._faults.poison else 0):
                    self._poison(group, position)
            commands = commands[1:]
        self._driver.run(commands)

    def _planned(self, group: int, position: int) -> torch.Tensor:
        return self._buffers[group].locations[position % self._depth, : self._counts[group][position]]

    def _poison(self, group: int, position: int) -> None:
        slot, tier = position % self._depth, self._tiers[group]
        first_row, planned = tier.num_hot_rows + slot * tier.slot_rows, self._planned(group, position).numpy()
        for up, staged, _ in self._slots[slot][group]:
            poison_forwarded(planned, first_row, up.numpy())
            staged.fill_(_NAN)

    def forward(self, position: int) -> None:
        """As `Transfer.forward`."""
        slot = position % self._depth
        compute = torch.cuda.current_stream(self._device)
        compute.wait_event(self._arrived[slot])
        self._dawdle()
        if self._by_location:
            return
        for group, (tier, tensors) in enumerate(zip(self._tiers, self._slots[slot], strict=True)):
            rows = self._counts[group][position]
            origins = self.slot_locations[group][slot, :rows]
            for (_, staged, _), whole in zip(tensors, (tier.bank.weight, tier.bank.state), strict=False):
                staged[:rows] = whole[origins]
        self._forwarded.record(compute)

    def depart(self, position: int) -> None:
        """As `Transfer.depart`."""
        commands = self._departures[position]
        commands[0, 2] = torch.cuda.current_stream(self._device).cuda_stream
        if self._is_tested:
            self._driver.run(commands[:2])
            with torch.cuda.stream(self._down):
                self._dawdle()
            commands = commands[2:]
        self._driver.run(commands)
        self._launched = position + 1
        self.poll()

    def end(self) -> None:
        """As `Transfer.end`."""
        self._up.synchronize()

    def _dawdle(self) -> None:
        """Keep the current stream busy for a while, for tests of the invariants."""
        if self._faults.max_delay_seconds > 0:
            seconds = self._random.random() * self._faults.max_delay_seconds
            torch.cuda._sleep(int(seconds * _CYCLES_A_SECOND))  # type: ignore[no-untyped-call]
