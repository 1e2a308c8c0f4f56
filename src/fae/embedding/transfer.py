"""The moves of the streaming pipeline in host memory: host rows -> transfer buffer -> slot, and back; slot -> slot.

Place in the flow: `fae.embedding.pipeline` says when, this says how where the bank is in host memory too; it is what
the pipeline's invariants are tested with. `fae.embedding.gpu_transfer` is the same for a GPU. Invariant: a call touches
one slot and one buffer (`forward`: its own slot, reading others) and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.embedding.rows import RowStore
from fae.kernels.cpu import copy_rows

Rows = npt.NDArray[np.int64]
_NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class TierPair:
    """One group's two tiers.

    Attributes
    ----------
    num_hot_rows
        H.
    slot_rows
        U_cap.
    bank
        Device rows: ``[0, H)`` hot, then k slots of `slot_rows`.
    host
        Cold rows; row number r is host row ``r - H``.
    """

    num_hot_rows: int
    slot_rows: int
    bank: RowStore
    host: RowStore

    def slot(self, index: int) -> tuple[Tensor, Tensor]:
        """A slot's part of the bank: weight and state."""
        first = self.num_hot_rows + index * self.slot_rows
        return self.bank.weight[first : first + self.slot_rows], self.bank.state[first : first + self.slot_rows]

    def part(self, rows: Rows, part: int, num_parts: int) -> tuple[int, int]:
        """Which stretch of a sorted list of cold rows belongs to one of `num_parts` equal parts of all cold rows."""
        size = len(self.host.weight)
        cuts = [self.num_hot_rows + size * edge // num_parts for edge in (part, part + 1)]
        begin, end = np.searchsorted(rows, cuts).tolist()
        return begin, end


class Transfer(Protocol):
    """What the pipeline asks for; every list has one entry a group."""

    def gather(self, slot: int, cold_rows: Sequence[Rows], forwards: Sequence[Rows], *, poison: bool) -> None:
        """Host rows into the slot's upward buffer; those that will be forwarded may be anything."""

    def arrive(self, slot: int, cold_rows: Sequence[Rows], *, poison: bool) -> None:
        """The upward buffer into the slot."""

    def forward(self, slot: int, forwards: Sequence[Rows]) -> None:
        """Rows that an earlier batch in flight holds, from its slot into this one, before computation."""

    def mark_updated(self, slot: int) -> None:
        """The update of the batch in this slot is done (on a GPU: has been launched)."""

    def depart(self, slot: int, cold_rows: Sequence[Rows]) -> None:
        """The slot into its downward buffer."""

    def scatter(self, slot: int, cold_rows: Sequence[Rows], part: int, num_parts: int) -> None:
        """The downward buffer into the host rows: those of one part of all rows, always the same for a row."""


class HostTransfer:
    """Buffers and copies of a ring of `depth` slots in host memory."""

    def __init__(self, tiers: Sequence[TierPair], depth: int) -> None:
        self._tiers, self._depth = list(tiers), depth
        self._up = [self._buffers(tier) for tier in tiers for _ in range(depth)]
        self._down = [self._buffers(tier) for tier in tiers for _ in range(depth)]

    def _buffers(self, tier: TierPair) -> tuple[Tensor, Tensor]:
        widths = (tier.bank.weight.shape[1], tier.bank.state.shape[1])
        return torch.empty((tier.slot_rows, widths[0])), torch.empty((tier.slot_rows, widths[1]))

    def _parts(
        self, buffers: Sequence[tuple[Tensor, Tensor]], group: int, slot: int
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """``(buffer, the slot's part of the bank, host rows)`` for weight and state."""
        tier = self._tiers[group]
        host = (tier.host.weight, tier.host.state)
        return list(zip(buffers[group * self._depth + slot], tier.slot(slot), host, strict=True))

    def gather(self, slot: int, cold_rows: Sequence[Rows], forwards: Sequence[Rows], *, poison: bool) -> None:
        """As `Transfer.gather`."""
        for group, rows in enumerate(cold_rows):
            places = np.where(forwards[group] < 0, np.arange(len(rows)), -1)
            for buffer, _, host in self._parts(self._up, group, slot):
                if poison:
                    buffer.fill_(_NAN)
                copy_rows(host, rows, buffer, places, source_shift=-self._tiers[group].num_hot_rows)

    def arrive(self, slot: int, cold_rows: Sequence[Rows], *, poison: bool) -> None:
        """As `Transfer.arrive`."""
        for group, rows in enumerate(cold_rows):
            for buffer, staged, _ in self._parts(self._up, group, slot):
                if poison:
                    staged.fill_(_NAN)
                staged[: len(rows)].copy_(buffer[: len(rows)])

    def forward(self, slot: int, forwards: Sequence[Rows]) -> None:
        """As `Transfer.forward`."""
        for group, source in enumerate(forwards):
            tier, taken = self._tiers[group], np.flatnonzero(source >= 0)
            if len(taken):
                origin = source[taken] + tier.num_hot_rows
                place = taken + tier.num_hot_rows + slot * tier.slot_rows
                for tensor in (tier.bank.weight, tier.bank.state):
                    copy_rows(tensor, origin, tensor, place)

    def mark_updated(self, slot: int) -> None:
        """As `Transfer.mark_updated`."""

    def depart(self, slot: int, cold_rows: Sequence[Rows]) -> None:
        """As `Transfer.depart`."""
        for group, rows in enumerate(cold_rows):
            for buffer, staged, _ in self._parts(self._down, group, slot):
                buffer[: len(rows)].copy_(staged[: len(rows)])

    def scatter(self, slot: int, cold_rows: Sequence[Rows], part: int, num_parts: int) -> None:
        """As `Transfer.scatter`."""
        for group, rows in enumerate(cold_rows):
            tier = self._tiers[group]
            begin, end = tier.part(rows, part, num_parts)
            for buffer, _, host in self._parts(self._down, group, slot):
                origins = np.arange(begin, end)
                copy_rows(buffer, origins, host, rows[begin:end], target_shift=-tier.num_hot_rows)
