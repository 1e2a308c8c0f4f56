"""Where a log is cut into shards."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fae.ingest.config import LogConfig
from fae.ingest.readers.span import WHOLE_FILE, Span
from fae.ingest.shards import shard_cuts
from fae.ingest.shards.shard_cuts import Shard, cut_log
from fae.ingest.sources import find_sources

ROWS = 1000


def cuts(folder: Path, size: int, monkeypatch: pytest.MonkeyPatch, *files: str) -> list[Shard]:
    monkeypatch.setattr(shard_cuts, "SHARD_BYTES", size)
    config = LogConfig(format="parquet", train=files, label="y", categorical=("user", "item"))
    return cut_log(config, find_sources(config, folder))


def write(path: Path, values: int, groups: int) -> None:
    """Row groups of 1,000 inputs; columns that no recipe wants are large."""
    number = ROWS * groups
    ids = [f"{index % values:08x}" for index in range(number)]
    table = pa.table(
        {"y": [0] * number, "user": ids, "item": ids, "other": [f"{index:0200x}" for index in range(number)]}
    )
    pq.write_table(table, path, row_group_size=ROWS, compression="zstd")


def test_row_groups_are_measured_by_the_values_that_are_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "few.parquet", 3, 6)
    text = 10 * 3 * ROWS
    assert (tmp_path / "few.parquet").stat().st_size < 3 * text
    spans = [shard.span for shard in cuts(tmp_path, text, monkeypatch, "few.parquet")]
    assert spans == [Span(begin=index, end=index + 1) for index in range(6)]
    spans = [shard.span for shard in cuts(tmp_path, 4 * text, monkeypatch, "few.parquet")]
    assert spans == [Span(begin=0, end=4), Span(begin=4, end=6)]
    assert [shard.span for shard in cuts(tmp_path, 6 * text, monkeypatch, "few.parquet")] == [WHOLE_FILE]


def test_bytes_of_parquet_shards_are_those_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.parquet", 3, 4)
    write(tmp_path / "b.parquet", 900, 2)
    (tmp_path / "c.parquet").write_bytes(b"no Parquet at all, which its reader says")
    shards = cuts(tmp_path, 1, monkeypatch, "a.parquet", "b.parquet", "c.parquet")
    assert [shard.source for shard in shards] == [0, 0, 0, 0, 1, 1, 2]
    assert shards[-1] == Shard(source=2, span=WHOLE_FILE, num_bytes=40)
    for source, name in enumerate(("a", "b")):
        held = sum(shard.num_bytes for shard in shards if shard.source == source)
        assert 0.7 * (size := (tmp_path / f"{name}.parquet").stat().st_size) < held < size
