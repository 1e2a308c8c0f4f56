"""A step on several GPUs that train together: how long it takes, and what each receives.

Every GPU has a slice of the batch. It sums the gradients of its rows, reads the sums of all others, and steps every row
of the whole batch. Several hosts sum within each of them first. On each host a cold row has one owner under `spread`
and `tiered`, a GPU that has it or stages it: the others pull it before their lookups, and the owner alone reads its
sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fae.distributed.places import RANK_COUNTS
from fae.distributed.wire_bytes import network_bytes, received_bytes
from fae.embedding.tiered import slots_beside_places
from fae.planning.dense_work import dense_work
from fae.planning.machine_constants import MachineConstants, WireConstants
from fae.planning.step_time import TOO_FEW_SLOTS, resident_parts, staged_seconds, stream_parts
from fae.planning.step_work import StepWork, WidthWork

GROUP_PLACEMENTS = ("device", "tiered", "spread")
OWNED_PLACEMENTS = ("tiered", "spread")
"""Those under which each cold row has one owner among the GPUs of a host."""
GPUS_OF_HOST, HOSTS = 4, 2
NETWORKS = (100, 400)
"""Gb/s of a host's network, each way."""
_EXCHANGE, _DENSE, _BARRIERS, _NETWORK = "exchange of rows", "exchange of dense gradients", "barriers", "network"
_PULL = "pull of rows"


@dataclass(frozen=True, kw_only=True)
class GpuGroup:
    """GPUs that train together.

    Attributes
    ----------
    gpus, hosts
        All of them, and on how many hosts they are.
    gigabits
        Gb/s of each host's network, one way; None for one host.
    slice_work, host_work, whole_work
        The work of one GPU's slice of a batch, of all slices of a host, and of the whole batch.
    """

    gpus: int
    hosts: int = 1
    gigabits: int | None = None
    slice_work: StepWork
    host_work: StepWork
    whole_work: StepWork

    @property
    def of_host(self) -> int:
        """GPUs of one host."""
        return self.gpus // self.hosts

    @property
    def _dims(self) -> list[int]:
        return [width.embedding_dim for width in self.slice_work.widths]

    @property
    def dense_weights(self) -> int:
        """Weights of the dense part."""
        return dense_work(self.slice_work.settings, on_gpu=True).parameters

    def has_owners(self, placement: str) -> bool:
        """Whether each cold row has one owner, from which other GPUs pull it."""
        return self.of_host > 1 and placement in OWNED_PLACEMENTS

    def _cold_rows_of_others(self, width: WidthWork) -> float:
        """Different cold rows of a slice that other GPUs own, and that it so pulls from there.

        As many sums each GPU reads of the rows that it owns: the others look them up.
        """
        return width.unique_cold_rows * (self.of_host - 1) / self.of_host

    def received(self, placement: str = "device", *, dense: bool = True) -> float:
        """Bytes that a GPU reads in a step of the others, with the dense gradients or without.

        Sums of the rows that the other slices look up; where cold rows have owners, of the hot ones among them, and the
        cold rows that it pulls, and the sums of those that it owns. Where there are several hosts, its part of the sums
        of its host's other slices and of other hosts, and the other parts of the sums of hosts.
        """
        others, near = self.of_host - 1, self.of_host
        rows, has_owners = [], self.has_owners(placement)
        for own, host in zip(self.slice_work.widths, self.host_work.widths, strict=True):
            pulled = self._cold_rows_of_others(own) if has_owners else 0.0
            if self.hosts == 1:
                hot = own.unique_rows - (own.unique_cold_rows if has_owners else 0.0)
                rows.append(others * hot + 2 * pulled)
                continue
            stepped = host.unique_rows - (host.unique_cold_rows * others / near if has_owners else 0.0)
            far = (self.hosts - 1) * host.unique_rows / near
            rows.append(others / near * (own.unique_rows + self.hosts * stepped) + far + pulled)
        weights = self.dense_weights if dense else 0
        return received_bytes(rows, self._dims, dense_weights=weights, world=self.gpus, num_hosts=self.hosts)

    @property
    def network_bytes(self) -> float:
        """Bytes that a host receives in a step of the others."""
        return sum(self._network_parts)

    @property
    def _network_parts(self) -> tuple[float, float]:
        """The same of rows, and of dense gradients."""
        rows = [(self.hosts - 1) * width.unique_rows for width in self.host_work.widths]
        of_rows = network_bytes(rows, self._dims, dense_weights=0, num_hosts=self.hosts)
        return of_rows, network_bytes([], [], dense_weights=self.dense_weights, num_hosts=self.hosts)

    def exchange_parts(
        self, machine: MachineConstants, wire: WireConstants, placement: str = "device"
    ) -> dict[str, float]:
        """Seconds that a step of several GPUs takes beside what one does; empty for one.

        The exchange is taken to be as long as that of `device`, which is a bound where cold rows have owners: the owner
        alone reads their sums.
        """
        if self.gpus == 1:
            return {}
        rows, dense, barriers_of_hosts = self.received(dense=False), self.received() - self.received(dense=False), 0
        if self.hosts > 1:  # of each width and of the dense gradients; what crosses the network has its own part
            barriers_of_hosts = len(self._dims) + 1
            of_rows, of_dense = self._network_parts
            rows, dense = rows - of_rows / self.of_host, dense - of_dense / self.of_host
        sums, stepped = (
            sum(4.0 * width.embedding_dim * width.unique_rows for width in work.widths)
            for work in (self.slice_work, self.whole_work)
        )
        moved = self.of_host * sums + 2 * stepped  # sums are read, rows read and written
        parts = {
            _EXCHANGE: wire.exposed * max(rows / wire.wire_rate, moved / (wire.memory_share * machine.memory_rate)),
            _DENSE: dense / wire.wire_rate,
            _BARRIERS: (wire.barriers + barriers_of_hosts) * wire.barrier_seconds,
        }
        if self.has_owners(placement):
            pulled = sum(
                4.0 * width.embedding_dim * self._cold_rows_of_others(width) for width in self.slice_work.widths
            )
            parts[_PULL] = wire.pull_exposed * pulled / (wire.pull_share * wire.wire_rate)
        if self.gigabits is not None:
            parts[_NETWORK] = self.network_bytes / (self.gigabits * 1e9 / 8)
        return parts

    def step(self, placement: str, machine: MachineConstants, wire: WireConstants) -> tuple[float, dict[str, float]]:
        """Seconds of a step, and of its parts, the one that bounds it first."""
        work, added = self.slice_work, self.exchange_parts(machine, wire, placement)
        resident = resident_parts(work, machine)
        computing, beside = sum(resident.values()), sum(added.values())
        if placement == "tiered" and self.whole_work.cold_rows > 0:
            is_shared = self.has_owners(placement)
            staged = self.whole_work.cold_bytes / (self.of_host if is_shared else 1)
            slots = slots_beside_places(work.ring_depth) if is_shared else work.ring_depth
            streamed = stream_parts(work, machine, cold_bytes=staged, sharing=self.of_host)
            longest = max(streamed, key=lambda part: streamed[part])
            streaming = machine.stream_seconds + streamed[longest]
            slotted = machine.tiered_factor * computing + beside
            seconds, is_held = staged_seconds(slotted, streaming, slots, machine)
            bound = {TOO_FEW_SLOTS: seconds} if is_held else {longest: streaming} if streaming > slotted else {}
        else:
            streamed = {"inputs over the bus": work.input_bytes / machine.bus_rate}
            seconds, bound = max(computing + beside, *streamed.values()), {}
            if seconds > computing + beside:
                bound = streamed
        parts = {**resident, **added}
        first = next(iter(bound), max(parts, key=lambda part: parts[part]))
        everything = {**parts, **streamed, **bound}
        return seconds, {first: everything[first], **everything}

    def to_json(self, placement: str, machine: MachineConstants, wire: WireConstants) -> dict[str, Any]:
        """The predicted step under one placement, as JSON values."""
        seconds, parts = self.step(placement, machine, wire)
        inputs = self.slice_work.inputs_per_batch
        return {
            "gpus": self.gpus, "hosts": self.hosts, "network_gigabits": self.gigabits, "placement": placement,
            "batch_size": self.slice_work.settings.batch_size,
            "global_batch_size": self.whole_work.settings.batch_size,
            "unique_rows": sum(width.unique_rows for width in self.slice_work.widths),
            "unique_rows_of_all": sum(width.unique_rows for width in self.whole_work.widths),
            "received_bytes_per_input": self.received(placement) / inputs,
            "network_bytes_per_input": self.network_bytes / (self.of_host * inputs),
            "seconds": seconds, "inputs_per_second": self.gpus * inputs / seconds,
            "bound_by": next(iter(parts)), "parts": parts,
        }  # fmt: skip


