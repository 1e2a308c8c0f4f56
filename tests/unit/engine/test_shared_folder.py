"""Workers of a shared folder: what each of them leaves there, and what the others make of it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from fae.core.errors import ArtifactError, EngineError, LogError
from fae.engine.claims import TaskFolder, TasksGone
from fae.engine.local import ThreadsEngine
from fae.engine.presence import WORKERS_FOLDER, Observer, Presence
from fae.engine.shared_folder import SharedFolderEngine

import engine_tasks as tasks
from engine_cases import SUPPORT, Case, finish, kill, start, wait_until

STALE = 0.6


@pytest.fixture(autouse=True)
def code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkout may be edited while its tests run."""

    monkeypatch.setenv("FAE_CODE_VERSION", "tested")


def worker(folder: Path, number: int = 1, of: int = 2, threads: int = 1) -> SharedFolderEngine:
    return SharedFolderEngine(ThreadsEngine(threads), folder / "run", number, of, stale_seconds=STALE)


def files(folder: Path, ending: str) -> list[Path]:
    return sorted((folder / "run" / ".tasks").rglob(f"*{ending}"))


def other_worker(folder: Path, name: str = "2-elsewhere", **facts: Any) -> Path:
    """The file of a worker on another machine, which nobody renews."""
    path = folder / "run" / WORKERS_FOLDER / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {
        "worker": 2,
        "num_workers": 2,
        "host": "node7",
        "pid": 4711,
        "code": "tested",
        "boot": "x",
        "processes": "y",
    }
    path.write_text(json.dumps(known | facts))
    return path


def claimed_by_other(folder: Path, text: str, index: int = 1) -> Path:
    """Let one worker map two tasks, then turn the second into one that another has claimed."""
    traced = functools.partial(tasks.traced, folder, 0.0)
    with worker(folder) as engine:
        assert list(engine.map("traced", traced, range(4))) == [0, 1, 2, 3]
    (result,) = files(folder, f"{index}.json")
    result.unlink()
    claim = result.with_suffix(".claim0")
    claim.write_text(text)
    return claim


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    case = Case("threads:1", ("1/2", "2/2"))
    (tmp_path / "marker").touch()
    for _ in range(2):
        assert case.run("trying", tmp_path) == list(range(6))
        assert tasks.events(tmp_path, "begun") == list(range(6))
    assert not files(tmp_path, ".claim0")
    assert not (tmp_path / "run" / WORKERS_FOLDER).exists(), "workers leave no file of their own"


def test_an_error_is_tried_again_by_those_that_begin_later(tmp_path: Path) -> None:
    case = Case("threads:1", ("1/2", "2/2"))
    assert case.run("trying", tmp_path) == {"error": "LogError: log.csv: is not there yet"}
    assert len(files(tmp_path, ".error")) == 1
    (tmp_path / "marker").touch()
    assert case.run("trying", tmp_path) == list(range(6))
    assert tasks.events(tmp_path, "begun").count(0) == 1
    assert not files(tmp_path, ".error")


def test_other_shards_take_no_results_of_these(tmp_path: Path) -> None:
    with worker(tmp_path) as engine:
        assert list(engine.map("square", tasks.square, [1, 2])) == [1, 4]
        assert list(engine.map("square", tasks.square, [3, 4])) == [9, 16]
        assert list(engine.map("square", tasks.square, [1, 2], folder=tmp_path / "stage")) == [1, 4]
    assert len(files(tmp_path, ".json")) == 4
    assert len(list((tmp_path / "stage").rglob("*.json"))) == 2


@pytest.mark.parametrize("owner", ["2-elsewhere", ""], ids=["of another machine", "not yet written"])
def test_a_stale_claim_is_taken_over(tmp_path: Path, owner: str) -> None:
    """Its worker is elsewhere and no longer renews its file, or ended between making the claim and writing its name."""
    claim = claimed_by_other(tmp_path, owner)
    other_worker(tmp_path)
    with worker(tmp_path) as engine:
        assert list(engine.map("traced", functools.partial(tasks.traced, tmp_path, 0.0), range(4))) == [0, 1, 2, 3]
    assert tasks.events(tmp_path, "begun") == [0, 1, 1, 2, 3]
    assert not claim.exists()


def test_a_claim_of_a_worker_that_is_there_is_left_alone(tmp_path: Path) -> None:
    """As long as its file is renewed; its result is waited for."""
    claim = claimed_by_other(tmp_path, "2-elsewhere")
    path, end = other_worker(tmp_path), threading.Event()

    def renew() -> None:
        for _ in range(20):
            end.wait(0.1)
            os.utime(path)
        assert claim.read_text() == "2-elsewhere"
        claim.with_suffix(".json").write_text('{"result": 111}')

    thread = threading.Thread(target=renew)
    thread.start()
    with worker(tmp_path) as engine:
        assert list(engine.map("traced", functools.partial(tasks.traced, tmp_path, 0.0), range(4))) == [0, 111, 2, 3]
    thread.join()
    assert tasks.events(tmp_path, "begun") == [0, 1, 2, 3]


