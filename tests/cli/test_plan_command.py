"""``fae plan``: what it says is what a run finds, and it leaves no trace."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

import fae as package
from fae.artifacts.hot_set import HotSet
from fae.artifacts.packed import PackedDataset
from fae.embedding.placements import plan_memory
from fae.models.registry import sketch_model
from fae.planning import plan as plan_module
from fae.planning import target_gpu
from fae.planning.machine_constants import MachineConstants
from fae.planning.plan_text import plan_lines
from fae.planning.stages.stage_costs import DiskRates
from fae.run.recipe import load_recipe
from fae.training.dense import dense_bytes

from commands import Done, contents, fae, fault, succeed, write_log, write_recipe

CONSTANTS = MachineConstants(
    source="measured", device="cpu", name="a CPU of tests", memory_bytes=0, memory_rate=1e10, product_rate=1e11,
    kernel_seconds=1e-5, host_rate=1e9, bus_rate=0, margin=0.15,
)  # fmt: skip


@pytest.fixture(autouse=True)
def constants(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that need not be measured."""
    monkeypatch.setattr(target_gpu, "measure_constants", lambda device, works: CONSTANTS)


def plan(folder: Path, *arguments: object, out: str = "elsewhere") -> Done:
    return succeed("plan", folder / "recipe.toml", "--out", folder / out, "--device", "cpu", "--json", *arguments)


def own_budget(result: dict[str, Any]) -> dict[str, Any]:
    (found,) = [each for each in result["budgets"] if each["is_recipes"]]
    return found


@pytest.mark.parametrize(("out", "how"), [("run", "run"), ("elsewhere", "run"), ("nothing", "whole")])
def test_a_plan_is_what_the_run_finds(finished_run: Path, tmp_path: Path, out: str, how: str) -> None:
    if how == "whole":  # other files of the same bytes, and no run beside
        for name in ("log.csv", "recipe.toml"):
            shutil.copy(finished_run / name, tmp_path)
    before, names = contents(finished_run), sorted(finished_run.rglob("*"))
    result = plan(finished_run if how == "run" else tmp_path, out=out).result
    assert contents(finished_run) == before, "nothing of the run is touched"
    assert sorted(finished_run.rglob("*")) == names
    assert not (finished_run / "elsewhere").exists()
    record = json.loads((finished_run / "run" / "run.json").read_text())
    assert result["read"]["how"] == how
    own = own_budget(result)
    assert own["input_share"]["value"] == record["hot"]["input_share"]
    assert own["input_share"]["low"] == own["input_share"]["high"] == record["hot"]["input_share"]
    assert own["coverage"]["value"] == record["hot"]["coverage"]
    for key, name in (("num_hot_rows", "num_rows"), ("hot_bytes", "bytes"), ("staging_bytes", "staging_bytes"),
                      ("ring_depth", "ring_depth"), ("selection", "selection")):  # fmt: skip
        assert own[key] == record["hot"][name], key
    for table, fact in zip(result["tables"], record["tables"], strict=True):
        assert table["num_rows"]["value"] == fact["num_embeddings"]
        assert table["bytes"]["rowwise_adagrad"] == fact["num_embeddings"] * fact["row_bytes"]
    assert result["log"]["num_inputs"]["value"] == record["log"]["num_inputs"]


@pytest.mark.parametrize("on_gpu", [False, True])
def test_memory_is_what_training_counts(finished_run: Path, on_gpu: bool) -> None:
    memory = own_budget(plan(finished_run).result)["memory"]
    assert memory["is_exact"]
    recipe = load_recipe(finished_run / "recipe.toml")
    hot_set, packed = HotSet(finished_run / "run" / "hot_set"), PackedDataset(finished_run / "run" / "packed")
    model = sketch_model(recipe.model, hot_set.layout.features, packed.num_dense)
    dense = dense_bytes(recipe.train.optimizer, model, flat=on_gpu)
    for placement, found in memory["on_gpu" if on_gpu else "on_cpu"].items():
        needs = plan_memory(
            placement, hot_set, recipe.train.optimizer, (packed.train, packed.validation, packed.test),
            on_gpu=on_gpu, dense_bytes=dense,
        )  # fmt: skip
        assert {key: found[key] for key in vars(needs)} == vars(needs), placement


