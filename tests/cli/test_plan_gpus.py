"""Several GPUs in ``fae plan``: rows, lines, the verdict; and nothing of them where no GPU is in the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fae.planning import plan as plan_module
from fae.planning import target_gpu
from fae.planning.gpus_table import with_gpus
from fae.planning.machine_constants import MachineConstants
from fae.planning.stages.stage_costs import DiskRates

from commands import Done, fae, fault, succeed, write_log, write_recipe

CPU = MachineConstants(
    source="measured", device="cpu", name="a CPU of tests", memory_bytes=0, memory_rate=1e10, product_rate=1e11,
    kernel_seconds=1e-5, host_rate=1e9, bus_rate=0, margin=0.15,
)  # fmt: skip


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpus")
    write_log(folder, 3000)
    return write_recipe(folder)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU and a disk that need not be measured."""
    monkeypatch.setattr(target_gpu, "measure_constants", lambda device, works: CPU)
    monkeypatch.setattr(plan_module, "measure_disk", lambda folder: DiskRates(read=1e9, written=1e9, kept_bytes=1e10))


def plan(recipe: Path, *arguments: object, gpu: str | None = "h100") -> Done:
    device = ("--gpu", gpu) if gpu else ("--device", "cpu")
    return succeed("plan", recipe, "--out", recipe.parent / "none", *device, *arguments)


def rows(found: dict[str, Any], scaling: str, placement: str) -> list[dict[str, Any]]:
    return [row for row in found["gpus"][scaling] if row["placement"] == placement]


def test_rows_of_both_placements(recipe: Path) -> None:
    found = plan(recipe, "--json").result
    assert found["gpus"]["budget_bytes"] == 4096, "the recipe's"
    (own,) = [each for each in found["budgets"] if each["is_recipes"]]
    for placement in ("device", "tiered"):
        weak, strong = rows(found, "weak", placement), rows(found, "strong", placement)
        assert [(row["gpus"], row["network_gigabits"]) for row in weak] == [
            (1, None), (2, None), (4, None), (8, None), (8, 100), (8, 400),
        ]  # fmt: skip
        assert [row["global_batch_size"] for row in weak] == [32, 64, 128, 256, 256, 256]
        assert [row["batch_size"] for row in strong] == [32, 16, 8, 4]
        assert weak[0]["seconds"] == own["steps"][placement]["seconds"]
        assert weak[0]["memory_bytes"] == own["memory"]["on_gpu"][placement]["gpu_bytes"]
        assert weak[0]["over_one"] == strong[0]["over_one"] == 1.0
        received = [row["received_bytes_per_input"] for row in weak]
        if placement == "device":
            assert received[:4] == pytest.approx([0, received[1], 3 * received[1], 7 * received[1]])
        else:
            assert received == [row["received_bytes_per_input"] for row in rows(found, "weak", "spread")]
        assert all(row["network_bytes_per_input"] == 0 for row in weak[:4])
        assert weak[4]["network_bytes_per_input"] > 0
        assert sorted(row["unique_rows_of_all"] for row in weak) == [row["unique_rows_of_all"] for row in weak]
        for row in weak:
            assert row["over_one"] == pytest.approx(row["inputs_per_second"] / weak[0]["inputs_per_second"])
            assert row["bound_by"] in row["parts"]
    assert rows(found, "weak", "tiered")[3]["seconds"] > rows(found, "weak", "device")[3]["seconds"]


def test_rows_of_spread_rows(recipe: Path) -> None:
    """On one GPU they are those of `device`, on more of them less is on each."""
    found = plan(recipe, "--json").result
    weak, strong = rows(found, "weak", "spread"), rows(found, "strong", "spread")
    assert [row["gpus"] for row in weak] == [1, 2, 4, 8, 8, 8]
    assert [row["batch_size"] for row in strong] == [32, 16, 8, 4]
    device = rows(found, "weak", "device")
    assert weak[0] == {**device[0], "placement": "spread"}
    for own, other in zip(weak[1:], device[1:], strict=True):
        assert own["seconds"] == pytest.approx(other["seconds"] + own["parts"]["pull of rows"])
        assert own["received_bytes_per_input"] <= other["received_bytes_per_input"] * (1 + 1e-9)
        assert own["memory_bytes"] < other["memory_bytes"]
    tiered = rows(found, "weak", "tiered")
    assert tiered[1]["host_bytes"] > 0
    assert tiered[4]["host_bytes"] > tiered[3]["host_bytes"], "four ranks have what eight have together"


