"""``--engine`` and ``--worker``: the log has the same bytes, whatever read its shards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from commands import contents, csv_text, fae, fault, succeed, write_recipe, zipf_inputs
from engine_cases import ENVIRONMENT, dask_cluster

NUM_FILES = 12


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe of many files, and ``plain``, what one process makes of it."""
    folder = tmp_path_factory.mktemp("log")
    rows = zipf_inputs(NUM_FILES * 150)
    for number in range(NUM_FILES):
        (folder / f"part{number}.csv").write_text(csv_text(rows[number * 150 : (number + 1) * 150]))
    write_recipe(folder, log={"train": "part*.csv"})
    succeed("ingest", folder / "recipe.toml", "--out", folder / "plain")
    return folder


def start(log: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fae.cli.main", "ingest", str(log / "recipe.toml"), "--out", str(out), *more]
    environment = {**os.environ, "FAE_CODE_VERSION": "tests", "FAE_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("engine", ["threads:3", "processes:2"])
def test_engines_of_one_machine(log: Path, tmp_path: Path, engine: str) -> None:
    succeed("ingest", log / "recipe.toml", "--out", tmp_path / "run", "--engine", engine)
    assert contents(tmp_path / "run" / "log") == contents(log / "plain" / "log")


def test_three_workers_with_a_folder_in_common(log: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    workers = [start(log, run, "--worker", f"{number}/3", "--json") for number in (2, 3, 1)]
    said = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], said
    assert contents(run / "log") == contents(log / "plain" / "log")
    assert not [path for path in run.iterdir() if "partial" in path.name]


def test_a_worker_that_is_killed_loses_nothing(log: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    victim, leader = start(log, run, "--worker", "2/2"), start(log, run, "--worker", "1/2")
    parts = run / ".log.partial" / "work" / "parts"
    end = time.monotonic() + 60
    while not list(parts.glob("*/part.json")) and leader.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    said = leader.communicate(timeout=120)
    assert leader.returncode == 0, said
    assert contents(run / "log") == contents(log / "plain" / "log")


def test_a_dask_cluster(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with dask_cluster() as cluster:
        run, engine = tmp_path / "run", f"dask://{cluster.address}"
        succeed("ingest", log / "recipe.toml", "--out", run, "--engine", engine)
    assert contents(run / "log") == contents(log / "plain" / "log")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--engine", "thread"), "--engine is"), (("--engine", "processes:0"), "--engine is"),
        (("--worker", "3/2"), "--worker is"), (("--engine", "dask://localhost:1"), "dask"),
    ],
)  # fmt: skip
def test_what_names_no_engine_is_one_line(log: Path, tmp_path: Path, options: tuple[str, str], line: str) -> None:
    fault(fae("ingest", log / "recipe.toml", "--out", tmp_path / "run", *options), line)
