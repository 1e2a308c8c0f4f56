"""Ids that stay in the parts until they are final, and the counts of parts: the same log as from joined rows."""

from __future__ import annotations

import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae.core.errors import ArtifactError
from fae.core.npy import NpyRows
from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest
from fae.ingest.numbering import id_blocks, part_ids, second_pass, training_counts, vocabulary_writer
from fae.ingest.shards import kept_parts, shard_cuts, shard_reading, shard_rows, sharded_reading

LOG = "log.csv"
COLUMNS: dict[str, tuple[Any, ...]] = {
    "plain": ("user", "item"),
    "a list": ("user", ColumnConfig(name="tags", max_length=3)),
    "a shared table": ("item", ColumnConfig(name="other", table="item"), ColumnConfig(name="tags", max_length=2)),
    "encoded": ("user", ColumnConfig(name="code", encoded=True)),
}


def write_log(path: Path, num_inputs: int = 400) -> None:
    draw = random.Random(3)
    lines = ["label,user,item,other,tags,code,x"]
    for index in range(num_inputs):
        user, item, other = (f"v{int(draw.paretovariate(0.8)) % 90 + index // 40}" for _ in range(3))
        tags = "|".join(str(draw.randint(0, 20)) for _ in range(draw.randint(0, 4)))
        lines.append(f"{draw.randint(0, 1)},{user},{item},{other},{tags},{draw.randint(0, 30)},{draw.random():.3f}")
    path.write_text("\n".join(lines) + "\n")


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def in_parts(monkeypatch: pytest.MonkeyPatch, num_bytes: int = 1500) -> None:
    """Read the log in many shards, and its ids in blocks that begin and end anywhere."""
    monkeypatch.setattr(shard_cuts, "SHARD_BYTES", num_bytes, raising=True)
    monkeypatch.setattr(id_blocks, "_BYTES_PER_THREAD", 200)


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("fractions", [(0.1, 0.05), (0.5, 0.4), (0.0, 0.0)])
def test_the_same_log_from_parts_and_from_joined_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fractions: tuple[float, float]
) -> None:
    write_log(tmp_path / LOG)
    in_parts(monkeypatch)
    test, validation = fractions
    config = LogConfig(
        train=LOG, categorical=COLUMNS[name], dense=("x",), test_fraction=test, validation_fraction=validation
    )
    added: list[int] = []
    real = part_ids.PartMaps.of_column
    monkeypatch.setattr(part_ids.PartMaps, "of_column", lambda *args: added.append(args[1]) or real(*args))
    ingest(config, tmp_path / "parts", base=tmp_path)
    assert bool(added) == (name != "encoded")
    for module in (sharded_reading, shard_reading):
        monkeypatch.setattr(module, "is_ordered", lambda config: True)
    added.clear()
    ingest(config, tmp_path / "joined", base=tmp_path)
    assert not added
    assert contents(tmp_path / "parts") == contents(tmp_path / "joined")


def test_any_rows_of_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(tmp_path / LOG)
    in_parts(monkeypatch)
    config, real = LogConfig(train=LOG, categorical=COLUMNS["a list"]), second_pass.count_training
    looked: list[bool] = []

    def look(encoders: Any, ids: Any, *more: Any) -> Any:
        assert isinstance(ids, part_ids.PartIds)
        assert len(ids.parts) > 5
        rows, draw = ids.read(0, len(ids)), random.Random(1)
        assert (*rows.shape, ids.row_bytes) == (*ids.shape, 16) == (400, 4, 16)
        for _ in range(200):
            start, stop = sorted(draw.randint(0, len(ids)) for _ in range(2))
            assert np.array_equal(ids.read(start, stop), rows[start:stop])
        assert len(ids.read(390, 500)) == 10
        looked.append(True)
        return real(encoders, ids, *more)

    monkeypatch.setattr(second_pass, "count_training", look)
    ingest(config, tmp_path / "log", base=tmp_path)
    assert looked


DAMAGED = [
    "ids.npy",
    "counts",
    "part.json",
    "part_maps.npy",
    "a part",
    "a header",
    "labels.npy",
    "dense.npy",
    "nothing",
]