def test_six_budgets_and_more(finished_run: Path, tmp_path: Path) -> None:
    result = plan(finished_run).result
    budgets = result["budgets"]
    assert len(budgets) >= 6
    assert budgets[0]["budget_bytes"] >= result["smallest_budget"]["bytes"]
    assert budgets[-1]["budget_bytes"] == result["all_rows_bytes"]
    for name in ("coverage", "input_share"):
        values = [each[name]["value"] for each in budgets]
        assert values == sorted(values)
        assert values[-1] == 1.0
    for each in budgets:
        assert each["hot_bytes"] + each["staging_bytes"] <= each["budget_bytes"]
    smallest = result["smallest_budget"]["bytes"]
    for name in ("log", "profile"):
        shutil.copytree(finished_run / "run" / name, tmp_path / name)
    succeed("calibrate", finished_run / "recipe.toml", "--out", tmp_path, "--budget", smallest)


def test_named_budgets_are_the_ones(finished_run: Path) -> None:
    result = plan(finished_run, "--budget", "4.5KiB", "--budget", "3.5KiB").result
    assert [each["budget_bytes"] for each in result["budgets"]] == [3584, 4096, 4608, result["all_rows_bytes"]]


def test_lines_fit_a_terminal_of_100_columns(finished_run: Path) -> None:
    done = succeed("plan", finished_run / "recipe.toml", "--out", finished_run / "run", "--device", "cpu")
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert max(map(len, lines)) <= 100
    text = done.stderr
    for word in ("user", "rowwise*", "hot inputs", "4 KiB", "smallest budget that trains", "on the disk"):
        assert word in text, word


def test_python_returns_what_json_prints(finished_run: Path) -> None:
    recipe = load_recipe(finished_run / "recipe.toml")
    found = package.plan(recipe, out=finished_run / "run", device="cpu")
    printed = plan(finished_run, out="run").result
    assert json.loads(json.dumps(found)) | {"seconds": 0} == printed | {"seconds": 0}
    assert callable(package.plan), "the package of the same name does not take its place"


def test_no_temporary_folder_is_left(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "fae-plan-999999999-killed").mkdir()
    plan(finished_run)
    assert not list(tmp_path.iterdir()), "its own is gone, and that of a plan that was killed"
    fault(fae("plan", finished_run / "recipe.toml", "--set", "log.train=missing.csv"), "missing.csv")
    assert not list(tmp_path.iterdir())


def test_settings_that_are_none(finished_run: Path) -> None:
    recipe = finished_run / "recipe.toml"
    fault(fae("plan", recipe, "--budget", "many"), "--budget = 'many' is not a size")
    fault(fae("plan", recipe, "--gpu-memory", "-1"), "--gpu-memory")
    fault(fae("plan", recipe, "--read", "some"), "--read = 'some' is not a size")
    fault(fae("plan", recipe, "--set", "train.batch_sze=3"), "batch_size")


def test_a_sample_says_how_far_it_may_be_off(tmp_path: Path) -> None:
    write_log(tmp_path, 4000)
    recipe = write_recipe(tmp_path)
    arguments = ("--out", tmp_path / "none", "--device", "cpu", "--json")
    exact = succeed("plan", recipe, *arguments).result
    budgets = [part for each in exact["budgets"] for part in ("--budget", each["budget_bytes"])]
    done = succeed("plan", recipe, *arguments, *budgets, "--read", "32KiB")
    found = done.result
    assert found["read"]["how"] == "sample"
    assert "all parts of the file" in done.stderr
    assert not found["read"]["is_exact"]
    assert found["read"]["raw_bytes_read"] < 40_000 < found["read"]["raw_bytes"]
    inputs = found["log"]["num_inputs"]
    assert inputs["low"] <= 4000 <= inputs["high"]
    for table, true in zip(found["tables"], exact["tables"], strict=True):
        assert table["num_rows"]["low"] <= true["num_rows"]["value"] <= table["num_rows"]["high"]
    assert found["all_rows"]["low"] <= exact["all_rows_bytes"] <= found["all_rows"]["high"]
    true_shares = {each["budget_bytes"]: each for each in exact["budgets"]}
    compared = [each for each in found["budgets"] if each["budget_bytes"] in true_shares]
    assert len(compared) >= 4
    for each in compared:
        for name in ("coverage", "input_share"):
            true_share = true_shares[each["budget_bytes"]][name]["value"]
            assert each[name]["low"] <= true_share <= each[name]["high"], (name, each["budget_bytes"])
        assert not each["memory"]["is_exact"]


