"""The moves of the streaming pipeline on a GPU: CPU threads gather and scatter, the copy engine moves, events order.

Place in the flow: `fae.embedding.pipeline` says when, this says how. Cold rows lie in ordinary host memory; only the
buffers of the ring are pinned. No call but `depart` waits for the device: copies up are started and leave an event, for
which `forward` makes the computing stream wait. Invariant: a pinned buffer is written again only after its slot's last
write-back, which comes after the copy out of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fae.embedding.transfer import Rows, TierPair
from fae.kernels.cpu import copy_rows
from fae.kernels.forwarding import list_moves
from fae.kernels.triton_rows import forward_rows

_NAN = float("nan")
_ONE_THREAD = 2**62
"""No hand-over to other threads: the pipeline has several of its own, and a hand-over costs as much as 10,000 rows."""


class _SlotBuffers:
    """Pinned memory of one group and slot: rows and state up and down, row numbers, forwards."""

    def __init__(self, tier: TierPair, device: torch.device) -> None:
        rows, widths = tier.slot_rows, (tier.bank.weight.shape[1], tier.bank.state.shape[1])
        self.up = tuple(torch.empty((rows, width), pin_memory=True) for width in widths)
        self.down = tuple(torch.empty((rows, width), pin_memory=True) for width in widths)
        self.moves = torch.zeros(1 + 2 * rows, dtype=torch.int32, pin_memory=True)
        self.device_moves = torch.zeros(1 + 2 * rows, dtype=torch.int32, device=device)
        self.num_moves = 0


class GpuTransfer:
    """Buffers, streams and events of a ring of `depth` slots whose banks are on a CUDA device."""

    def __init__(self, tiers: Sequence[TierPair], depth: int, device: torch.device) -> None:
        self._tiers, self._device = list(tiers), device
        self._buffers = [[_SlotBuffers(tier, device) for tier in tiers] for _ in range(depth)]
        self._up_stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._down_stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._places = np.arange(max(tier.slot_rows for tier in tiers))
        self._forwarded = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._arrived = [torch.cuda.Event() for _ in range(depth)]  # type: ignore[no-untyped-call]
        self._updated = [torch.cuda.Event() for _ in range(depth)]  # type: ignore[no-untyped-call]
        self._departed = [torch.cuda.Event() for _ in range(depth)]  # type: ignore[no-untyped-call]

    @property
    def pinned_bytes(self) -> int:
        """Bytes of pinned host memory."""
        tensors = [t for slot in self._buffers for each in slot for t in (*each.up, *each.down, each.moves)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def gather(self, slot: int, cold_rows: Sequence[Rows], forwards: Sequence[Rows], *, poison: bool) -> None:
        """As `Transfer.gather`: every listed row is read, forwarded ones for nothing; sorting them out costs more."""
        for group, rows in enumerate(cold_rows):
            tier, buffers = self._tiers[group], self._buffers[slot][group]
            places = self._places[: len(rows)]
            for buffer, host in zip(buffers.up, (tier.host.weight, tier.host.state), strict=True):
                copy_rows(host, rows, buffer, places, source_shift=-tier.num_hot_rows, min_range=_ONE_THREAD)
                if poison:
                    buffer[: len(rows)][torch.from_numpy(forwards[group] >= 0)] = _NAN
            moves, limit = buffers.moves.numpy(), tier.slot_rows
            buffers.num_moves = list_moves(
                forwards[group], tier.num_hot_rows, tier.num_hot_rows + slot * limit, moves[1 : 1 + limit],
                moves[1 + limit :],
            )  # fmt: skip
            moves[0] = buffers.num_moves

    def arrive(self, slot: int, cold_rows: Sequence[Rows], *, poison: bool) -> None:
        """As `Transfer.arrive`."""
        with torch.cuda.stream(self._up_stream):
            self._up_stream.wait_event(self._forwarded)
            for group, rows in enumerate(cold_rows):
                tier, buffers = self._tiers[group], self._buffers[slot][group]
                for buffer, staged in zip(buffers.up, tier.slot(slot), strict=True):
                    if poison:
                        staged.fill_(_NAN)
                    if staged.shape[1]:
                        staged[: len(rows)].copy_(buffer[: len(rows)], non_blocking=True)
                if buffers.num_moves:
                    used = 1 + tier.slot_rows + buffers.num_moves
                    buffers.device_moves[:used].copy_(buffers.moves[:used], non_blocking=True)
            self._arrived[slot].record(self._up_stream)

    def forward(self, slot: int, forwards: Sequence[Rows]) -> None:
        """As `Transfer.forward`."""
        compute = torch.cuda.current_stream(self._device)
        compute.wait_event(self._arrived[slot])
        for group, tier in enumerate(self._tiers):
            buffers = self._buffers[slot][group]
            forward_rows(buffers.device_moves, tier.bank.weight, tier.bank.state, buffers.num_moves)
        self._forwarded.record(compute)

    def mark_updated(self, slot: int) -> None:
        """As `Transfer.mark_updated`."""
        self._updated[slot].record(torch.cuda.current_stream(self._device))

    def depart(self, slot: int, cold_rows: Sequence[Rows]) -> None:
        """As `Transfer.depart`."""
        with torch.cuda.stream(self._down_stream):
            self._down_stream.wait_event(self._updated[slot])
            for group, rows in enumerate(cold_rows):
                for buffer, staged in zip(self._buffers[slot][group].down, self._tiers[group].slot(slot), strict=True):
                    if staged.shape[1]:
                        buffer[: len(rows)].copy_(staged[: len(rows)], non_blocking=True)
            self._departed[slot].record(self._down_stream)
        self._departed[slot].synchronize()

    def scatter(self, slot: int, cold_rows: Sequence[Rows], part: int, num_parts: int) -> None:
        """As `Transfer.scatter`."""
        for group, rows in enumerate(cold_rows):
            tier, buffers = self._tiers[group], self._buffers[slot][group]
            begin, end = tier.part(rows, part, num_parts)
            origins, chosen = self._places[begin:end], rows[begin:end]
            for buffer, host in zip(buffers.down, (tier.host.weight, tier.host.state), strict=True):
                copy_rows(buffer, origins, host, chosen, target_shift=-tier.num_hot_rows, min_range=_ONE_THREAD)