@pytest.mark.parametrize("gpus", [1, 4])
def test_the_verdict_says_the_row(recipe: Path, gpus: int) -> None:
    plain, named = plan(recipe, "--json").result, plan(recipe, "--json", "--gpus", gpus).result
    *sentences, last = named["verdict"]["sentences"]
    assert sentences == plain["verdict"]["sentences"]
    (row,) = [row for row in rows(named, "weak", "device") if (row["gpus"], row["hosts"]) == (gpus, 1)]
    assert last.startswith(f"{gpus} GPU{'s' * (gpus > 1)}, device, a batch of 32 on each: ")
    for text in (f"{row['inputs_per_second']:,.0f} inputs/s", f"{row['over_one']:.2f} times one"):
        assert text in last
    assert named["gpus"] == plain["gpus"]


def test_lines_fit_a_terminal(recipe: Path) -> None:
    shown = plan(recipe, "--gpus", 8).stderr
    assert max(map(len, shown.splitlines())) <= 100
    for text in (
        "device 8 ",
        "tiered 2 x 4, 400 Gb/s",
        "spread 8 ",
        "weak scaling",
        "8 GPUs, device, a batch of 32 on each",
    ):
        assert text in shown
    everything = plan(recipe, "--budget", "1GiB", "--set", "hot.budget=1GiB").stderr
    assert "tiered and spread do the same, no row is cold" in everything
    assert "tiered 8 " not in everything
    assert "spread 8 " not in everything


def test_nothing_of_them_without_a_gpu(recipe: Path) -> None:
    assert plan(recipe, "--json", gpu=None).result["gpus"] is None
    shown = plan(recipe, gpu=None).stderr
    assert "GPUs" not in shown
    assert "weak scaling" not in shown
    assert "--gpus 2 says nothing here: no GPU is in this plan" in plan(recipe, "--gpus", 2, gpu=None).stderr


def test_cores_are_those_of_a_cards_host(recipe: Path) -> None:
    eight, more = plan(recipe, "--json").result, plan(recipe, "--json", "--cores", 64).result
    assert (eight["gpu"]["host_cores"], more["gpu"]["host_cores"]) == (8, 64)
    assert more["machine"]["host_rate"] == 8 * eight["machine"]["host_rate"] == 120e9
    few, many = (rows(found, "weak", "tiered")[-3]["over_one"] for found in (eight, more))
    assert few <= many
    hybrid = [found["budgets"][0]["steps"]["hybrid"]["parts"]["rows on the CPU"] for found in (eight, more)]
    assert hybrid[0] == pytest.approx(8 * hybrid[1])
    assert "published ceilings and a host of 64 cores" in " ".join(plan(recipe, "--cores", 64).stderr.split())
    alone = plan(recipe, "--json", "--cores", 64, gpu=None).result
    assert (alone["gpu"]["host_cores"], alone["machine"]["host_rate"]) == (None, 1e9), "this machine is measured"


def test_a_number_without_a_row(recipe: Path) -> None:
    fault(fae("plan", recipe, "--gpu", "h100", "--gpus", 3), "--gpus 3 must be 1, 2, 4 or 8")


@pytest.mark.parametrize(
    ("device_fits", "spread_fits", "is_said"), [(False, True, True), (True, True, False), (False, False, False)]
)
def test_it_says_that_all_rows_fit_the_gpus_together(
    device_fits: bool, spread_fits: bool, is_said: bool, recipe: Path
) -> None:
    found = plan(recipe, "--json").result
    found["verdict"]["placement"] = "tiered"
    for placement, fits in (("device", device_fits), ("spread", spread_fits)):
        rows(found, "weak", placement)[1]["fits"] = fits
    said = with_gpus(found, 2)["verdict"]["sentences"][-1]
    assert said.startswith("2 GPUs, tiered, ")
    assert (" All rows fit 2 GPUs together, with placement = spread: " in said) == is_said
    assert "All rows" not in with_gpus(found, 1)["verdict"]["sentences"][-1]


def test_times_are_not_those_of_slices(recipe: Path) -> None:
    said = "times of a training without [train] reproducible"
    for value in ("true", "false"):
        words = " ".join(plan(recipe, "--set", f"train.reproducible={value}").stderr.split())
        assert (said in words) == (value == "true")
