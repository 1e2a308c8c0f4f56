"""The cost model on a GPU: probes train real steps there, and the constants that are fitted meet what was timed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from fae.planning.machine_constants import MachineConstants
from fae.planning.measured_constants import MachineProbe, measure_constants
from fae.planning.step_time import predict_steps, resident_parts, stream_parts
from fae.planning.step_work import StepWork
from step_works import settings, work

RUNS = ("resident", "hybrid", "tiered 0", "streaming 0", "tiered 1", "streaming 1", "tiered, two slots")


def seconds_of_a_machine(ceilings: MachineConstants, few: StepWork, many: StepWork) -> dict[str, float]:
    """Seconds of every probe where few cold rows are hidden and many are not: no clock, but the ceilings of a card."""
    bare = replace(
        ceilings, dense_factor=1.0, rows_factor=1.0, tiered_factor=1.0, hybrid_factor=1.0, hybrid_seconds=0.0,
        stream_factor=1.0, stream_seconds=0.0, unhidden=0.0,
    )  # fmt: skip
    ideal = [max(stream_parts(each, bare).values()) for each in (few, many)]
    streaming = [ideal[0] + 2.0 * each for each in ideal]
    slotted = sum(streaming) / 2
    return {
        "resident": slotted / 1.1,
        "hybrid": 3.0 * slotted,
        "tiered 0": slotted,
        "streaming 0": streaming[0],
        "tiered 1": streaming[1],
        "streaming 1": streaming[1],
        "tiered, two slots": slotted + 1.5 * streaming[1],
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_constants_meet_the_steps_that_were_probed(precision):
    own = settings(2048, precision=precision)
    few, many = work(300, unique_rows=4000, of=own), work(3000, unique_rows=4000, of=own)
    probe = MachineProbe("cuda", [few, replace(many, ring_depth=2)])
    assert sorted(probe.runs) == sorted(RUNS)
    for name, run in probe.runs.items():
        taken = [run(count) for count in (24, 5)]  # compiled and captured, then replayed
        assert all(math.isfinite(each) and each > 0 for each in taken), name
    ceilings = probe.constants(dict.fromkeys(RUNS, 1e-3))
    seconds = seconds_of_a_machine(ceilings, few, many)
    machine = probe.constants(seconds)
    assert sum(resident_parts(many, machine).values()) == pytest.approx(seconds["resident"])
    steps = predict_steps(many, machine)
    assert steps["device"].seconds == pytest.approx(seconds["resident"])
    assert steps["hybrid"].seconds == pytest.approx(seconds["hybrid"])
    assert predict_steps(few, machine)["tiered"].seconds == pytest.approx(seconds["tiered 0"])
    assert steps["tiered"].seconds == pytest.approx(seconds["tiered 1"])
    short = predict_steps(replace(many, ring_depth=2), machine)["tiered"]
    assert short.seconds == pytest.approx(seconds["tiered, two slots"])


def test_a_card_is_measured_in_seconds():
    machine = measure_constants("cuda", [work(300, unique_rows=900)], rounds=2)
    assert (machine.source, machine.device) == ("measured", "cuda")
    assert 1e11 < machine.memory_rate < 1e13
    assert 1e9 < machine.bus_rate < 1e12
    assert machine.memory_bytes > 2**30
