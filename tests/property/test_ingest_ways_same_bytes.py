"""Whatever reads a log, its artifacts have the same bytes, and a log that is refused the same error.

Threads, processes, a Dask cluster, workers of one folder, shards and blocks of any size, a disk or an object store:
each is compared with one thread that reads the log in one shard. ``FAE_TEST_EXAMPLES=20`` draws twenty times as many
logs, others on every run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drawn_logs import DrawnLog, in_store, large_log, logs
from fae.core.config import to_table
from fae.core.errors import LogError
from fae.engine.dask_cluster import DaskEngine
from fae.engine.engine import Engine
from fae.engine.local import ProcessesEngine, ThreadsEngine
from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest
from fae.ingest.raw_files import source_digests
from fae.ingest.readers import criteo, jsonl, parquet, taobao
from fae.ingest.readers import csv as csv_reader
from fae.ingest.shards import shard_cuts
from log_workers import LogWorkers, log_workers

from commands import ARTIFACTS, STAGES, contents, succeed, toml, write_log, write_recipe
from engine_cases import ENVIRONMENT as OF_PROCESSES
from engine_cases import dask_cluster
from object_store import ENVIRONMENT as OF_STORE
from object_store import ObjectStore, object_store

MORE = int(os.environ.get("FAE_TEST_EXAMPLES", "1"))
SHARDS = st.integers(30, 6000)
pytestmark = pytest.mark.timeout(600 * MORE)


def examples(number: int) -> Any:
    """The settings of a property that is tried with this many logs, the same on every run."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(max_examples=number * MORE, derandomize=MORE == 1, suppress_health_check=checks)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about a power cut: the disk need not be waited for."""
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr(source_digests, "_known_digests", {})
    for name, value in OF_PROCESSES.items():
        monkeypatch.setenv(name, value)


@contextlib.contextmanager
def written(log: DrawnLog, parent: Path | None = None) -> Iterator[Path]:
    """A folder with the files of a log."""
    with tempfile.TemporaryDirectory(dir=parent) as name:
        for file, data in log.files.items():
            (Path(name) / file).write_bytes(data)
        yield Path(name)