def weak_groups(works: Mapping[int, StepWork], batch_size: int) -> list[GpuGroup]:
    """Groups each GPU of which has a whole batch of the recipe, so a step has as many times its inputs.

    Parameters
    ----------
    works
        The work of every batch size that `needed_sizes` names.
    """
    own = works[batch_size]
    groups = [
        GpuGroup(
            gpus=gpus, slice_work=own, host_work=works[gpus * batch_size], whole_work=works[gpus * batch_size]
        )
        for gpus in RANK_COUNTS
    ]  # fmt: skip
    gpus, host_work = HOSTS * GPUS_OF_HOST, works[GPUS_OF_HOST * batch_size]
    return groups + [
        GpuGroup(
            gpus=gpus, hosts=HOSTS, gigabits=gigabits, slice_work=own, host_work=host_work,
            whole_work=works[gpus * batch_size],
        )
        for gigabits in NETWORKS
    ]  # fmt: skip


def strong_groups(works: Mapping[int, StepWork], batch_size: int) -> list[GpuGroup]:
    """Groups of one host that cut one batch of the recipe into slices; those whose number divides it."""
    whole = works[batch_size]
    return [
        GpuGroup(gpus=gpus, slice_work=works[batch_size // gpus], host_work=whole, whole_work=whole)
        for gpus in RANK_COUNTS
        if batch_size % gpus == 0
    ]


def needed_sizes(batch_size: int) -> Sequence[int]:
    """Batch sizes whose work `weak_groups` and `strong_groups` need.

    >>> needed_sizes(12)
    [3, 6, 12, 24, 48, 96]
    """
    parts = {batch_size // gpus for gpus in RANK_COUNTS if batch_size % gpus == 0}
    return sorted(parts | {gpus * batch_size for gpus in (*RANK_COUNTS, HOSTS * GPUS_OF_HOST)})
