"""The moves of the streaming pipeline: host rows -> transfer buffer -> slot, and back; slot -> slot.

Place in the flow: `fae.embedding.pipeline` says when, this says how. On a GPU the buffers are pinned, copies run on
two streams of their own, and every call returns only when its own work is done; computation is fenced by events.
Invariant: a call touches one slot and one buffer (`forward`: its own slot, reading others) and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.embedding.rows import RowStore
from fae.kernels.cpu import copy_rows

Rows = npt.NDArray[np.int64]
_NAN = float("nan")


class SlotTransfer:
    """Buffers and copies of a ring of `depth` slots.

    Parameters
    ----------
    tiers
        Per group: bank, host rows, H, rows of a slot.
    """

    def __init__(self, tiers: Sequence[tuple[RowStore, RowStore, int, int]], depth: int, device: torch.device) -> None:
        self._tiers, self._device, self._on_gpu = list(tiers), device, device.type == "cuda"
        self._up = [self._buffers(tier) for tier in tiers for _ in range(depth)]
        self._down = [self._buffers(tier) for tier in tiers for _ in range(depth)]
        self._depth = depth
        if self._on_gpu:
            self._up_stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._down_stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._forwarded: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._updated: list[torch.cuda.Event] = [
                torch.cuda.Event()  # type: ignore[no-untyped-call]
                for _ in range(depth)
            ]

    def _buffers(self, tier: tuple[RowStore, RowStore, int, int]) -> tuple[Tensor, Tensor]:
        bank, _, _, slot_rows = tier
        return (
            torch.empty((slot_rows, bank.weight.shape[1]), pin_memory=self._on_gpu),
            torch.empty((slot_rows, bank.state.shape[1]), pin_memory=self._on_gpu),
        )

    def _parts(
        self, buffers: Sequence[tuple[Tensor, Tensor]], group: int, slot: int
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """``(buffer, the slot's part of the bank, host rows)`` for weight and state."""
        bank, host, num_hot_rows, slot_rows = self._tiers[group]
        first = num_hot_rows + slot * slot_rows
        weight, state = buffers[group * self._depth + slot]
        return [
            (weight, bank.weight[first : first + slot_rows], host.weight),
            (state, bank.state[first : first + slot_rows], host.state),
        ]

    def gather(self, slot: int, cold_rows: Sequence[Rows], forwards: Sequence[Rows], *, poison: bool) -> None:
        """Host rows into the slot's upward buffer, but for those that will be forwarded."""
        for group, rows in enumerate(cold_rows):
            places = np.where(forwards[group] < 0, np.arange(len(rows)), -1)
            for buffer, _, host in self._parts(self._up, group, slot):
                if poison:
                    buffer.fill_(_NAN)
                copy_rows(host, rows, buffer, places, source_shift=-self._tiers[group][2])

    def arrive(self, slot: int, cold_rows: Sequence[Rows], *, poison: bool) -> None:
        """The upward buffer into the slot."""
        with self._stream(up=True):
            if self._on_gpu:
                self._up_stream.wait_event(self._forwarded)
            for group, rows in enumerate(cold_rows):
                for buffer, staged, _ in self._parts(self._up, group, slot):
                    if poison:
                        staged.fill_(_NAN)
                    staged[: len(rows)].copy_(buffer[: len(rows)], non_blocking=True)
        if self._on_gpu:
            self._up_stream.synchronize()

    def forward(self, slot: int, forwards: Sequence[Rows]) -> None:
        """Rows that an earlier batch in flight holds, from its slot into this one, on the computing stream."""
        for group, source in enumerate(forwards):
            bank, _, num_hot_rows, slot_rows = self._tiers[group]
            taken = np.flatnonzero(source >= 0)
            if not len(taken):
                continue
            origin = source[taken] + num_hot_rows
            place = taken + num_hot_rows + slot * slot_rows
            for tensor in (bank.weight, bank.state):
                if self._on_gpu:
                    target = torch.from_numpy(place).to(self._device)
                    tensor[target] = tensor[torch.from_numpy(origin).to(self._device)]
                else:
                    copy_rows(tensor, origin, tensor, place)
        if self._on_gpu:
            self._forwarded.record(torch.cuda.current_stream(self._device))

    def mark_updated(self, slot: int) -> None:
        """The computing stream has been given the update of the batch in this slot."""
        if self._on_gpu:
            self._updated[slot].record(torch.cuda.current_stream(self._device))

    def depart(self, slot: int, cold_rows: Sequence[Rows]) -> None:
        """The slot into its downward buffer."""
        with self._stream(up=False):
            if self._on_gpu:
                self._down_stream.wait_event(self._updated[slot])
            for group, rows in enumerate(cold_rows):
                for buffer, staged, _ in self._parts(self._down, group, slot):
                    buffer[: len(rows)].copy_(staged[: len(rows)], non_blocking=True)
        if self._on_gpu:
            self._down_stream.synchronize()

    def scatter(self, slot: int, cold_rows: Sequence[Rows]) -> None:
        """The downward buffer into the host rows."""
        for group, rows in enumerate(cold_rows):
            for buffer, _, host in self._parts(self._down, group, slot):
                copy_rows(buffer, np.arange(len(rows)), host, rows, target_shift=-self._tiers[group][2])

    def _stream(self, *, up: bool) -> AbstractContextManager[object]:
        if not self._on_gpu:
            return nullcontext()
        return torch.cuda.stream(self._up_stream if up else self._down_stream)
