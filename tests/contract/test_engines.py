"""Every engine keeps one contract. A new engine is one more entry in `case`.

* Results come in shard order and are the same whatever ran the tasks; so is the error, that of the first shard in
  order.
* Only a bounded number of tasks is ahead of the results that were taken; behind the loop none runs.
* A worker that is killed costs time and no result.

Every engine is used as it is meant to be: by programs in processes of their own, with a real Dask cluster, and with
three workers that have nothing but a folder in common.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine_cases import WORKERS, Case, Cluster, dask_cluster, finish, is_running, kill, wait_until
from engine_drivers import parts
from engine_tasks import count, events, processes

ENGINES = ("threads", "processes", "dask", "shared folder", "shared folder, processes")
SHARED = ("1/3", "2/3", "3/3")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with dask_cluster() as made:
        yield made


@pytest.fixture(scope="module", params=ENGINES)
def case(request: pytest.FixtureRequest) -> Case:
    if request.param == "dask":
        cluster: Cluster = request.getfixturevalue("cluster")
        return Case(f"dask://{cluster.address}", at_once=WORKERS)
    if request.param == "shared folder":
        return Case("threads:2", SHARED, at_once=2 * len(SHARED))
    if request.param == "shared folder, processes":
        return Case("processes:1", SHARED[:2], at_once=len(SHARED))
    return Case(f"{request.param}:2")


@pytest.fixture(scope="module")
def kept(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """What the programs of the contract returned, in all processes alike, and the folder of their traces."""
    folder = tmp_path_factory.mktemp("contract")
    return case.run("whole_contract", folder), folder


def test_results_are_in_order_and_the_same_everywhere(kept: tuple[Any, Path]) -> None:
    results, _ = kept
    assert results["values"] == repr([count(3, part) for part in parts(Path("log"))])
    assert results["tiny"] == [number * number for number in range(200)]


def test_the_first_error_in_order_ends_it(case: Case, kept: tuple[Any, Path]) -> None:
    results, folder = kept
    assert results["first_error"] == [[0, 1, 2, 3], "LogError", "log.csv, line 4: expected a number"]
    begun, ended = (events(folder / "first_error", event) for event in ("begun", "ended"))
    assert begun == ended, "no task runs on"
    assert set(range(5)) <= set(begun), "all tasks before it have ended"
    assert len(set(begun)) <= 5 + 2 * case.at_once


def test_errors_of_every_kind_arrive(kept: tuple[Any, Path]) -> None:
    log, disk, key, own = kept[0]["each_error"]
    assert log == ["LogError", "log.csv: is empty", None]
    assert disk == ["OSError", "[Errno 28] No space left on device: 'log/ids.npy'", 28]
    assert key == ["KeyError", "'user'", None]
    assert own[0] in ("OwnError", "TaskError")
    assert "odd" in own[1]


def test_a_bounded_number_of_tasks_is_ahead(case: Case, kept: tuple[Any, Path]) -> None:
    results, folder = kept
    assert results["one_result"] == 0
    begun = set(events(folder / "one_result", "begun"))
    assert case.at_once <= len(begun) <= 1 + 2 * case.at_once


def test_a_task_runs_in_one_thread(kept: tuple[Any, Path]) -> None:
    assert kept[0]["one_thread"] == [[1, 1]] * 6


def test_a_task_that_kills_its_process_is_run_again(case: Case, tmp_path: Path) -> None:
    """Where the process is the program itself, the other programs do the rest."""
    programs = case.begin("dying", tmp_path)
    statuses = [process.wait() for process in programs]
    if case.engine == "threads:2":
        assert statuses.count(-signal.SIGKILL) == 1
    if case.engine == "threads:2" and len(statuses) == 1:
        assert finish(case.begin("dying", tmp_path)[0]) == list(range(20))
    survivors = [process for process, status in zip(programs, statuses, strict=True) if status == 0]
    assert len(survivors) + statuses.count(-signal.SIGKILL) == len(programs)
    assert all(finish(process) == list(range(20)) for process in survivors)
    assert events(tmp_path, "begun").count(3) >= 2
    for process in programs:
        process.communicate()


def test_an_interrupt_ends_it_and_nothing_runs_on(case: Case, tmp_path: Path) -> None:
    programs = case.begin("slow", tmp_path)
    wait_until(lambda: len(events(tmp_path, "ended")) > 2, "a few tasks")
    for process in programs:
        process.send_signal(signal.SIGINT)
    for process in programs:
        _, stderr = process.communicate()
        assert process.returncode == -signal.SIGINT, stderr
        assert "KeyboardInterrupt" in stderr
    if not case.engine.startswith("dask"):
        assert not [pid for pid in processes(tmp_path) if is_running(pid)]
    time.sleep(0.5)  # for tasks of a cluster that had begun
    begun = events(tmp_path, "begun")
    assert len(begun) < 300
    time.sleep(0.5)
    assert events(tmp_path, "begun") == begun


def test_workers_end_with_a_program_that_is_killed(case: Case, tmp_path: Path) -> None:
    programs = case.begin("slow", tmp_path)
    wait_until(lambda: len(processes(tmp_path)) >= len(programs), "a task of every worker")
    for process in programs:
        kill(process)
    if case.engine.startswith("dask"):  # whose workers outlive its clients
        wait_until(lambda: events(tmp_path, "begun") == events(tmp_path, "ended"), "the end of its tasks")
        assert len(events(tmp_path, "begun")) < 300
        return
    for pid in processes(tmp_path):
        wait_until(lambda pid=pid: not is_running(pid), f"the end of process {pid}")  # type: ignore[misc]


def test_a_dask_worker_is_killed_on_the_way(cluster: Cluster, tmp_path: Path) -> None:
    cluster.fill()
    case = Case(f"dask://{cluster.address}")
    (program,) = case.begin("rather_slow", tmp_path)
    victims = {process.pid: process for process in cluster.workers}
    wait_until(lambda: bool(processes(tmp_path) & victims.keys()), "a task")
    kill(victims[min(processes(tmp_path) & victims.keys())])
    assert finish(program) == list(range(30))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_others_take_over_what_a_worker_holds(tmp_path: Path, number: signal.Signals) -> None:
    """A process that is gone is seen at once; one that no longer renews its file after the stale time."""
    programs = Case("threads:1", SHARED).begin("hanging", tmp_path)
    wait_until(lambda: bool(processes(tmp_path)), "the task that hangs")
    (pid,) = processes(tmp_path)
    (victim,) = (process for process in programs if process.pid == pid)
    victim.send_signal(number)
    others = [process for process in programs if process is not victim]
    assert all(finish(process) == list(range(12)) for process in others)
    victim.kill()
    victim.communicate()
