"""Measure a machine's constants for a recipe in seconds: its ceilings, and steps of the recipe's own model."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence

import torch

from fae.core.host_memory import available_bytes
from fae.core.progress import say
from fae.planning import measured_ceilings as ceilings
from fae.planning.machine_constants import MachineConstants
from fae.planning.probe_batches import probe_batches
from fae.planning.step_probes import Run, StepProbe, samples_in_turns, undisturbed, warm_up_steps
from fae.planning.step_time import hybrid_parts, resident_parts, stream_parts
from fae.planning.step_work import StepWork
from fae.training.step import Precision

MARGIN = 0.15
"""How far predictions from constants measured here may be off: docs/results/plan.md."""

_MOST_ROW_BYTES = 2**29
_PROBE_INPUTS, _PROBE_LOOKUPS = 2**18, 2**24
_FEWEST_BATCHES, _MOST_BATCHES = 2, 64
_DEEP_RING = 8
_LEAST_FACTOR = 0.25
"""Gathering rows is at most so much faster than torch's own gather, by which the ceiling is measured."""
_APART = 1.2
"""Streaming is timed at two numbers of cold rows where the larger is more than this many times the smaller."""


def measure_constants(device: str | torch.device, works: Sequence[StepWork], *, rounds: int = 5) -> MachineConstants:
    """Measure the constants of this machine for one recipe, in some ten seconds, half of which compile kernels.

    Parameters
    ----------
    device
        Where the model will be.
    works
        The steps that will be predicted, of one recipe: streaming is timed at the most and at the fewest cold rows.
    rounds
        Samples of each probe; the lower quartile counts.

    Raises
    ------
    RecipeError
        If the model cannot take the features of the log.
    ValueError
        If `works` is empty.
    """
    started = time.monotonic()
    probe = MachineProbe(device, works)
    samples = samples_in_turns(probe.runs, probe.sample_seconds, rounds=rounds, warm_up=warm_up_steps(probe.device))
    machine = probe.constants({name: undisturbed(taken) for name, taken in samples.items()})
    say(f"plan: measured {machine.name} in {time.monotonic() - started:.0f} s, with steps of the recipe's own model")
    return machine


