"""The moves of the streaming pipeline on a GPU: the copy engine moves, events order.

Place in the flow: `fae.embedding.pipeline` says when, this says how. Cold rows lie in ordinary host memory; only the
buffers of the ring are pinned. Only the consumer's thread calls the driver; no call but `end` waits for the device:
copies up are started and leave an event, for which `forward` makes the computing stream wait; copies down leave one
that `poll` looks at. Invariants: a pinned buffer is written again only after its slot's last write-back, which comes
after the copy out of it; a slot is written again only after the last batch that may read it has done so.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from fae.embedding.transfer import FaultInjection, Pass, TierPair, TransferBuffers
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
        # What a copy needs, once for each slot: cutting tensors costs as much as starting the copy.
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
        self._forwarded = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._arrived = [torch.cuda.Event() for _ in range(depth)]  # type: ignore[no-untyped-call]
        self._updated = [torch.cuda.Event() for _ in range(depth)]  # type: ignore[no-untyped-call]
        self._departed = [torch.cuda.Event() for _ in range(depth)]  # type: ignore[no-untyped-call]

    def begin(self, this: Pass) -> None:
        """As `Transfer.begin`."""
        self._pass, self._launched, self._seen = this, 0, 0
        self._counts = [(each.ends - each.begins).tolist() for each in this.lists]

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
        slot = position % self._depth
        with torch.cuda.stream(self._up):
            # Of the last batch that may read this slot: it is two before, or the one before and read at its start.
            self._up.wait_event(self._updated[(position - 2) % self._depth] if self._by_location else self._forwarded)
            self._dawdle()
            for group, tensors in enumerate(self._slots[slot]):
                rows = self._counts[group][position]
                if self._faults.poison:
                    self._poison(group, position)
                for up, staged, _ in tensors:
                    staged[:rows].copy_(up[:rows], non_blocking=True)
                self.slot_locations[group][slot, :rows].copy_(self._planned(group, position), non_blocking=True)
            self._arrived[slot].record(self._up)

    def _planned(self, group: int, position: int) -> torch.Tensor:
        planned = self._buffers[group].locations
        return planned[position % len(planned), : self._counts[group][position]]

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
        slot = position % self._depth
        self._updated[slot].record(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._down):
            self._down.wait_event(self._updated[slot])
            self._dawdle()
            for group, tensors in enumerate(self._slots[slot] if self._pass.write_back else ()):
                rows = self._counts[group][position]
                for _, staged, down in tensors:
                    down[:rows].copy_(staged[:rows], non_blocking=True)
            self._departed[slot].record(self._down)
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
