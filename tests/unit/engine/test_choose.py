"""The words of ``--engine`` and ``--worker``."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from fae.cli.engine_options import add_engine_options, engine_of
from fae.core.errors import RecipeError
from fae.engine.choose import open_engine, parse_engine, parse_worker
from fae.engine.local import LocalEngine, ProcessesEngine
from fae.engine.shared_folder import SharedFolderEngine

from engine_tasks import square


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("threads", ("threads", None)),
        ("processes:16", ("processes", 16)),
        ("dask://10.0.0.1:9999", ("dask", "10.0.0.1:9999")),
        ("dask://node-1.cluster/", ("dask", "node-1.cluster:8786")),
        ("dask://[::1]:8786", ("dask", "[::1]:8786")),
    ],
)
def test_engines(text: str, found: tuple[str, object]) -> None:
    assert parse_engine(text) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("thread", "did you mean 'threads'?"),
        ("", "expected threads[:N], processes[:N] or dask://host:8786"),
        ("ray://node", "known: dask, processes, threads"),
        ("threads:", "expected a number of workers from 1 to 10,000, as in threads:8"),
        ("threads:0", "expected a number of workers"),
        ("processes:-1", "as in processes:8"),
        ("processes:1.5", "as in processes:8"),
        ("threads:²", "expected a number of workers"),
        ("threads:" + "9" * 5000, "expected a number of workers"),
        ("dask", "expected threads[:N]"),
        ("dask:", "has no address; write it like dask://host:8786"),
        ("dask://", "has no address"),
        ("dask://a b", "has no address"),
        ("dask://host:123456", "has no address"),
    ],
)
def test_faults_of_engines(text: str, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse_engine(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "text", ["", "1", "0/3", "4/3", "1/0", "a/b", "1/3/5", "-1/3", "1/ 3", "1/3\n", "²/3", "1/99999"]
)
def test_faults_of_workers(text: str) -> None:
    with pytest.raises(RecipeError, match="expected i/N with i from 1 to N, as in 2/8"):
        parse_worker(text)
    assert parse_worker("3/3") == (3, 3)


def test_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAE_NUM_THREADS", "3")
    parser = argparse.ArgumentParser()
    add_engine_options(parser)
    for words, kind, workers in (
        ([], LocalEngine, 3),
        (["--engine", "processes:2"], ProcessesEngine, 2),
        (["--engine", "threads:5", "--worker", "2/8"], SharedFolderEngine, 5),
    ):
        with engine_of(parser.parse_args(words), tmp_path) as engine:
            assert type(engine) is kind
            assert engine.num_workers == workers
            assert engine.is_leader == (kind is not SharedFolderEngine)
    with pytest.raises(RecipeError, match=r"--engine dask://h and --worker 1/2 exclude each other"):
        engine_of(parser.parse_args(["--engine", "dask://h", "--worker", "1/2"]), tmp_path)


def test_alone_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    with open_engine("threads:1") as engine:
        engine.await_published(tmp_path / "never", "log")
        done: list[int] = []
        engine.work_until(tmp_path / "never", "log", lambda: done.extend(engine.map("square", square, [2])))
    assert done == [4]
