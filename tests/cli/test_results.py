"""What the verbs return: one JSON object on stdout, words on stderr, and the run record on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from commands import STAGES, fae, fault, strict_json, succeed, write_log, write_recipe

PROMISED = (
    "test.auc", "test.log_loss", "train.samples_per_second", "hot.input_share", "hot.coverage", "hot.num_rows",
    "hot.bytes", "hot.staging_bytes", "hot.budget_bytes", *(f"stage_seconds.{stage}" for stage in STAGES), "seed",
)  # fmt: skip


def at(record: Any, dotted: str) -> Any:
    """A value by its dotted name."""
    for key in dotted.split("."):
        record = record[key]
    return record


def check_record(record: dict[str, Any]) -> None:
    """Check what every run record has."""
    for name in PROMISED:
        assert isinstance(at(record, name), (int, float)), name
    assert 0 <= record["hot"]["input_share"] <= record["hot"]["coverage"] <= 1
    assert record["hot"]["bytes"] + record["hot"]["staging_bytes"] <= record["hot"]["budget_bytes"]
    assert record["hot"]["num_rows"] == sum(table["num_hot"] for table in record["hot"]["tables"])
    assert all(at(record, f"stage_seconds.{stage}") > 0 for stage in STAGES)
    assert set(record["stage_seconds"]) == set(STAGES)
    assert set(record["recipe"]) == {"log", "model", "hot", "train"}
    assert {"fae", "python", "torch", "numpy"} <= set(record["versions"])
    assert 0 < record["test"]["log_loss"] < 5


def test_every_stage_and_run(tmp_path: Path) -> None:
    """Verb by verb in one folder, then ``run``, which finds everything done."""
    write_log(tmp_path)
    arguments = (write_recipe(tmp_path), "--out", tmp_path / "run", "--json")
    for stage in STAGES:
        done = succeed(stage, *arguments)
        result = done.result
        assert (result["stage"], result["skipped"]) == (stage, False)
        assert Path(result["path"]).is_dir()
        assert result["seconds"] > 0
        assert result["summary"]
        assert done.stderr.splitlines()[-1].startswith(f"{stage}: ")
        again = succeed(stage, *arguments).result
        assert again == {**result, "skipped": True}
    assert not (tmp_path / "run" / "run.json").exists(), "only a whole run has a record"
    done = succeed("run", *arguments)
    assert done.result == strict_json((tmp_path / "run" / "run.json").read_text())
    check_record(done.result)
    assert done.stderr.count("already there") == len(STAGES)
    assert str(tmp_path / "run" / "run.json") in done.stderr.splitlines()[-1]


def test_without_json_stdout_stays_empty(finished: Path) -> None:
    for verb in (*STAGES, "run"):
        done = succeed(verb, finished / "recipe.toml", "--out", finished / "run")
        assert done.stdout == ""
        assert done.stderr


def test_record(finished_run: Path) -> None:
    record = strict_json((finished_run / "run" / "run.json").read_text())
    check_record(record)
    assert record["seed"] == record["recipe"]["train"]["seed"] == 7
    assert record["recipe"]["hot"]["budget"] == "4KiB"
    assert record["hot"]["budget_bytes"] == 4096
    assert 0 < record["hot"]["input_share"] < 1, "the log of these tests has hot and cold inputs"
    assert record["test"]["num_inputs"] == 120
    assert 0.5 < record["test"]["auc"] < 1, "the planted relation can be found"
    assert record["train"]["num_inputs"] == 432


def test_demo(tmp_path: Path) -> None:
    demo = tmp_path / "demo"
    done = succeed("demo", "--inputs", 5000, "--out", demo, "--seed", 3, "--json")
    check_record(done.result["run"])
    assert done.result["run"]["seed"] == 3
    assert 0 < done.result["plain"]["test"]["log_loss"] < 5
    assert strict_json((demo / "demo.json").read_text()) == done.result
    lines = done.stderr.splitlines()
    assert [line.split()[0] for line in lines] == ["log", *STAGES, "plain", "the", "all", "report"]
    assert lines[-2].endswith(f"  {done.result['verdict']}")
    assert "plain PyTorch" in done.result["verdict"]
    assert done.result["run"]["command"] == f"fae run {demo / 'demo.toml'} --out {demo / 'run'}"
    assert lines[-1].endswith(f"  {demo / 'report.html'}")
    assert "hot-input share" in (demo / "stages.log").read_text(), "what the stages said is kept"
    page = (demo / "report.html").read_text()
    for record in (done.result["run"], done.result["plain"]):
        assert f"{record['test']['auc']:.4f}" in page
    again = succeed("run", demo / "demo.toml", "--out", demo / "run")
    assert again.stderr.count("already there") == len(STAGES), "the demo's recipe is the run that it made"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--inputs", 100], "--inputs 100 is too small"),
        (["--budget", "huge"], "--budget = 'huge' is not a size"),
        (["--budget", '1" MiB'], "is not a size"),
        (["--seed", -4], "seed = -4 must be 0 or more"),
    ],
)
def test_demo_that_cannot_be(tmp_path: Path, arguments: list[object], expected: str) -> None:
    done = fae("demo", "--out", tmp_path / "demo", *arguments)
    assert (done.status, done.stdout) == (2, "")
    assert done.stderr.startswith("fae: ")
    assert done.stderr.count("\n") == 1
    assert expected in done.stderr
    assert not (tmp_path / "demo" / "log.tsv").exists(), "found out before any work"


@pytest.mark.parametrize("budget", ["1GiB", "5KiB", 10**15])
def test_budget_above_the_tables(finished: Path, budget: object) -> None:
    recipe, run = finished / "recipe.toml", finished / "run"
    done = succeed("run", recipe, "--out", run, "--replace", "--budget", budget, "--json")
    assert "holds every row of every table" in done.stderr
    hot = done.result["hot"]
    assert (hot["input_share"], hot["coverage"], hot["staging_bytes"]) == (1.0, 1.0, 0)
    assert hot["num_rows"] == sum(feature["num_embeddings"] for feature in done.result["log"]["features"])
    check_record(done.result)


def test_budget_of_exactly_the_tables_and_one_byte_less(finished: Path) -> None:
    arguments = ("calibrate", finished / "recipe.toml", "--out", finished / "run", "--json", "--budget")
    everything = succeed(*arguments, "1GiB").result["summary"]
    exact = succeed(*arguments, everything["bytes"]).result["summary"]
    assert (exact["num_rows"], exact["bytes"]) == (everything["num_rows"], everything["bytes"])
    less = succeed(*arguments, everything["bytes"] - 1).result["summary"]
    assert less["num_rows"] < everything["num_rows"]
    assert less["bytes"] + less["staging_bytes"] < everything["bytes"]


def test_diverged_training_is_said(finished: Path) -> None:
    recipe, run = finished / "recipe.toml", finished / "run"
    fault(
        fae("run", recipe, "--out", run, "--replace", "--set", "train.learning_rate=1e38"),
        "diverged",
        "lower [train] learning_rate (1e+38)",
    )


def test_debug_shows_where(tmp_path: Path) -> None:
    done = fae("run", tmp_path / "none.toml", "--debug")
    assert (done.status, done.stdout) == (2, "")
    assert done.stderr.startswith("Traceback")
    assert "RecipeError: there is no recipe" in done.stderr.splitlines()[-1]


def test_folder_of_a_run_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``runs/<name of the recipe>`` in the current folder; the log is looked for beside the recipe."""
    (tmp_path / "elsewhere").mkdir()
    write_log(tmp_path, 50)
    recipe = write_recipe(tmp_path, "small.toml")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert succeed("ingest", recipe, "--json").result["path"] == "runs/small/log"
    assert (tmp_path / "elsewhere" / "runs" / "small" / "log" / "ids.npy").is_file()


