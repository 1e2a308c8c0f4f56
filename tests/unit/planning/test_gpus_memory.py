"""Memory of one of several GPUs in a plan: that of the training for the same batch, and what larger batches add."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from fae.artifacts.row_layout import RowLayout
from fae.embedding.placements import plan_memory
from fae.embedding.tiered import slots_beside_places
from fae.pack.packed_sizes import SplitSizes
from fae.planning.budgets.planned_hot_set import PlannedHotSet
from fae.planning.gpus_memory import larger_batches, memory_of_gpu
from fae.planning.several_gpus import GpuGroup
from fae.planning.step_work import StepWork
from step_works import FEATURES, SIZES, settings, work

HOT = (10_000, 5_000, 200, 10, 10, 3, 2, 1)
NUM_HOT, ROW = sum(HOT), 16 * 4 + 4  # row-wise Adagrad
DENSE = 10**6


def a_work(batch_size: int, unique: float, cold: float) -> StepWork:
    """Work of a batch, hot rows counted."""
    made = work(cold, unique_rows=unique, of=settings(batch_size))
    (width,) = made.widths
    return replace(made, widths=(replace(width, num_hot_rows=NUM_HOT),), num_hot=HOT)


def a_budget(depth: int = 4) -> Any:
    """What `memory_of_gpu` reads of a budget: batches of 512, 130 cold rows in the largest, 100 in a mean one."""
    hot_set = PlannedHotSet(
        layout=RowLayout(FEATURES, [16] * len(FEATURES), HOT, None), staging_rows=(130,), ring_depth=depth,
        batch_size=512, mixed=True, optimizer="rowwise_adagrad",
    )  # fmt: skip
    splits = [
        SplitSizes(
            num_batches=count, num_dense=4, is_weighted=False, most_segments=segments, most_cold_rows=(cold,),
            num_bytes=0,
        )
        for count, segments, cold in ((20, ((1000, 30),), 130), (3, (), 120))
    ]  # fmt: skip
    return SimpleNamespace(hot_set=hot_set, splits=splits, dense_bytes=DENSE, work=a_work(512, 900, 100))


def strong(gpus: int) -> GpuGroup:
    """One batch of the recipe for all."""
    whole = a_work(512, 900, 100)
    return GpuGroup(gpus=gpus, slice_work=a_work(512 // gpus, 500, 60), host_work=whole, whole_work=whole)


def weak(gpus: int, hosts: int = 1) -> GpuGroup:
    """A batch of the recipe for each; the whole one has 1,700 rows, 190 of them cold."""
    whole = a_work(512 * gpus, 1700, 190)
    return GpuGroup(
        gpus=gpus, hosts=hosts, gigabits=100 if hosts > 1 else None, slice_work=a_work(512, 900, 100),
        host_work=whole, whole_work=whole,
    )  # fmt: skip


@pytest.mark.parametrize("gpus", [1, 2, 4])
@pytest.mark.parametrize("placement", ["device", "spread", "tiered"])
def test_the_same_batch_takes_what_the_training_plans(placement: str, gpus: int) -> None:
    figures = a_budget()
    planned = plan_memory(
        placement, figures.hot_set, "rowwise_adagrad", figures.splits, on_gpu=True, dense_bytes=DENSE, world=gpus
    )  # fmt: skip
    assert memory_of_gpu(placement, figures, strong(gpus)) == planned


@pytest.mark.parametrize("gpus", [2, 4])
@pytest.mark.parametrize("depth", [2, 4])
def test_rows_of_larger_batches(gpus: int, depth: int) -> None:
    """The largest batch has 130 cold rows, and a mean one of the group has 90 more than one of the recipe: 220."""
    figures, cold = a_budget(depth), sum(SIZES) - NUM_HOT
    spread, tiered, device = (
        memory_of_gpu(placement, figures, weak(gpus)) for placement in ("spread", "tiered", "device")
    )  # fmt: skip
    assert device.device_rows == sum(SIZES) * ROW
    assert spread.device_rows == (NUM_HOT + -(-cold // gpus)) * ROW + 64 * 220
    assert spread.host_rows == device.host_rows == 0
    assert tiered.device_rows == (NUM_HOT + slots_beside_places(depth) * 220) * ROW + 64 * 220
    assert tiered.host_rows == -(-cold * ROW // gpus)
    assert tiered.device_work == device.device_work + 64 * 220, "what it offers"


def test_each_of_two_hosts_has_all_rows_once() -> None:
    figures, cold = a_budget(), sum(SIZES) - NUM_HOT
    needs, of_one_host = (memory_of_gpu("tiered", figures, weak(4, hosts)) for hosts in (2, 1))
    assert needs.device_rows == of_one_host.device_rows
    assert needs.host_rows == -(-cold * ROW // 2)
    assert of_one_host.host_rows == -(-cold * ROW // 4)
    assert needs.device_work > of_one_host.device_work, "its part of the sums of both"


def test_sizes_of_larger_batches() -> None:
    train, held_out = a_budget().splits
    base, whole = a_work(512, 900, 100), a_work(2048, 1700, 190)
    assert larger_batches(train, base, base) is train
    large = larger_batches(train, base, whole)
    assert (large.num_batches, large.most_segments, large.most_cold_rows) == (5, ((1700 + 4 * 100, 120),), (220,))
    large = larger_batches(held_out, base, whole)
    assert (large.num_batches, large.most_segments, large.most_cold_rows) == (1, (), (210,))
    every = a_work(2048, 1700, 10**6)
    assert larger_batches(train, base, every).most_cold_rows == (sum(SIZES) - NUM_HOT,)
