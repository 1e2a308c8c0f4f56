"""What a machine can do, as the cost model needs it: ceilings, and how near the parts of a step get to them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class MachineConstants:
    """Ceilings of a machine, and factors: seconds that a part takes over those that its ceiling allows.

    Where they are measured, factors are those of the recipe's own step, so its time is met at the batch size that was
    probed; ceilings carry it to other budgets and batch sizes.

    Attributes
    ----------
    source
        ``measured`` here, or ``published``: ceilings from a data sheet, factors measured on other cards.
    device
        Where the model is: ``cpu`` or ``cuda``.
    name
        The card's or the CPU's, for people.
    memory_bytes
        Memory of the card; 0 on a CPU.
    memory_rate
        Bytes/s that the device reads and writes its memory with.
    product_rate
        Operations/s of matrix products in the precision of the step.
    kernel_seconds
        Seconds that a kernel, on a CPU an operator, takes however small it is.
    host_rate
        Bytes/s that the host's threads read and write single rows with, beside each other.
    bus_rate
        Bytes/s from the host to the card, and as many back at the same time; 0 on a CPU.
    dense_factor
        Factor of the dense part.
    rows_factor
        Factor of lookup and update where the device does them.
    tiered_factor
        Factor of computing under `tiered`, over that of `device` or `cpu`: rows are found through slots.
    hybrid_seconds, hybrid_factor
        Seconds that a step of `hybrid` takes beside its parts, and the factor of these parts.
    stream_seconds
        Seconds a step that streaming takes without any cold row.
    stream_factor
        Factor of what cold rows add to streaming.
    stream_latency
        Time from the gather of a batch's cold rows until they are back in host memory, without its step, over the time
        that streaming takes a batch: several batches are on their way at once.
    unhidden
        Share of the shorter of computing and streaming that does not disappear behind the longer one: near 0 where the
        host has cores for both, 1 where they take turns. With slots to spare; see `stream_latency`.
    margin
        Share by which a prediction may be off.
    """

    source: Literal["measured", "published"]
    device: Literal["cpu", "cuda"]
    name: str
    memory_bytes: int
    memory_rate: float
    product_rate: float
    kernel_seconds: float
    host_rate: float
    bus_rate: float
    dense_factor: float = 1.0
    rows_factor: float = 1.0
    tiered_factor: float = 1.0
    hybrid_seconds: float = 0.0
    hybrid_factor: float = 1.0
    stream_seconds: float = 0.0
    stream_factor: float = 1.0
    stream_latency: float = 1.0
    unhidden: float = 0.0
    margin: float

    def to_json(self) -> dict[str, Any]:
        """All values by name, for ``--json``; units are those of the attributes."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class WireConstants:
    """What GPUs of one host take to exchange sums, in every step.

    From one rank of two alone on an H200, whose exchange of 219,000 rows takes 28 us (16 floats a row) and 70 us (64),
    and one of four (42 and 138 us); NVLink and barriers from 2 and 4 H100 of one host (docs/internals/cost_model.md).

    Attributes
    ----------
    wire_rate
        Bytes/s that one GPU reads of the memory of others.
    is_nvlink
        Whether that is NVLink; else the bus is taken.
    barrier_seconds, barriers
        Seconds of a barrier between GPUs, and how many of them a step waits for.
    memory_share
        Share of the rate of the card's own memory that the exchange reaches, where the wire is not slower.
    exposed
        Share of the exchange of rows that the rest of the step does not hide.
    pull_share
        Share of `wire_rate` at which a GPU reads single rows of other GPUs into a buffer of its own, as `spread` and
        `tiered` do before a lookup. Measured by a probe and not in a training: 131,000 different rows, three quarters
        of them on the other three of four H200, took 36 us over NVLink at 16 floats a row and 132 us at 64, where this
        share gives 36 and 144.
    pull_exposed
        Share of the pull that the rest of the step does not hide: it runs beside the dense layers before the
        interaction. In a training on two H200 at 16 floats a row a step of `spread` took 1 us more than one of
        `device`, and the pull is 4.5 us by the formula (`ranks_cold_h200_20261129.json`).
    """

    wire_rate: float
    is_nvlink: bool
    barrier_seconds: float = 5e-6
    barriers: int = 2
    memory_share: float = 0.45
    exposed: float = 0.7
    pull_share: float = 0.5
    pull_exposed: float = 0.3

    def to_json(self) -> dict[str, Any]:
        """All values by name, for ``--json``; units are those of the attributes."""
        return dataclasses.asdict(self)