def test_a_damaged_result_is_made_again(tmp_path: Path) -> None:
    traced = functools.partial(tasks.traced, tmp_path, 0.0)
    for text in ("", "{", "[]", '{"result": {"$class": "os:system", "fields": {}}}'):
        with worker(tmp_path) as engine:
            assert list(engine.map("traced", traced, range(4))) == [0, 1, 2, 3]
        files(tmp_path, "2.json")[0].write_text(text)
    with worker(tmp_path) as engine:
        assert list(engine.map("traced", traced, range(4))) == [0, 1, 2, 3]
    assert tasks.events(tmp_path, "begun") == [0, 1, 2, 2, 2, 2, 2, 3]


def test_one_of_two_takers_gets_a_claim(tmp_path: Path) -> None:
    folders = [TaskFolder(tmp_path, f"{number}-x", 0) for number in range(8)]
    assert TaskFolder(tmp_path, "gone", 0).claim(5)
    barrier, won = threading.Barrier(8), []

    def take(folder: TaskFolder) -> None:
        barrier.wait()
        if folder.claim(5, 1):
            won.append(folder)

    threads = [threading.Thread(target=take, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert won[0].owner_of(5, 1)[0].endswith("-x")
    assert won[0].survey().claimed == {5: 1}
    for folder in folders:
        folder.release(5)
    assert not list(tmp_path.iterdir()), "only its owner removes a claim"


def test_a_late_error_does_not_replace_a_result(tmp_path: Path) -> None:
    """A worker that was taken for gone fails because the others have cleaned up: its error does not count."""
    (tmp_path / "marker").touch()
    trying = functools.partial(tasks.fail_until, tmp_path / "marker")
    with worker(tmp_path) as engine:
        list(engine.map("try", trying, range(6)))
        folder = TaskFolder(files(tmp_path, "2.json")[0].parent, "2-late", 0)
        folder.publish(2, {"error": {"class": "LogError", "arguments": ["late"], "text": "late", "traceback": ""}})
        assert list(engine.map("try", trying, range(6))) == list(range(6))


def test_the_leader_is_one(tmp_path: Path) -> None:
    with worker(tmp_path, 1) as first, worker(tmp_path, 1) as again, worker(tmp_path, 2) as second:
        assert [first.is_leader, again.is_leader, second.is_leader] == [True, False, False]
    with worker(tmp_path, 1) as later:
        assert later.is_leader


def test_a_leader_that_is_gone_is_replaced_by_its_second_start(tmp_path: Path) -> None:
    path = other_worker(tmp_path, "1-elsewhere")
    (path.parent / "00000000.claim0").write_text("1-elsewhere")
    with worker(tmp_path, 1) as engine:
        assert engine.is_leader


def test_publishing(tmp_path: Path) -> None:
    """All three return when the artifact is there, whatever did the work, and know its content."""
    assert Case("threads:1", ("1/3", "2/3", "3/3")).run("publishing", tmp_path) == str(sum(n * n for n in range(30)))


def test_a_worker_whose_tasks_were_removed_waits_for_what_is_published(tmp_path: Path) -> None:
    published = tmp_path / "artifact"
    with worker(tmp_path, 1) as leader, worker(tmp_path, 2) as late:
        assert sum(leader.map("square", tasks.square, range(30), folder=tmp_path / "stage")) == 8555

        def work() -> None:
            results = late.map("square", tasks.square, range(30), folder=tmp_path / "stage")
            assert next(results) == 0
            published.touch()
            shutil.rmtree(tmp_path / "stage")
            list(results)
            raise AssertionError("the results are gone")

        late.work_until(published, "artifact", work)
        with pytest.raises(TasksGone, match=r"has been removed while its tasks were run.*run the same command again"):
            leader.work_until(published, "artifact", lambda: remove_and_map(leader, tmp_path))


def remove_and_map(engine: SharedFolderEngine, folder: Path) -> None:
    results = engine.map("square", tasks.square, range(30), folder=folder / "again")
    next(results)
    (folder / "again").rename(folder / "removed")
    list(results)


def test_a_leader_that_ends_before_it_publishes_is_one_line(tmp_path: Path) -> None:
    driver = SUPPORT / "engine_drivers.py"
    leader = start(driver, "slow", tmp_path, "threads:1", "1/2")
    wait_until(lambda: bool(tasks.events(tmp_path, "begun")), "a task of the leader")
    with worker(tmp_path, 2) as engine:
        threading.Timer(0.3, kill, [leader]).start()
        with pytest.raises(
            EngineError, match=r"worker 1 of 2 \(.*, process \d+\) has ended before it has published"
        ) as error:
            engine.await_published(tmp_path / "log", "log")
    assert str(leader.pid) in str(error.value)
    assert "--worker 1/2 on any machine" in str(error.value)


def test_workers_of_other_code_are_refused(tmp_path: Path) -> None:
    other_worker(tmp_path, code="0.0.9 (12345678)")
    with pytest.raises(
        EngineError, match=r"worker 2 of 2 \(node7, process 4711\) runs fae 0.0.9 .*, this worker tested"
    ):
        worker(tmp_path)
    assert len(files(tmp_path, ".json")) == 1, "the one that is refused leaves nothing"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ArtifactError, match="cannot write to"):
        worker(tmp_path)


def test_a_worker_knows_processes_of_its_machine(tmp_path: Path) -> None:
    presence = Presence(tmp_path, 1, 2, 1000.0)
    observer = Observer(tmp_path, 1000.0)
    assert observer.verdict(presence.name) is True
    path = tmp_path / WORKERS_FOLDER / f"{presence.name}.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"started": "1"}))  # another process of that number
    assert Observer(tmp_path, 1000.0).verdict(presence.name) is False
    path.write_text(json.dumps(facts | {"boot": "another machine", "started": "1"}))
    assert Observer(tmp_path, 1000.0).verdict(presence.name) is None
    presence.close()
    assert observer.verdict(presence.name) is False
    assert not list(tmp_path.iterdir())


def test_files_of_workers_that_are_gone_are_removed(tmp_path: Path) -> None:
    """By the first who knows it: at once on this machine, after the stale time of one elsewhere."""
    presence = Presence(tmp_path / "run", 2, 2, STALE)
    here = tmp_path / "run" / WORKERS_FOLDER / f"{presence.name}.json"
    facts = json.loads(here.read_text())
    here.with_stem("2-before").write_text(json.dumps(facts | {"started": "1"}))
    other_worker(tmp_path, "2-elsewhere")
    with worker(tmp_path) as engine:
        assert {path.stem for path in here.parent.glob("2-*.json")} == {presence.name, "2-elsewhere"}
        wait_until(lambda: not engine._observer.is_alive("2-elsewhere"), "the stale time")
    assert [path.stem for path in here.parent.glob("*.json")] == [presence.name]
    presence.close()


def test_a_presence_that_was_removed_comes_back(tmp_path: Path) -> None:
    presence = Presence(tmp_path, 1, 2, 0.3)
    shutil.rmtree(tmp_path / ".tasks")
    wait_until((tmp_path / WORKERS_FOLDER / f"{presence.name}.json").exists, "its file")
    presence.close()


def test_one_worker_remembers_what_it_did(tmp_path: Path) -> None:
    """`1/1`: a run that was killed, by one process, continues as one by many would."""
    program = Case("threads:2", ("1/1",)).begin("rather_slow", tmp_path)[0]
    wait_until(lambda: len(tasks.events(tmp_path, "ended")) > 4, "a few tasks")
    kill(program)
    done = set(tasks.events(tmp_path, "ended"))
    assert finish(Case("threads:2", ("1/1",)).begin("rather_slow", tmp_path)[0]) == list(range(30))
    again = [number for number in done if tasks.events(tmp_path, "begun").count(number) > 1]
    assert len(again) <= 2, "but for those that had ended and were not published yet"


def test_errors_here_and_there_are_the_same(tmp_path: Path) -> None:
    with worker(tmp_path) as engine, pytest.raises(LogError, match=r"log.csv: is empty") as error:
        list(engine.map("fail", tasks.fail_with, [1, 0, 3]))
    assert "in fail_with" in "".join(error.value.__notes__)


@pytest.mark.parametrize("error", [FileExistsError, FileNotFoundError])
def test_a_folder_that_another_process_removes_in_this_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    """Between `mkdir`, which finds it, and the look whether it is a folder, or behind both."""
    made, num_failed = Path.mkdir, 0

    def mkdir(self: Path, *arguments: Any, **options: Any) -> None:
        nonlocal num_failed
        if num_failed < 2:
            num_failed += 1
            raise error(17, "it was there", str(self))
        made(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    presence = Presence(tmp_path, 1, 2)
    assert presence.path.is_file()
    presence.close()
    num_failed = 0
    with pytest.raises(TasksGone):
        TaskFolder(tmp_path / "tasks", "1-a", 0)
    (tmp_path / "tasks").write_text("a file of somebody")
    num_failed = 0 if error is FileExistsError else 2
    with pytest.raises(ArtifactError):
        TaskFolder(tmp_path / "tasks", "1-a", 0)
