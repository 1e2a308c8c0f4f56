"""Transfer: copies between transfer buffers and slots; here for slots in host memory.

`fae.streaming.staging` gathers host rows into buffers and scatters buffers to host rows; a `Transfer` copies between
buffers and slots. `HostTransfer` is for a bank in host memory: two worker threads a group do what a copy engine does,
and the pipeline's invariants are tested with it. `fae.streaming.gpu_transfer` is for a GPU. A copy touches one slot and
its buffers and nothing else; forwarding writes its own slot and reads others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fae.artifacts.packed import ColdLists
from fae.streaming.row_loops import down_loop, forward_on_host, up_loop
from fae.streaming.row_store import RowStore
from fae.streaming.workers import CounterIds, WorkerGroup


@dataclass(frozen=True, kw_only=True)
class TierPair:
    """One group's two tiers.

    Attributes
    ----------
    num_hot_rows
        H, the rows that are always on the device.
    slot_rows
        Rows of one staging slot (U_cap).
    bank
        Rows on the device: ``[0, H)`` hot, then k slots of `slot_rows`.
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


class TransferBuffers:
    """One group's host memory between host rows and slots.

    Attributes
    ----------
    up, down
        Weight and state, float32 ``[depth, slot_rows, *]``: on the way to a slot, and from it.
    locations
        int64 ``[depth, slot_rows]``: rows of the bank, where to read each row.
    """

    def __init__(self, tier: TierPair, depth: int, *, pinned: bool) -> None:
        widths = (tier.bank.weight.shape[1], tier.bank.state.shape[1])

        def rows() -> tuple[Tensor, ...]:
            return tuple(torch.empty((depth, tier.slot_rows, width), pin_memory=pinned) for width in widths)

        self.up, self.down = rows(), rows()
        self.locations = torch.zeros((depth, tier.slot_rows), dtype=torch.int64, pin_memory=pinned)


@dataclass(frozen=True, kw_only=True)
class FaultInjection:
    """Random delays and NaN in freed memory, for tests of the invariants.

    Attributes
    ----------
    max_delay_seconds
        Every step of every thread and of every stream of the pipeline first waits up to this long; input buffers do
        not.
    fill_with_nan
        Fill freed slots and rows that will be forwarded with NaN.
    seed
        Seed of the delays.
    """

    max_delay_seconds: float = 0.0
    fill_with_nan: bool = False
    seed: int = 0

    @property
    def longest(self) -> int:
        """Longest delay in microseconds."""
        return round(1e6 * self.max_delay_seconds)


NO_FAULTS = FaultInjection()


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass over batches with cold rows.

    Attributes
    ----------
    workers
        The threads of this pass and their counters.
    lists
        Per group, the cold rows of each batch.
    write_back
        Whether rows go back to the host.
    gathered, scattered
        Counters of positions gathered and scattered: per group, one for each range of rows.
    copied_down
        Counters of positions copied down, one a group.
    """

    workers: WorkerGroup
    lists: tuple[ColdLists, ...]
    write_back: bool
    gathered: tuple[CounterIds, ...]
    scattered: tuple[CounterIds, ...]
    copied_down: CounterIds

    @cached_property
    def sources(self) -> CounterIds:
        """Counters that have reached ``position + 1`` when a position can be copied up."""
        return np.concatenate(self.gathered)


class Transfer(Protocol):
    """Copies between buffers and slots; the pipeline calls it in the order of positions."""

    slot_locations: list[Tensor]
    """Per group, int64 ``[k, slot_rows]`` beside the bank: where each slot's batch reads its rows."""

    def begin(self, this: Pass) -> None:
        """Start a pass."""

    def acquire(self, position: int) -> None:
        """Before a batch is computed: copy up, and forward the rows that earlier batches hold (or say where they are).

        Blocks until that is done; on a GPU only until it is started, ordered before what is computed next.
        """

    def release(self, position: int) -> None:
        """After a batch's update is done (on a GPU: launched): copy its rows down."""

    def end(self) -> None:
        """End a pass: wait for copies up of batches that were not acquired."""


class HostTransfer:
    """Copies within host memory, by two worker threads a group.

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
        faults: FaultInjection,
        *,
        by_location: bool,
    ) -> None:
        self._tiers, self._buffers, self._depth, self._faults = list(tiers), list(buffers), depth, faults
        self._by_location = by_location
        self.slot_locations = [
            torch.zeros((depth, tier.slot_rows if by_location else 0), dtype=torch.int64) for tier in tiers
        ]

    def begin(self, this: Pass) -> None:
        """As `Transfer.begin`."""
        workers = this.workers
        self._pass, self._arrived = this, workers.add_counters(len(self._tiers))
        # Counters of positions whose slots no earlier batch reads any more, and of those updated.
        self._released, self._updated = workers.add_counter(), workers.add_counter()
        workers.publish(self._released, 1 if self._by_location else 0)
        longest, seed = self._faults.longest, self._faults.seed
        for group, (tier, buffers, lists) in enumerate(zip(self._tiers, self._buffers, this.lists, strict=True)):
            bank = (tier.bank.weight.numpy(), tier.bank.state.numpy())
            up, down = ([tensor.numpy() for tensor in tensors] for tensors in (buffers.up, buffers.down))
            workers.start(
                f"up of group {group}", up_loop, int(self._arrived[group]), this.gathered[group], self._released,
                lists.begins, lists.ends, tier.num_hot_rows, *up, *bank,
                self._faults.fill_with_nan, longest, seed + 2 * group, end=len(lists.begins),
            )  # fmt: skip
            if this.write_back:
                workers.start(
                    f"down of group {group}", down_loop, int(this.copied_down[group]), self._updated,
                    lists.begins, lists.ends, tier.num_hot_rows, *bank, *down, longest, seed + 2 * group + 1,
                    end=len(lists.begins),
                )  # fmt: skip

    def acquire(self, position: int) -> None:
        """As `Transfer.acquire`."""
        self._pass.workers.wait(self._arrived, position + 1)
        slot = position % self._depth
        for group, (tier, buffers) in enumerate(zip(self._tiers, self._buffers, strict=True)):
            lists = self._pass.lists[group]
            count = int(lists.ends[position] - lists.begins[position])
            listed = buffers.locations[slot, :count]
            if self._by_location:
                self.slot_locations[group][slot, :count] = listed
                continue
            first_row = tier.num_hot_rows + slot * tier.slot_rows
            forward_on_host(listed.numpy(), first_row, tier.bank.weight.numpy(), tier.bank.state.numpy())
        if not self._by_location:
            self._pass.workers.publish(self._released, position + 1)

    def release(self, position: int) -> None:
        """As `Transfer.release`."""
        workers = self._pass.workers
        if not self._pass.write_back:
            for counter in self._pass.copied_down.tolist():
                workers.publish(counter, position + 1)
        workers.publish(self._updated, position + 1)
        if self._by_location:
            workers.publish(self._released, position + 2)

    def end(self) -> None:
        """As `Transfer.end`: the worker threads end with the pass."""
