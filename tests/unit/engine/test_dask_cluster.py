"""A Dask cluster that is not there, that others have set up, or that ends on the way: one line each."""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fae.core.errors import EngineError
from fae.engine import calls
from fae.engine import dask_cluster as module
from fae.engine.code_version import versions
from fae.engine.dask_cluster import DaskEngine, Meeting, attempt_on_cluster, fault_of_worker
from fae.engine.outcomes import outcome_of
from fae.engine.presence import WORKERS_FOLDER

import engine_tasks as tasks
from engine_cases import ENVIRONMENT, Cluster, dask_cluster, free_port


@pytest.fixture(autouse=True)
def code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkout may be edited while its tests run."""
    monkeypatch.setenv("FAE_CODE_VERSION", ENVIRONMENT["FAE_CODE_VERSION"])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with dask_cluster() as made:
        yield made


def meeting(folder: Path, **changes: str) -> Meeting:
    file = folder / WORKERS_FOLDER / "0-word.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("word")
    return Meeting(str(file), "word", versions("distributed") | changes)


def test_what_a_worker_must_find(tmp_path: Path) -> None:
    fine = meeting(tmp_path)
    assert fault_of_worker(fine) == ""
    assert [path.name for path in Path(fine.file).parent.iterdir()] == ["0-word.json"]
    other = meeting(tmp_path, numpy="1.0", fae="0.0.9")
    assert "has fae tested and not 0.0.9, numpy" in fault_of_worker(other)
    assert "install the same versions on all machines" in fault_of_worker(other)
    for text in ("another word", None):  # a folder of the same name that is not shared
        Path(fine.file).write_text(text) if text else Path(fine.file).unlink()
        assert f"does not see {tmp_path}; give --out a folder that all machines see" in fault_of_worker(fine)


def test_a_worker_that_joins_later_is_checked_before_its_first_task(tmp_path: Path) -> None:
    fine = Meeting(meeting(tmp_path).file, "word", versions("distributed"))
    assert outcome_of(attempt_on_cluster(fine, tasks.square, 3), "fae").result() == 9
    with pytest.raises(EngineError, match="a Dask worker does not see"):
        outcome_of(
            attempt_on_cluster(Meeting("/nowhere/.tasks/workers/x", "other", fine.versions), tasks.square, 3), "fae"
        ).result()


def test_without_distributed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(EngineError, match=r"needs the package distributed .* run `pip install 'fae\[dask\]'`"):
        DaskEngine("127.0.0.1:8786", tmp_path)


def test_no_scheduler(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(EngineError, match=f"no Dask scheduler answers at {address}; start one with `dask scheduler`"):
        DaskEngine(address, tmp_path, patience_seconds=1)


def test_a_client_that_is_never_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for a scheduler that has taken its connection, and was killed."""
    import distributed

    never = threading.Event()
    monkeypatch.setattr(distributed, "Client", lambda *arguments, **options: never.wait())
    with pytest.raises(EngineError, match=r"no Dask scheduler answers at 127\.0\.0\.1:1"):
        DaskEngine("127.0.0.1:1", tmp_path, patience_seconds=0.1)
    never.set()
    assert not list(tmp_path.iterdir())


def test_workers_see_another_folder(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that they look for is not there for them."""

    def elsewhere(file: str, word: str, versions: dict[str, str]) -> Meeting:
        return Meeting(str(Path(file).with_name("0-elsewhere.json")), word, versions)

    monkeypatch.setattr(module, "Meeting", elsewhere)
    with pytest.raises(EngineError, match=rf"the Dask worker tcp://.* does not see {tmp_path}"):
        DaskEngine(cluster.address, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_client_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    before = threading.active_count()
    with DaskEngine(cluster.address, tmp_path / "run") as engine:
        assert list(engine.map("square", tasks.square, [3, 4])) == [9, 16]
        assert len(list((tmp_path / "run").iterdir())) == 1
    assert not list((tmp_path / "run").iterdir())
    assert threading.active_count() <= before


def test_the_cluster_ends_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workers first, and then its scheduler."""
    monkeypatch.setattr(calls, "_CHECK_SECONDS", 0.5)
    traced = functools.partial(tasks.traced, tmp_path, 0.2)
    with dask_cluster() as cluster, DaskEngine(cluster.address, tmp_path, patience_seconds=20) as engine:
        results = engine.map("traced", traced, range(200))
        assert next(results) == 0
        monkeypatch.setattr(engine, "_patience", 1)
        monkeypatch.setattr(engine._workers._executor, "_patience", 1)
        for worker in cluster.workers:
            worker.kill()
            worker.wait()
        with pytest.raises(EngineError, match=r"the Dask scheduler at .* has no workers; start them with `dask worker"):
            list(results)
        cluster.scheduler.kill()
        cluster.scheduler.wait()
        with pytest.raises(EngineError, match=r"the Dask scheduler at .* no longer answers; start it and its workers"):
            list(engine.map("square", tasks.square, [1]))
