"""The cost model: what bounds a step, and how its time follows cold rows, bandwidth, batch size and placement."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fae.planning.machine_constants import MachineConstants
from fae.planning.step_time import StepTime, predict_steps
from step_works import settings, work

GPU = MachineConstants(
    source="published", device="cuda", name="a GPU", memory_bytes=2**33, memory_rate=400e9, product_rate=30e12,
    kernel_seconds=2e-6, host_rate=10e9, bus_rate=20e9, margin=0.5,
)  # fmt: skip
CPU = replace(GPU, device="cpu", memory_bytes=0, memory_rate=20e9, product_rate=1e11, host_rate=5e9, bus_rate=0.0)


def tiered(cold_rows: float, machine: MachineConstants = GPU) -> StepTime:
    return predict_steps(work(cold_rows, unique_rows=max(900.0, cold_rows)), machine)["tiered"]


def test_placements_of_a_gpu_and_of_a_cpu() -> None:
    assert set(predict_steps(work(100), GPU)) == {"tiered", "device", "hybrid"}
    assert set(predict_steps(work(100), CPU)) == {"tiered", "cpu"}
    for machine in (GPU, CPU):
        for placement, step in predict_steps(work(100), machine).items():
            assert step.placement == placement
            assert step.inputs_per_second == pytest.approx(512 / step.seconds)
            assert step.bound_by in step.parts
            low, high = step.range
            assert low < step.inputs_per_second < high


def test_few_cold_rows_are_hidden_and_many_bound_the_step() -> None:
    few, more, many = tiered(10), tiered(100), tiered(40_000)
    assert few.seconds == more.seconds == predict_steps(work(0), GPU)["device"].seconds
    assert few.bound_by == "dense part"
    assert many.bound_by == "cold rows through the host"
    # Beyond the crossing, time follows the bytes of the cold rows.
    assert tiered(80_000).seconds == pytest.approx(2 * many.seconds, rel=1e-6)
    slow_bus = replace(GPU, bus_rate=0.5e9)
    assert tiered(40_000, slow_bus).bound_by == "cold rows over the bus"
    assert tiered(40_000, slow_bus).seconds > many.seconds


def test_what_is_not_hidden_is_added() -> None:
    half = replace(GPU, unhidden=0.5)
    streaming = max(part for name, part in tiered(100).parts.items() if name.startswith("cold rows"))
    assert tiered(100, half).seconds == pytest.approx(tiered(100).seconds + streaming / 2)


def test_without_cold_rows_tiered_is_device() -> None:
    steps = predict_steps(work(0), GPU)
    assert steps["tiered"].seconds == steps["device"].seconds
    assert predict_steps(work(0), CPU)["tiered"].seconds == predict_steps(work(0), CPU)["cpu"].seconds


def test_hybrid_follows_host_and_bus() -> None:
    step = predict_steps(work(100), GPU)["hybrid"]
    assert step.seconds == pytest.approx(sum(step.parts.values()))
    slower = predict_steps(work(100), replace(GPU, host_rate=5e9))["hybrid"]
    assert slower.parts["rows on the CPU"] == pytest.approx(2 * step.parts["rows on the CPU"])
    bus = predict_steps(work(100), replace(GPU, bus_rate=10e9))["hybrid"]
    assert bus.parts["pooled rows over the bus"] == pytest.approx(2 * step.parts["pooled rows over the bus"])
    assert predict_steps(work(100), replace(GPU, bus_rate=10e9))["device"].seconds == pytest.approx(
        predict_steps(work(100), GPU)["device"].seconds
    )


def test_wide_layers_are_bound_by_products_and_thin_ones_by_memory() -> None:
    model = settings().model
    wide = settings(precision="bf16", model=replace(model, top_mlp=(4096, 4096)))
    of_wide = work(0, of=wide)
    base = predict_steps(of_wide, GPU)["device"].seconds
    assert predict_steps(of_wide, replace(GPU, product_rate=15e12))["device"].seconds > 1.5 * base
    thin = predict_steps(work(0), GPU)["device"].seconds
    assert predict_steps(work(0), replace(GPU, product_rate=15e12))["device"].seconds < 1.1 * thin


def test_inputs_of_large_batches_can_wait_for_the_bus() -> None:
    step = predict_steps(work(0), replace(GPU, bus_rate=1e7))["device"]
    assert step.bound_by == "inputs over the bus"
    assert step.seconds == pytest.approx(step.parts["inputs over the bus"])


def test_a_short_ring_makes_computing_and_streaming_take_turns() -> None:
    machine = replace(GPU, stream_latency=2.0)
    deep, short = work(2000, unique_rows=2000), replace(work(2000, unique_rows=2000), ring_depth=2)
    side_by_side = predict_steps(deep, machine)["tiered"]
    one_by_one = predict_steps(short, machine)["tiered"]
    computing = predict_steps(deep, machine)["device"].seconds
    streaming = max(part for name, part in side_by_side.parts.items() if name.startswith("cold rows"))
    assert side_by_side.seconds == max(computing, streaming)
    assert one_by_one.seconds == pytest.approx(computing + 2.0 * streaming)
    assert one_by_one.bound_by == "too few staging slots"
    three = predict_steps(replace(short, ring_depth=3), machine)["tiered"]
    assert three.seconds == pytest.approx(max(side_by_side.seconds, one_by_one.seconds / 2))
