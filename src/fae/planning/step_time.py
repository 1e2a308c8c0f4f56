"""The cost model: predicted time of a step of each placement, from the work of the step and a machine's constants.

Work over ceiling, times the factor of the part; docs/internals/cost_model.md has the formulas and how well they hold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from fae.core.optimizers import row_bytes
from fae.planning.dense_work import DenseWork, dense_work
from fae.planning.machine_constants import MachineConstants
from fae.planning.step_work import StepWork

TOO_FEW_SLOTS = "too few staging slots"
"""What bounds a step whose batches wait for a slot: a larger budget has more of them."""
_HELD = 1.05
"""Slots bound a step where waiting for them makes it longer by more than a twentieth."""
_ROW_KERNELS = 6
"""Kernels of lookup and update on a GPU, for each width of rows."""


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Predicted time of one mean step.

    Attributes
    ----------
    placement
        As ``[train] placement`` spells it.
    seconds
        Time of a step.
    inputs_per_second
        Rate of training, real inputs alone.
    bound_by
        The part that takes longest, in words.
    parts
        Seconds of every part, by its words; parts that run beside each other are not a sum.
    margin
        Share by which `seconds` may be off.
    """

    placement: str
    seconds: float
    inputs_per_second: float
    bound_by: str
    parts: Mapping[str, float]
    margin: float

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest inputs/s within the margin."""
        return self.inputs_per_second / (1.0 + self.margin), self.inputs_per_second / max(0.1, 1.0 - self.margin)


def predict_steps(work: StepWork, machine: MachineConstants) -> dict[str, StepTime]:
    """Predict the time of a step under every placement that differs on this machine.

    Returns
    -------
    dict of str to StepTime
        ``tiered``, ``device`` and ``hybrid`` on a GPU; ``tiered`` and ``cpu`` on a CPU, where `device` and `hybrid` do
        what `cpu` does.

    Raises
    ------
    RecipeError
        If the model cannot take the features of the log.
    """
    on_gpu = machine.device == "cuda"
    resident = resident_parts(work, machine)
    streamed = stream_parts(work, machine)
    longest = max(streamed, key=lambda part: streamed[part])
    computing, streaming = sum(resident.values()), machine.stream_seconds + streamed[longest]
    made = {}

    def add(placement: str, seconds: float, parts: Mapping[str, float], bound_by: str | None = None) -> None:
        made[placement] = StepTime(
            placement=placement,
            seconds=seconds,
            inputs_per_second=work.inputs_per_batch / seconds,
            bound_by=bound_by or max(resident if placement == "tiered" else parts, key=lambda part: parts[part]),
            parts=dict(parts),
            margin=machine.margin,
        )

    if work.cold_rows > 0:
        slotted = machine.tiered_factor * computing
        seconds, is_held = staged_seconds(slotted, streaming, work.ring_depth, machine)
        bound = {TOO_FEW_SLOTS: seconds} if is_held else {longest: streaming} if streaming > slotted else {}
        add("tiered", seconds, {**streamed, **resident, **bound}, next(iter(bound), None))
    if not on_gpu:
        add("cpu", computing, resident)
        made.setdefault("tiered", dataclasses.replace(made["cpu"], placement="tiered"))
        return made
    inputs = work.input_bytes / machine.bus_rate
    add("device", max(computing, inputs), {**resident, "inputs over the bus": inputs})
    made.setdefault("tiered", dataclasses.replace(made["device"], placement="tiered"))
    hybrid = hybrid_parts(work, machine)
    add("hybrid", machine.hybrid_seconds + sum(hybrid.values()), hybrid)
    return made


def staged_seconds(slotted: float, streaming: float, ring_depth: int, machine: MachineConstants) -> tuple[float, bool]:
    """Time of a step whose cold rows are staged, and whether it waits for slots more than a little.

    A slot is taken from the gather of its rows until they are back: one batch computes, the others are under way.
    """
    held = (slotted + machine.stream_latency * streaming) / max(1, ring_depth - 1)
    side_by_side = overlapped(slotted, streaming, machine.unhidden)
    return max(held, side_by_side), held > _HELD * side_by_side


def overlapped(computing: float, streaming: float, unhidden: float) -> float:
    """Time of two things that run beside each other, of which the shorter is hidden but for the share `unhidden`.

    >>> overlapped(3.0, 2.0, 0.0), overlapped(3.0, 2.0, 0.5), overlapped(3.0, 2.0, 1.0)
    (3.0, 4.0, 5.0)
    """
    return max(computing, streaming) + unhidden * min(computing, streaming)


def ideal_dense(work: DenseWork, machine: MachineConstants) -> float:
    """Seconds of the dense part at the machine's ceilings."""
    return work.seconds(machine.product_rate, machine.memory_rate, machine.kernel_seconds)


def touched_bytes(work: StepWork) -> float:
    """Bytes that lookup and update of a step read and write, rows as if none was cached."""
    total = 3.0 * work.pooled_bytes
    for width in work.widths:
        dim = width.embedding_dim
        total += width.lookups * (8.0 + 8.0 * dim)
        total += 2.0 * width.unique_rows * row_bytes(work.settings.optimizer, dim)
    return total


def resident_parts(work: StepWork, machine: MachineConstants) -> dict[str, float]:
    """Seconds of the parts of a step whose rows are all where the model is."""
    on_gpu = machine.device == "cuda"
    dense = machine.dense_factor * ideal_dense(dense_work(work.settings, on_gpu=on_gpu), machine)
    fixed = _ROW_KERNELS * len(work.widths) * machine.kernel_seconds
    rate = machine.memory_rate if on_gpu else machine.host_rate
    rows = machine.rows_factor * (touched_bytes(work) / rate + fixed)
    return {"dense part": dense, f"rows on the {'GPU' if on_gpu else 'CPU'}": rows}


def stream_parts(
    work: StepWork, machine: MachineConstants, *, cold_bytes: float | None = None, sharing: int = 1
) -> dict[str, float]:
    """Seconds that the cold rows of a step take: each is read and written on the host twice, and goes both ways.

    Parameters
    ----------
    cold_bytes
        Bytes of these rows, where they are not those of `work` alone.
    sharing
        GPUs that stage as many through the same host.
    """
    cold_bytes = work.cold_bytes if cold_bytes is None else cold_bytes
    through_host = machine.stream_factor * 4.0 * sharing * cold_bytes / machine.host_rate
    parts = {"cold rows through the host": through_host}
    if machine.bus_rate:
        moved = cold_bytes + work.input_bytes
        parts["cold rows over the bus"] = machine.stream_factor * moved / machine.bus_rate
    return parts


def hybrid_parts(work: StepWork, machine: MachineConstants) -> dict[str, float]:
    """Seconds of the parts of a step of `hybrid`, one after the other."""
    dense = machine.dense_factor * ideal_dense(dense_work(work.settings, on_gpu=True), machine)
    return {
        "rows on the CPU": machine.hybrid_factor * touched_bytes(work) / machine.host_rate,
        "pooled rows over the bus": machine.hybrid_factor * 2.0 * work.pooled_bytes / machine.bus_rate,
        "dense part": machine.hybrid_factor * dense,
    }
