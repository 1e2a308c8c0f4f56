"""Verdicts: which budget and why, or why FAE is not needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fae.artifacts.columnar_log import FeatureSchema
from fae.embedding.memory_plan import SPARE_BYTES, MemoryPlan
from fae.planning.budgets.budget_ladder import budget_ladder
from fae.planning.budgets.sampled_shares import Share
from fae.planning.step_time import StepTime
from fae.planning.verdict import Verdict, decide, fits_gpu

MIB = 2**20
ROWS = 1_000_000


def budget(size_mib: int, *, coverage: float, share: float, hot: float | None = None, all_mib: int = 8192) -> Any:
    """The figures of a budget that a verdict reads; 100 MiB lie beside the rows."""
    beside = {"device_inputs": 60 * MIB, "device_work": 40 * MIB, "host_buffers": 0}
    num_hot = int(ROWS * (size_mib / all_mib if hot is None else hot))
    return SimpleNamespace(
        budget=size_mib * MIB, num_hot=num_hot, coverage=Share.exactly(coverage), input_share=Share.exactly(share),
        hot_set=SimpleNamespace(layout=SimpleNamespace(features=[FeatureSchema(name="a", num_embeddings=ROWS)])),
        work=SimpleNamespace(inputs_per_batch=1000),
        on_gpu={
            "tiered": MemoryPlan(device_rows=size_mib * MIB, host_rows=(all_mib - size_mib) * MIB, **beside),
            "hybrid": MemoryPlan(device_rows=0, host_rows=all_mib * MIB, **beside),
            "device": MemoryPlan(device_rows=all_mib * MIB, host_rows=0, **beside),
        },
    )  # fmt: skip


def time(placement: str, milliseconds: float, **parts: float) -> StepTime:
    parts = parts or {"rows on the GPU": milliseconds}
    return StepTime(
        placement=placement, seconds=milliseconds / 1000, inputs_per_second=1e6 / milliseconds,
        bound_by=max(parts, key=lambda part: parts[part]).replace("_", " "),
        parts={name.replace("_", " "): part / 1000 for name, part in parts.items()}, margin=0.15,
    )  # fmt: skip


BUDGETS = [
    budget(64, coverage=0.7, share=0.2), budget(256, coverage=0.9, share=0.6), budget(1024, coverage=0.97, share=0.9),
    budget(4096, coverage=0.99, share=0.95), budget(8192, coverage=1.0, share=1.0),
]  # fmt: skip
TIMES = [
    {"tiered": time("tiered", tiered), "hybrid": time("hybrid", 20.0), "device": time("device", 5.0)}
    for tiered in (12.0, 6.0, 5.05, 5.0, 5.0)
]


def verdict(memory: int | None, budgets: Any = BUDGETS, times: Any = TIMES, *, on_gpu: bool = True) -> Verdict:
    return decide(
        budgets, times, gpu_memory=None if memory is None else memory * MIB, on_gpu=on_gpu, all_rows=8192 * MIB
    )


def test_the_knee_is_the_smallest_budget_that_is_as_fast() -> None:
    found = verdict(8000)
    assert (found.answer, found.budget, found.placement) == ("use a budget", 1024 * MIB, "tiered")
    text = " ".join(found.sentences)
    assert "Give it a budget of 1.0 GiB" in text
    assert "4.0 GiB would be 1.0 % faster" in text
    assert "256.0 MiB would be 15.8 % slower" in text


def test_only_budgets_that_fit_the_gpu_count() -> None:
    found = verdict(1000)
    assert found.budget == 256 * MIB
    assert "1.0 GiB" not in " ".join(found.sentences)
    assert fits_gpu(BUDGETS[1], "tiered", 1000 * MIB)
    assert not fits_gpu(BUDGETS[2], "tiered", 1000 * MIB)
    assert fits_gpu(BUDGETS[2], "tiered", None)
    exact = (1024 + 100) * MIB + SPARE_BYTES
    assert fits_gpu(BUDGETS[2], "tiered", exact)
    assert not fits_gpu(BUDGETS[2], "tiered", exact - 1)


def test_where_all_rows_fit_there_is_no_need() -> None:
    found = verdict(10_000)
    assert (found.answer, found.budget, found.placement) == ("all rows fit", None, "device")
    assert found.sentences[0].startswith("You do not need FAE")
    assert not found.to_json()["needs_fae"]


def test_where_the_skew_is_flat_there_is_no_use() -> None:
    budgets = [budget(64, coverage=0.01, share=0.0), budget(1024, coverage=0.14, share=0.001)]
    times = [{"tiered": time("tiered", 30.0), "hybrid": time("hybrid", 20.0)}] * 2
    found = verdict(4000, budgets, times)
    assert (found.answer, found.placement) == ("skew too flat", "hybrid")
    assert "serves only 14.0 % of the lookups" in found.sentences[0]


@pytest.mark.parametrize(("hybrid", "answer"), [(20.3, "skew too flat"), (21.0, "use a budget")])
def test_no_budget_without_hot_rows_is_advised_for_a_gain_within_the_knee(hybrid: float, answer: str) -> None:
    budgets = [budget(64, coverage=0.0, share=0.0, hot=0.0), budget(128, coverage=0.0, share=0.0, hot=0.0)]
    times = [{"tiered": time("tiered", 20.0), "hybrid": time("hybrid", hybrid)}] * 2
    assert verdict(4000, budgets, times).answer == answer


def test_where_the_dense_part_dominates_there_is_no_use() -> None:
    parts = {"rows_on_the_CPU": 2.0, "dense_part": 50.0}
    times = [{"tiered": time("tiered", 53.0), "hybrid": time("hybrid", 52.0, **parts)}] * 3
    found = verdict(4000, BUDGETS[:3], times)
    assert (found.answer, found.placement) == ("dense part dominates", "hybrid")
    assert "96.2 % of a step" in found.sentences[0]


def test_a_gpu_that_is_too_small() -> None:
    found = verdict(600)
    assert (found.answer, found.budget, found.placement) == ("too small", None, None)
    assert "64.0 MiB, takes 676.0 MiB" in found.sentences[0]


@pytest.mark.parametrize("times", [[], [{"tiered": time("tiered", 9), "cpu": time("cpu", 9)}] * 5])
def test_without_a_gpu_the_budget_for_one_is_named_too(times: Any) -> None:
    found = verdict(None, times=times, on_gpu=False)
    assert (found.answer, found.placement) == ("no GPU", "cpu")
    text = " ".join(found.sentences)
    assert "A GPU with 8.6 GiB of memory holds all rows, and you do not need FAE." in text
    assert [verdict(mib).answer for mib in (8803, 8804)] == ["use a budget", "all rows fit"]  # 8.6 GiB
    assert "smaller GPU" not in text, "the advised budget holds all rows"
    assert "--gpu NAME" in text
    text = " ".join(
        verdict(None, [*BUDGETS, budget(9000, coverage=1.0, share=1.0, all_mib=9000)], [], on_gpu=False).sentences
    )
    assert "With a smaller GPU: Give it a budget of 8.0 GiB" in text


def test_without_times_the_share_decides() -> None:
    assert verdict(5000, times=[]).budget == 4096 * MIB
    assert verdict(3000, times=[]).budget == 1024 * MIB


@pytest.mark.parametrize(("smallest", "all_rows"), [(10**4, 10**7), (700, 2500), (10**6, 10**12), (5000, 5600)])
def test_a_ladder_has_six_steps_from_the_smallest_to_all(smallest: int, all_rows: int) -> None:
    found = budget_ladder(smallest, all_rows, [all_rows // 3, 10**15])
    assert 6 <= len(found) <= 10
    assert found == sorted(set(found))
    assert smallest <= found[0] <= 1.03 * smallest
    assert found[-1] == all_rows
    assert all_rows // 3 in found or all_rows // 3 < smallest


def test_where_nothing_smaller_trains_there_is_one_budget() -> None:
    assert budget_ladder(900, 900, [500]) == [900]