def test_faults_of_a_sample_name_the_file_itself(tmp_path: Path) -> None:
    log = write_log(tmp_path, 4000)
    log.write_text(log.read_text().replace("\n1,u", "\nx,u"))
    line = fault(fae("plan", write_recipe(tmp_path), "--read", "32KiB"), str(log), "of the sample that a plan reads")
    assert "fae-plan" not in line


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that need not be measured."""
    monkeypatch.setattr(plan_module, "measure_disk", lambda folder: DiskRates(read=1e9, written=1e9, kept_bytes=1e10))


def write_public_recipe(folder: Path) -> Path:
    path = folder / "public.toml"
    tables = {
        "log": ['format = "criteo_terabyte"', 'train = "nowhere/day_*.gz"', "min_frequency = 15"],
        "model": ["embedding_dim = 4", "bottom_mlp = [16]", "top_mlp = [16]"],
        "hot": ['budget = "64KiB"', "sample = 0.001"],
        "train": ["batch_size = 64"],
    }
    path.write_text("".join("\n".join([f"[{name}]", *lines, ""]) for name, lines in tables.items()))
    return path


def test_a_public_log_is_planned_without_its_files(
    tmp_path: Path, quick_disk: None, capsys: pytest.CaptureFixture[str]
) -> None:
    del quick_disk
    recipe = load_recipe(write_public_recipe(tmp_path))
    options: dict[str, Any] = {"device": "cpu", "read": "8MiB", "inputs": 400_000_000, "budgets": ["1GiB"]}
    found = package.plan(recipe, out=tmp_path / "none", cores=64, **options)
    assert found["read"]["how"] == "sample"
    assert "nothing of the log is here" in found["read"]["note"]
    assert found["log"]["num_inputs"] == {"value": 400_000_000, "low": 400_000_000, "high": 400_000_000}
    # Three files of 24: the last one is halved.
    assert found["log"]["splits"]["train"] == 266_666_667
    stages = found["stages"]
    assert [each["name"] for each in stages["stages"]] == ["ingest", "profile", "calibrate", "pack", "train"]
    assert stages["counts"]["num_shards"] == 3, "packed files are read whole"
    assert any("packed files cannot be cut" in note for note in stages["notes"])
    assert stages["total"]["seconds"] == pytest.approx(sum(each["seconds"] for each in stages["stages"]))
    for each in stages["stages"]:
        assert each["seconds"] == pytest.approx(sum(part["seconds"] for part in each["work"]))
        assert each["disk_bytes"] >= each["stays_bytes"]
    ingest, *_, pack, train = stages["stages"]
    assert ingest["stays_bytes"] == found["disk"]["log"]
    assert ingest["disk_bytes"] > 1.5 * ingest["stays_bytes"], "parts and rows are there at once"
    assert pack["disk_bytes"] > ingest["stays_bytes"] + pack["stays_bytes"], "a split that is sorted on the disk"
    assert stages["total"]["stays_bytes"] == found["disk"]["total"]
    lines = plan_lines(found)
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("  on 64 cores") for line in lines)
    assert train["seconds"] > 0
    capsys.readouterr()


def test_a_part_of_a_log_and_a_columnar_one(tmp_path: Path, quick_disk: None) -> None:
    del quick_disk
    succeed("synthetic", "--inputs", "12000", "--columnar", "--out", tmp_path / "run")
    columnar = succeed("plan", tmp_path / "run" / "recipe.toml", "--device", "cpu", "--json", "--cores", 5).result
    assert [each["name"] for each in columnar["stages"]["stages"]] == ["profile", "calibrate", "pack", "train"]
    assert columnar["stages"]["cores"] == 5
    fault(fae("plan", tmp_path / "run" / "recipe.toml", "--inputs", "5"), "--inputs is for raw files")
    fault(fae("plan", tmp_path / "run" / "recipe.toml", "--cores", "0"), "--cores = 0 must be 1 or more")
    write_log(tmp_path, 3000)
    recipe = write_recipe(tmp_path)
    part = succeed("plan", recipe, "--out", tmp_path / "none", "--device", "cpu", "--json", "--inputs", 9000).result
    assert part["read"]["how"] == "sample"
    assert part["log"]["num_inputs"]["value"] == 9000
    assert part["stages"] is None, "it is over before it is timed"
    fault(fae("plan", recipe, "--out", tmp_path / "none", "--inputs", "5"), "--inputs = 5 is less than the 3000")
