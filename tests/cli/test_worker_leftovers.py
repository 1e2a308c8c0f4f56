"""What workers leave in a run folder: `fae runs` says so, `fae clean` removes it once nobody uses it, runs sweep it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fae.engine.claims import TaskFolder
from fae.engine.presence import WORKERS_FOLDER, Presence, _machine_facts

from commands import fae, fault, succeed, write_log, write_recipe


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with an ingested log."""
    write_log(tmp_path)
    write_recipe(tmp_path)
    succeed("ingest", tmp_path / "recipe.toml", "--out", tmp_path / "runs" / "a")
    return tmp_path / "runs" / "a"


def leave(run: Path, name: str = "2-killed", **facts: Any) -> Path:
    """The file of a worker that was killed, its claim and its half-written file; a result of its map."""
    path = run / WORKERS_FOLDER / f"{name}.json"
    path.parent.mkdir(parents=True)
    known = {"worker": 2, "num_workers": 3, "code": "tested", **_machine_facts(), "pid": ended_process(), **facts}
    path.write_text(json.dumps(known))
    path.with_name("00000000.claim0").write_text(name)
    path.with_name(".3-late.json.writing").write_text("{")
    result = run / ".tasks" / "map-0123456789abcdef" / "00000001.json"
    result.parent.mkdir()
    result.write_text("{}")
    return path


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def elsewhere(run: Path, seconds: float) -> Path:
    """A worker of another machine that has renewed its file some seconds ago."""
    path = leave(run, host="node7", boot="x", processes="y")
    time = path.stat().st_mtime - seconds
    os.utime(path, (time, time))
    return path


def state(run: Path) -> tuple[str, str]:
    (found,) = succeed("runs", run.parent, "--json").result["runs"]
    return found["state"], found["detail"]


def test_a_killed_worker(run: Path) -> None:
    leave(run)
    assert state(run)[0] == "unfinished"
    dry = succeed("clean", run, "--dry-run", "--json").result
    assert [each["name"] for each in dry["removed"]] == ["what interrupted commands left"]
    assert (run / ".tasks").is_dir()
    assert succeed("clean", run, "--json").result["removed"] == dry["removed"]
    assert not (run / ".tasks").exists()


def test_a_finished_run_says_that_files_are_left(run: Path) -> None:
    succeed("run", run.parents[1] / "recipe.toml", "--out", run)
    assert state(run) == ("finished", "")
    leave(run)
    assert state(run) == ("finished", "workers that were killed left files; `fae clean` removes them")


def test_a_worker_that_is_there(run: Path) -> None:
    worker = Presence(run, 2, 3)
    name = f"worker 2 of 3 ({_machine_facts()['host']}, process {os.getpid()})"
    try:
        assert state(run) == ("running", name)
        fault(fae("clean", run), f"{name} uses {run}; wait for its end")
        assert worker.path.is_file()
    finally:
        worker.close()
    assert state(run)[0] == "unfinished"


@pytest.mark.parametrize(("seconds", "is_gone"), [(20, False), (100, True)])
def test_a_worker_of_another_machine(run: Path, seconds: float, is_gone: bool) -> None:
    path = elsewhere(run, seconds)
    if is_gone:
        succeed("clean", run)
        assert not (run / ".tasks").exists()
        return
    fault(fae("clean", run), "worker 2 of 3 (node7, process")
    assert path.is_file()


def test_a_folder_where_a_run_has_only_begun(run: Path) -> None:
    begun = run.with_name("b")
    leave(begun)
    found = succeed("runs", run.parent, "--json").result["runs"]
    assert {(each["name"], each["detail"]) for each in found} == {("a", "made: ingest"), ("b", "nothing is made yet")}
    succeed("clean", begun)
    assert [path.name for path in begun.iterdir()] == [".lock"]
    fault(fae("clean", begun), "is no run folder")


def test_a_later_command_sweeps(run: Path) -> None:
    """What workers that are gone have left, but neither a worker that may be there nor results of tasks."""
    leave(run)
    succeed("profile", run.parents[1] / "recipe.toml", "--out", run)
    assert not (run / WORKERS_FOLDER).exists()
    assert [path.name for path in (run / ".tasks").rglob("*.json")] == ["00000001.json"]


def test_a_later_command_leaves_a_worker_that_may_be_there(run: Path) -> None:
    path = elsewhere(run, 20)
    left = sorted(path.parent.iterdir())
    succeed("profile", run.parents[1] / "recipe.toml", "--out", run)
    assert sorted(path.parent.iterdir()) == left


def test_tasks_are_not_begun_where_the_folder_is_gone(tmp_path: Path) -> None:
    from fae.engine.claims import TasksGone

    with pytest.raises(TasksGone, match="has been removed while its tasks were run"):
        TaskFolder(tmp_path / "parts" / ".tasks" / "ingest-1", "2-late", 0, tmp_path / "parts")
    assert not list(tmp_path.iterdir())
