"""The cost model on a GPU: constants of this card in seconds, with which predictions meet the probes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fae.planning.measured_constants import MachineProbe, measure_constants
from fae.planning.step_probes import samples_in_turns, undisturbed
from fae.planning.step_time import predict_steps
from step_works import settings, work


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_predictions_meet_the_steps_that_were_probed(precision):
    own = settings(2048, precision=precision)
    few, many = work(300, unique_rows=4000, of=own), work(3000, unique_rows=4000, of=own)
    probe = MachineProbe("cuda", [few, replace(many, ring_depth=2)])
    samples = samples_in_turns(probe.runs, 0.05, rounds=3, warm_up=30)
    seconds = {name: undisturbed(taken) for name, taken in samples.items()}
    machine = probe.constants(seconds)
    steps = predict_steps(many, machine)
    assert steps["device"].seconds == pytest.approx(seconds["resident"])
    assert steps["hybrid"].seconds == pytest.approx(seconds["hybrid"])
    assert predict_steps(few, machine)["tiered"].seconds == pytest.approx(seconds["tiered 0"], rel=0.15)
    assert steps["tiered"].seconds == pytest.approx(seconds["tiered 1"], rel=0.15)
    short = predict_steps(replace(many, ring_depth=2), machine)["tiered"]
    assert short.seconds == pytest.approx(seconds["tiered, two slots"], rel=0.15)


def test_a_card_is_measured_in_seconds():
    machine = measure_constants("cuda", [work(300, unique_rows=900)], rounds=2)
    assert (machine.source, machine.device) == ("measured", "cuda")
    assert 1e11 < machine.memory_rate < 1e13
    assert 1e9 < machine.bus_rate < 1e12
    assert machine.memory_bytes > 2**30