def checksums(log: Path) -> dict[str, str]:
    """A checksum of each file of an artifact, beside which nothing is left."""
    assert not [path for path in log.parent.iterdir() if "partial" in path.name]
    return {
        str(file.relative_to(log)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(log.rglob("*"))
        if file.is_file()
    }


def outcome(
    config: LogConfig, folder: Path, name: str, engine: Engine, *, shard: int | None, threads: int = 1, block: int = 0
) -> dict[str, str] | str:
    """The checksums of a log, or why it is refused.

    Parameters
    ----------
    block
        Bytes of a block of text, and inputs of one of Parquet; 0 for the usual sizes.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAE_NUM_THREADS", str(threads))
        patch.setattr(shard_cuts, "SHARD_BYTES", shard)
        if block:
            for reader in (criteo, csv_reader, jsonl, taobao):
                patch.setattr(reader, "_BLOCK_BYTES", block)
            for reader, inputs in ((criteo, block), (jsonl, block), (parquet, block)):
                patch.setattr(reader, "_BATCH_INPUTS" if reader is parquet else "_MOST_INPUTS", 1 + inputs % 13)
        try:
            return checksums(ingest(config, folder / name / "log", base=folder, engine=engine).path)
        except LogError as error:
            return str(error)


def reference(log: DrawnLog, folder: Path) -> dict[str, str] | str:
    """What one thread makes of the log in one shard."""
    with ThreadsEngine(1) as engine:
        return outcome(log.config, folder, "whole", engine, shard=1 << 40)


@given(log=logs(), shards=st.tuples(SHARDS, SHARDS, SHARDS), block=st.integers(0, 3000))
@examples(30)
def test_threads_shards_and_blocks(log: DrawnLog, shards: tuple[int, ...], block: int) -> None:
    with written(log) as folder:
        whole = reference(log, folder)
        for threads, shard in zip((2, 3, 8), shards, strict=True):
            with ThreadsEngine(threads) as engine:
                of_block = log.longest + block if threads > 2 else 0  # none is shorter than a record
                found = outcome(log.config, folder, f"{threads}", engine, shard=shard, threads=threads, block=of_block)
            assert found == whole


@given(log=logs(formats=("csv",)), shards=st.tuples(st.integers(90, 500), SHARDS))
@examples(8)
def test_shards_that_begin_in_a_value(log: DrawnLog, shards: tuple[int, ...]) -> None:
    with written(log) as folder, ThreadsEngine(2) as engine:
        whole = reference(log, folder)
        for number, shard in enumerate(shards):
            assert outcome(log.config, folder, f"{number}", engine, shard=shard) == whole


@pytest.fixture(scope="module")
def processes() -> Iterator[dict[int, Engine]]:
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as engines:
        for name, value in OF_PROCESSES.items():
            patch.setenv(name, value)
        yield {number: engines.enter_context(ProcessesEngine(number)) for number in (2, 3)}


@given(log=logs(), shards=st.tuples(SHARDS, SHARDS))
@examples(8)
def test_processes(processes: dict[int, Engine], log: DrawnLog, shards: tuple[int, ...]) -> None:
    with written(log) as folder:
        whole = reference(log, folder)
        for (number, engine), shard in zip(processes.items(), shards, strict=True):
            assert outcome(log.config, folder, f"{number}", engine, shard=shard) == whole


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Path]]:
    """Three worker processes of Dask, and the folder that they see."""
    folder = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in OF_PROCESSES.items():
            patch.setenv(name, value)
        with dask_cluster() as running, DaskEngine(running.address, folder) as engine:
            yield engine, folder


@given(log=logs(), shard=SHARDS)
@examples(5)
def test_a_dask_cluster(cluster: tuple[Engine, Path], log: DrawnLog, shard: int) -> None:
    engine, place = cluster
    with written(log, place) as folder:
        assert outcome(log.config, folder, "dask", engine, shard=shard) == reference(log, folder)


@pytest.fixture(scope="module")
def workers() -> Iterator[LogWorkers]:
    with log_workers() as running:
        yield running


@given(log=logs(has_faults=False), shard=SHARDS)
@examples(6)
def test_three_workers_of_one_folder(workers: LogWorkers, log: DrawnLog, shard: int) -> None:
    with written(log) as folder:
        whole = reference(log, folder)
        if isinstance(whole, str):  # splits that leave nothing to train on
            return
        table = {key: value for key, value in to_table(log.config).items() if value not in (None, [], {})}
        for key in ("categorical", "dense"):
            columns = table.get(key, [])
            table[key] = [
                each if isinstance(each, str) else {name: value for name, value in each.items() if value is not None}
                for each in columns
            ]
        recipe = folder / "recipe.toml"
        recipe.write_text(toml({"log": table}))
        assert workers.ingest(recipe, folder / "run", shard) == [""] * 3
        assert checksums(folder / "run" / "log") == whole


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


@given(log=logs(), shard=SHARDS)
@examples(5)
def test_an_object_store(store: ObjectStore, log: DrawnLog, shard: int) -> None:
    with written(log) as folder, pytest.MonkeyPatch.context() as patch, ThreadsEngine(2) as engine:
        for name in list(os.environ):
            if name.startswith("AWS_"):
                patch.delenv(name)
        for name, value in {**OF_STORE, "AWS_ENDPOINT_URL": store.endpoint}.items():
            patch.setenv(name, value)
        whole = reference(log, folder)
        place = f"s3://clicks/{folder.name}"
        for name, data in log.files.items():
            store.put(f"{folder.name}/{name}", data)
        found = outcome(in_store(log.config, place), folder, "remote", engine, shard=shard)
        assert (found.replace(place, str(folder)) if isinstance(found, str) else found) == whole


@pytest.mark.parametrize("kind", ["csv", "jsonl", "criteo", "parquet"])
def test_shards_of_their_real_sizes(tmp_path: Path, kind: str) -> None:
    with written(large_log(kind, 5 * 2**20), tmp_path) as folder, ThreadsEngine(2) as engine:
        log = large_log(kind, 5 * 2**20)
        whole = reference(log, folder)
        assert isinstance(whole, dict), whole
        for mebibytes in (1, 4, 64):
            found = outcome(log.config, folder, f"{mebibytes}", engine, shard=mebibytes * 2**20, threads=2)
            assert found == whole


def test_every_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log, profile, hot set and packed batches."""
    write_log(tmp_path, 3000)
    recipe = write_recipe(tmp_path)
    runs = []
    for threads, shard, engine in ((1, 1 << 40, "threads:1"), (2, 9000, "threads:3"), (8, 2000, "processes:2")):
        monkeypatch.setenv("FAE_NUM_THREADS", str(threads))
        monkeypatch.setattr(shard_cuts, "SHARD_BYTES", shard)
        run = tmp_path / f"{threads}" / "run"  # a run beside another one would find its log
        succeed("ingest", recipe, "--out", run, "--engine", engine)
        for stage in STAGES[1:4]:
            succeed(stage, recipe, "--out", run)
        assert all((run / ARTIFACTS[stage]).is_dir() for stage in STAGES[:4])
        runs.append(contents(run))
    assert runs[1] == runs[0]
    assert runs[2] == runs[0]