class MachineProbe:
    """Ceilings of this machine, and steps of a recipe that are ready to be timed.

    Attributes
    ----------
    device
        Where the model is.
    runs
        ``resident``, ``rows`` on a CPU, ``hybrid`` on a GPU, ``tiered N`` and ``streaming N`` with N from 0 by the
        number of cold rows, and ``tiered, two slots``: each trains that many steps and returns the seconds.
    sample_seconds
        A good length of a sample.
    """

    def __init__(self, device: str | torch.device, works: Sequence[StepWork]) -> None:
        if not works:
            raise ValueError("a probe needs the work of a step")
        self.device = torch.device(device)
        on_gpu, settings = self.device.type == "cuda", works[0].settings
        self.sample_seconds = 0.15 if on_gpu else 0.4
        streaming = sorted((work for work in works if work.cold_rows >= 1), key=lambda work: work.cold_rows)
        self._works = streaming[-1:] or list(works[:1])
        if streaming and streaming[-1].cold_rows > _APART * streaming[0].cold_rows:
            self._works = [streaming[0], streaming[-1]]
        self._ceilings = machine_ceilings(self.device, settings.precision)
        most = min(_PROBE_INPUTS, _PROBE_LOOKUPS // settings.num_slots) // settings.batch_size
        number = max(_FEWEST_BATCHES, min(_MOST_BATCHES, most))
        # With slots to spare; a ring of two is timed by itself.
        deep = [dataclasses.replace(work, ring_depth=_DEEP_RING) for work in self._works]
        made = [probe_batches(work, number, self._most_bytes()) for work in deep]
        resident = StepProbe(settings, "device" if on_gpu else "cpu", *made[-1], self.device)
        self.runs: dict[str, Run] = {"resident": resident.whole_steps}
        if on_gpu:
            self.runs["hybrid"] = StepProbe(settings, "hybrid", *made[-1], self.device).whole_steps
        else:
            self.runs["rows"] = resident.rows
        for index, (batches, hot_set) in enumerate(made if streaming else ()):
            tiered = StepProbe(settings, "tiered", batches, hot_set, self.device)
            self.runs[f"tiered {index}"] = tiered.whole_steps
            self.runs[f"streaming {index}"] = tiered.streaming
        if streaming and any(work.ring_depth < _DEEP_RING for work in works):
            batches, hot_set = made[-1]
            two_slots = dataclasses.replace(hot_set, ring_depth=2)
            self.runs["tiered, two slots"] = StepProbe(settings, "tiered", batches, two_slots, self.device).whole_steps

    def _most_bytes(self) -> int:
        """Bytes of rows of one probe: beyond any cache, and a part of what is free."""
        most = min(_MOST_ROW_BYTES, available_bytes() // 16)
        return min(most, torch.cuda.mem_get_info(self.device)[0] // 8) if self.device.type == "cuda" else most

    def constants(self, seconds: Mapping[str, float]) -> MachineConstants:
        """The constants at which the cost model meets these seconds a step, by the names of `runs`."""
        return fit_factors(self._ceilings, self._works, seconds)


def machine_ceilings(device: torch.device, precision: Precision) -> MachineConstants:
    """The ceilings of this machine, measured; factors are still 1."""
    on_gpu = device.type == "cuda"
    return MachineConstants(
        source="measured",
        device="cuda" if on_gpu else "cpu",
        name=torch.cuda.get_device_name(device) if on_gpu else "this CPU",
        memory_bytes=torch.cuda.get_device_properties(device).total_memory if on_gpu else 0,
        memory_rate=ceilings.memory_rate(device),
        product_rate=ceilings.product_rate(device, precision),
        kernel_seconds=ceilings.kernel_seconds(device),
        host_rate=ceilings.host_rate(),
        bus_rate=ceilings.bus_rate(device),
        margin=MARGIN,
    )


def fit_factors(machine: MachineConstants, works: Sequence[StepWork], seconds: Mapping[str, float]) -> MachineConstants:
    """The machine with factors at which the model meets these seconds.

    Parameters
    ----------
    works
        The steps that were timed, by ascending number of cold rows.
    seconds
        ``resident``; ``rows`` on a CPU; ``hybrid`` on a GPU; ``tiered N`` and ``streaming N`` where steps streamed;
        ``tiered, two slots`` where a ring may be short, at the most cold rows.
    """
    bare = dataclasses.replace(
        machine, dense_factor=1.0, rows_factor=1.0, tiered_factor=1.0, hybrid_factor=1.0, hybrid_seconds=0.0,
        stream_factor=1.0,
        stream_seconds=0.0,
    )  # fmt: skip
    on_gpu, last = machine.device == "cuda", works[-1]
    dense, rows = resident_parts(last, bare).values()
    whole = seconds["resident"]
    if on_gpu:
        machine = dataclasses.replace(machine, dense_factor=whole / (dense + rows), rows_factor=whole / (dense + rows))
        one_after_the_other = sum(hybrid_parts(last, dataclasses.replace(machine, hybrid_factor=1.0)).values())
        machine = dataclasses.replace(machine, hybrid_factor=seconds["hybrid"] / one_after_the_other)
    else:
        of_rows = min(seconds["rows"], 0.95 * whole)
        machine = dataclasses.replace(machine, rows_factor=of_rows / rows, dense_factor=(whole - of_rows) / dense)
    if "tiered 0" not in seconds:
        return machine
    return _fit_streaming(machine, bare, works, seconds)


def _fit_streaming(
    machine: MachineConstants, bare: MachineConstants, works: Sequence[StepWork], seconds: Mapping[str, float]
) -> MachineConstants:
    ideal = [max(stream_parts(work, bare).values()) for work in works]
    # Streaming can be faster beside steps than alone, where its threads fall asleep between batches.
    alone = [min(seconds[f"streaming {index}"], seconds[f"tiered {index}"]) for index in range(len(works))]
    factor, fixed = alone[-1] / ideal[-1], 0.0
    if len(works) > 1 and ideal[-1] > ideal[0]:
        slope = max(_LEAST_FACTOR, (alone[-1] - alone[0]) / (ideal[-1] - ideal[0]))
        if slope < factor:
            factor, fixed = slope, alone[-1] - slope * ideal[-1]
    machine = dataclasses.replace(machine, stream_factor=factor, stream_seconds=fixed)
    computing = sum(resident_parts(works[-1], machine).values())
    streaming = [fixed + factor * each for each in ideal]
    # The fewest cold rows are taken to be hidden; what the most add beside the longer of both is not. More of them make
    # no step shorter, so where they seem to, it is noise.
    last = len(works) - 1
    shortest = min(seconds["tiered 0"], seconds[f"tiered {last}"])
    slotted = shortest if streaming[0] < shortest else computing
    over = seconds[f"tiered {last}"] - max(slotted, streaming[last])
    unhidden = min(1.0, max(0.0, over / min(slotted, streaming[last])))
    machine = dataclasses.replace(machine, tiered_factor=slotted / computing, unhidden=unhidden)
    if "tiered, two slots" in seconds:
        latency = (seconds["tiered, two slots"] - slotted) / streaming[last]
        machine = dataclasses.replace(machine, stream_latency=max(1.0, latency))
    return machine
