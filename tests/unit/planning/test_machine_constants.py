"""Constants of a machine: factors that meet what was timed, and a real measurement of this machine by tiny steps."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fae.core.errors import RecipeError
from fae.models.config import TBSMConfig
from fae.planning.dense_work import dense_work
from fae.planning.machine_constants import MachineConstants
from fae.planning.measured_constants import MARGIN, fit_factors, measure_constants
from fae.planning.step_probes import samples_in_turns, undisturbed
from fae.planning.step_time import predict_steps
from fae.planning.step_work import StepWork
from step_works import FEATURES, settings, work

CEILINGS = MachineConstants(
    source="measured", device="cuda", name="a GPU", memory_bytes=2**33, memory_rate=400e9, product_rate=30e12,
    kernel_seconds=2e-6, host_rate=10e9, bus_rate=20e9, margin=0.15,
)  # fmt: skip


def test_factors_meet_the_seconds_of_a_gpu() -> None:
    works = [work(1000), work(4000)]
    seconds = {
        "resident": 4e-4, "hybrid": 2e-3, "tiered 0": 4e-4, "streaming 0": 2e-4, "tiered 1": 7e-4, "streaming 1": 7e-4,
        "tiered, two slots": 18e-4,
    }  # fmt: skip
    machine = fit_factors(CEILINGS, works, seconds)
    few, many = (predict_steps(each, machine) for each in works)
    assert few["device"].seconds == pytest.approx(4e-4)
    assert few["hybrid"].seconds == pytest.approx(2e-3)
    assert few["tiered"].seconds == pytest.approx(4e-4)
    assert many["tiered"].seconds == pytest.approx(7e-4)
    # Half of the way from 2 to 7 between 1,000 and 4,000 cold rows.
    between = predict_steps(work(2500), machine)["tiered"]
    assert between.seconds == pytest.approx(4.5e-4)
    assert between.bound_by == "cold rows through the host"
    # With two slots streaming takes twice as long, and computing waits for it.
    assert machine.stream_latency == pytest.approx(2.0)
    assert predict_steps(replace(works[1], ring_depth=2), machine)["tiered"].seconds == pytest.approx(18e-4)


def test_factors_meet_the_seconds_of_a_cpu() -> None:
    cpu = replace(CEILINGS, device="cpu", bus_rate=0.0, memory_bytes=0)
    seconds = {"resident": 10e-3, "rows": 2e-3, "tiered 0": 10.5e-3, "streaming 0": 1e-3}
    machine = fit_factors(cpu, [work(2000)], seconds)
    steps = predict_steps(work(2000), machine)
    assert steps["cpu"].seconds == pytest.approx(10e-3)
    assert steps["cpu"].parts == pytest.approx({"dense part": 8e-3, "rows on the CPU": 2e-3})
    assert steps["tiered"].seconds == pytest.approx(10.5e-3)
    # One number of cold rows: what tiered takes longer is counted with its computing.
    assert (machine.tiered_factor, machine.unhidden) == (pytest.approx(1.05), 0.0)
    seconds |= {"tiered 1": 12.5e-3, "streaming 1": 4e-3}
    machine = fit_factors(cpu, [work(2000), work(8000)], seconds)
    assert machine.unhidden == pytest.approx(0.5)
    assert predict_steps(work(2000), machine)["tiered"].seconds == pytest.approx(11e-3)
    assert predict_steps(work(8000), machine)["tiered"].seconds == pytest.approx(12.5e-3)


def test_this_machine_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    works = [work(50), work(500)]
    machine = measure_constants("cpu", works, rounds=1)
    assert machine.source == "measured"
    assert machine.margin == MARGIN
    values = json.loads(json.dumps(machine.to_json()))
    for name in ("memory_rate", "product_rate", "host_rate"):
        assert 1e7 < values[name] < 1e14
    steps = predict_steps(works[0], machine)
    assert 0 < steps["cpu"].seconds < 60
    assert 0 < steps["tiered"].seconds < 60
    assert "plan: measured this CPU in" in capsys.readouterr().err


def test_no_work_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the work of a step"):
        measure_constants("cpu", [])


def test_samples_are_taken_in_turns() -> None:
    calls: list[str] = []

    def run(name: str) -> object:
        def of(count: int) -> float:
            calls.append(name)
            return count * 0.5

        return of

    samples = samples_in_turns({"a": run("a"), "b": run("b")}, 1.0, rounds=3, warm_up=2)  # type: ignore[dict-item]
    assert samples == {"a": [0.5] * 3, "b": [0.5] * 3}
    assert calls[-6:] == ["a", "b"] * 3
    assert undisturbed([4.0, 1.0, 1.0, 9.0, 1.5]) == 1.0


def test_operations_are_those_of_the_layers() -> None:
    # 512 inputs; bottom 4-64-16, top 16+36-64-1, dot products of 9 vectors of 16. Forward, and twice that backward, but
    # for the gradient of the dense features.
    layers = 4 * 64 + 64 * 16 + 52 * 64 + 64
    pairs = 9 * 16 * 9
    counted = dense_work(settings(), on_gpu=False)
    assert counted.flops == 2 * 512 * (3 * layers - 4 * 64 + 3 * pairs)
    assert counted.parameters == layers + 64 + 16 + 64 + 1
    folded = dense_work(settings(precision="bf16"), on_gpu=True)
    assert folded.flops == counted.flops
    assert folded.kernels < counted.kernels
    assert folded.other_bytes < counted.other_bytes / 2


def test_a_model_that_cannot_take_the_log_says_so() -> None:
    with pytest.raises(RecipeError, match="tbsm"):
        dense_work(settings(model=TBSMConfig(name="tbsm")), on_gpu=False)


def test_a_prediction_needs_no_memory_for_rows() -> None:
    huge = tuple(replace(feature, num_embeddings=2**30) for feature in FEATURES)
    step = predict_steps(replace(work(10), settings=settings(features=huge)), CEILINGS)["tiered"]
    assert step.seconds > 0
    assert torch.get_default_device().type == "cpu"
    assert np.isfinite(step.inputs_per_second)


def test_a_step_without_lookups_is_a_dense_part() -> None:
    sample = np.full((600, 8), -1, np.int32)
    step = StepWork.from_sample(settings(), sample, [0] * 8)
    assert predict_steps(step, CEILINGS)["device"].bound_by == "dense part"
