"""Ids that stay in the parts until they are final, and the counts of parts: the same log as from joined rows."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae.core.npy import NpyRows
from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest
from fae.ingest.numbering import id_blocks, part_ids, second_pass, vocabulary_writer
from fae.ingest.shards import shard_cuts, shard_reading, sharded_reading

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


@pytest.mark.parametrize("what", ["ids.npy", "counts", "part.json", "part_maps.npy", "a part", "nothing"])
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
