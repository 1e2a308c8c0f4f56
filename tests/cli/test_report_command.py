"""``fae report`` on the command line, with records that `fae run` has just written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from commands import fae, fault, strict_json, succeed


def test_report_of_a_run(finished: Path) -> None:
    run = finished / "run"
    done = succeed("report", run, "--json")
    assert done.result["path"] == str(run / "report.html")
    assert done.result["bytes"] == (run / "report.html").stat().st_size
    said, where = done.stderr.splitlines()
    assert said == done.result["verdict"]
    assert where.startswith("report: ")
    text = (run / "report.html").read_text()
    record = strict_json((run / "run.json").read_text())
    assert f"{record['test']['auc']:.4f}" in text
    assert "not recorded" not in text.replace("loss curve", ""), "a new record has everything that a report shows"
    assert record["hot"]["budgets"]["points"]
    assert [table["accesses"] for table in record["tables"]] == [432] * 3
    budget = {point["budget_bytes"]: point for point in record["hot"]["budgets"]["points"]}[4096]
    assert budget["coverage"] == pytest.approx(record["hot"]["predicted"]["coverage"])
    assert budget["input_share"] == pytest.approx(record["hot"]["predicted"]["input_share"])
    assert budget["num_rows"] == record["hot"]["num_rows"]


def test_report_of_several_runs(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(finished / "run", finished / "other")
    adaptive = ("--set", "train.order=adaptive", "--replace")
    succeed("run", finished / "recipe.toml", "--out", finished / "other", *adaptive)
    monkeypatch.chdir(finished)
    done = succeed("report", "run", "other/run.json", "--json")
    assert done.result["differences"] == ["train.order"]
    assert (finished / "report.html").is_file()
    assert done.stdout.count("\n") == 1
    assert succeed("report", "run", "other", "--out", "new/page.html").stdout == ""
    assert (finished / "new" / "page.html").read_text() == (finished / "report.html").read_text()


def test_a_budget_that_holds_all_rows(finished: Path) -> None:
    succeed("run", finished / "recipe.toml", "--out", finished / "run", "--budget", "1GiB", "--replace")
    succeed("report", finished / "run")
    assert "holds every row of every table" in (finished / "run" / "report.html").read_text()


def test_faults_are_one_line(finished: Path) -> None:
    fault(fae("report", finished / "none"), "there is no run", "give the folder of a run")
    fault(fae("report", finished), "holds no run.json", f"fae report {finished / 'run'}")
    fault(fae("report", finished / "recipe.toml"), "is not JSON")
    fault(fae("report", finished / "run" / "log" / "manifest.json"), "no run record")
    fault(fae("report", finished / "run", "--out", finished / "log.csv"), "is no report of fae")
    fault(fae("report"), "RUN")