@pytest.mark.parametrize("what", DAMAGED)
@pytest.mark.parametrize("late", [False, True])
def test_damage_between_two_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, late: bool) -> None:
    """The log is read anew where a byte of what it is made from has changed; else nothing is read."""
    write_log(tmp_path / LOG)
    in_parts(monkeypatch)
    config = LogConfig(train=LOG, categorical=COLUMNS["plain"], dense=("x",))
    ingest(config, tmp_path / "whole", base=tmp_path)
    with monkeypatch.context() as patch:

        def stop(*arguments: Any) -> None:
            raise KeyboardInterrupt

        if late:
            patch.setattr(vocabulary_writer, "write_vocabulary", stop)
        else:
            patch.setattr(second_pass, "count_training", stop)
        with pytest.raises(KeyboardInterrupt):
            ingest(config, tmp_path / "log", base=tmp_path)
    work = tmp_path / ".log.partial" / "work"
    part = sorted((work / "parts").glob("*-*"))[2]
    if what == "a part":
        part.rename(tmp_path / "elsewhere")
    elif what == "part.json":
        facts = json.loads((part / what).read_text())
        (part / what).write_text(json.dumps({**facts, "num_inputs": facts["num_inputs"] - 1}))
    elif what in ("a header", "labels.npy", "dense.npy"):  # as a power failure may leave them: written last
        path = part / "ids.npy" if what == "a header" else work.parent / what
        path.write_bytes(bytes(128) + path.read_bytes()[128:])
    elif what != "nothing":
        path = work / what if what.startswith("part_maps") else part / what
        data = bytearray(path.read_bytes())
        data[-12] ^= 1
        path.write_bytes(data)
    read: list[int] = []
    real = shard_reading.read_span
    monkeypatch.setattr(shard_reading, "read_span", lambda *args: read.append(1) or real(*args))
    ingest(config, tmp_path / "log", base=tmp_path)
    assert bool(read) == (what != "nothing")
    assert contents(tmp_path / "log") == contents(tmp_path / "whole")
    assert not list(tmp_path.glob(".log*"))


def test_rows_of_parts_are_dropped_but_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(tmp_path / LOG)
    in_parts(monkeypatch)
    seen: list[set[str]] = []
    real = second_pass.VocabularyWriter.jobs

    def jobs(writer: Any) -> Any:
        parts = tmp_path / ".log.partial" / "work" / "parts"
        seen.extend({file.name for file in part.iterdir()} for part in parts.iterdir())
        return real(writer)

    monkeypatch.setattr(second_pass.VocabularyWriter, "jobs", jobs)
    ingest(LogConfig(train=LOG, categorical=COLUMNS["plain"]), tmp_path / "log", base=tmp_path)
    assert len(seen) > 5
    assert all("ids.npy" in names for names in seen)
    with NpyRows(tmp_path / "log" / "ids.npy") as ids:
        assert len(ids) == 400


def test_rows_that_a_killed_command_has_not_dropped_are_dropped_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(tmp_path / LOG)
    in_parts(monkeypatch)
    config = LogConfig(train=LOG, categorical=COLUMNS["plain"], dense=("x",))

    def stop(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kept_parts.KeptParts, "drop_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            ingest(config, tmp_path / "log", base=tmp_path)
    parts = tmp_path / ".log.partial" / "work" / "parts"
    assert list(parts.glob("*/labels.npy"))
    seen: list[Path] = []
    real = kept_parts.KeptParts.remove

    def remove(kept: kept_parts.KeptParts) -> None:
        kept.wait()
        seen.extend(parts.glob("*/*.npy"))
        real(kept)

    monkeypatch.setattr(kept_parts.KeptParts, "remove", remove)
    ingest(config, tmp_path / "log", base=tmp_path)
    assert {path.name for path in seen} == {"ids.npy"}


def test_an_interrupt_before_rows_are_dropped_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was set before the thread began, and to wait for it was an error of its own."""
    write_log(tmp_path / LOG)
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "fae-drop":
            raise KeyboardInterrupt
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        ingest(LogConfig(train=LOG, categorical=COLUMNS["plain"]), tmp_path / "log", base=tmp_path)


def test_rows_that_cannot_be_copied_end_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(tmp_path / LOG, 4000)
    in_parts(monkeypatch)
    monkeypatch.setenv("FAE_NUM_THREADS", "1")
    read: list[int] = []
    real = shard_reading.read_span

    def slow(*arguments: Any) -> Any:
        time.sleep(0.01)
        read.append(1)
        return real(*arguments)

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard_reading, "read_span", slow)
    monkeypatch.setattr(shard_rows, "_copy_rows", full)
    with pytest.raises(ArtifactError, match="No space left"):
        ingest(LogConfig(train=LOG, categorical=COLUMNS["plain"]), tmp_path / "log", base=tmp_path)
    assert len(read) < 20


def test_counts_that_would_not_fit_memory_are_made_of_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(tmp_path / LOG)
    in_parts(monkeypatch)
    config = LogConfig(train=LOG, categorical=COLUMNS["a shared table"])
    ingest(config, tmp_path / "counted", base=tmp_path)
    monkeypatch.setattr(training_counts, "_BYTES_AT_ONCE", 900)
    ingest(config, tmp_path / "few", base=tmp_path)
    monkeypatch.setattr(shard_reading, "_SHARE_OF_COUNTS", 2**40)
    counted: list[Any] = []
    monkeypatch.setattr(shard_reading, "count_part", lambda *arguments: counted.append(1))
    ingest(config, tmp_path / "rows", base=tmp_path)
    assert not counted
    assert contents(tmp_path / "counted") == contents(tmp_path / "few") == contents(tmp_path / "rows")