def test_version_help_and_nothing() -> None:
    assert succeed("--version").stdout.startswith("fae 0")
    assert succeed().stdout == succeed("--help").stdout
    for verb in (*STAGES, "run", "report", "demo"):
        text = succeed(verb, "--help").stdout
        assert "--json" in text
        assert "--debug" in text


def test_interrupted(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fae.run.folder.RunFolder.run", interrupt)
    done = fae("run", finished / "recipe.toml", "--out", finished / "run")
    assert (done.status, done.stdout) == (130, "")
    assert done.stderr == "fae: interrupted; the same command continues from here\n"


@pytest.mark.parametrize(
    ("verb", "file", "target"),
    [
        ("inspect", "log.csv", "fae.inspect.inspection.inspect_files"),
        ("init", "log.csv", "fae.inspect.inspection.inspect_files"),
        ("plan", "recipe.toml", "fae.planning.plan.plan"),
    ],
)
def test_an_interrupted_look_does_not_say_that_it_continues(
    verb: str, file: str, target: str, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(target, interrupt)
    done = fae(verb, finished / file)
    assert (done.status, done.stdout) == (130, "")
    assert done.stderr == "fae: interrupted; nothing was written, and the same command begins anew\n"


def test_streams_of_a_real_process(finished: Path) -> None:
    """Also what libraries print on their own would show here."""
    command = [sys.executable, "-m", "fae.cli.main", "run", "recipe.toml", "--out", "run", "--json", "--replace"]
    command += ["--set", "train.learning_rate=0.2"]
    done = subprocess.run(command, cwd=finished, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    check_record(strict_json(done.stdout))
    starts = ("ingest: ", "profile: ", "calibrate: ", "pack: ", "train: ", "epoch 1 of 1: ", "run: ")
    assert [line for line in done.stderr.splitlines() if not line.startswith(starts)] == []
