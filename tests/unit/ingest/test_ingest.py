"""A whole ingest: the same log compiled and as plain Python, and with any number of threads."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest
from fae.ingest.readers import csv as csv_reader

from logs import write_behaviour

CRITEO_LINE = "\t".join(["{label}", *["{count}"] * 13, *["{id}"] * 26]) + "\n"


def write_criteo(path: Path) -> None:
    rng = np.random.Generator(np.random.Philox(key=3))
    path.write_text(
        "".join(
            CRITEO_LINE.format(label=i % 2, count=("", 3, -1)[i % 3], id=f"{int(rng.integers(40)):08x}"[: i % 9])
            for i in range(60)
        )
    )


def log_bytes(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_loops_as_plain_python_give_the_same_log(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    write_criteo(tmp_path / "log.tsv")
    config = LogConfig(train="log.tsv", format="criteo", min_frequency=2)
    ingest(config, tmp_path / "compiled", base=tmp_path)
    request.getfixturevalue("plain_python")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an overflow would warn, and would not be what the compiled loop does
        ingest(config, tmp_path / "plain", base=tmp_path)
    assert log_bytes(tmp_path / "compiled") == log_bytes(tmp_path / "plain")


def test_taobao_as_plain_python_gives_the_same_log(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    write_behaviour(tmp_path / "clicks.csv", num_users=30)
    config = LogConfig(train="clicks.csv", format="taobao")
    ingest(config, tmp_path / "compiled", base=tmp_path)
    request.getfixturevalue("plain_python")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ingest(config, tmp_path / "plain", base=tmp_path)
    assert log_bytes(tmp_path / "compiled") == log_bytes(tmp_path / "plain")


def test_threads_do_not_change_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_criteo(tmp_path / "log.tsv")
    config = LogConfig(train="log.tsv", format="criteo")
    for threads in ("1", "3"):
        monkeypatch.setenv("FAE_NUM_THREADS", threads)
        ingest(config, tmp_path / threads, base=tmp_path)
    assert log_bytes(tmp_path / "1") == log_bytes(tmp_path / "3")


def test_quoted_line_ends_at_the_edges_of_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "label,id\n" + "".join(f'{i % 2},"a\n{i % 7}"\n' for i in range(50))
    (tmp_path / "log.csv").write_text(text)
    for block_bytes in range(40, 60):
        monkeypatch.setattr(csv_reader, "_BLOCK_BYTES", block_bytes)
        log = ingest(LogConfig(train="log.csv", categorical=("id",)), tmp_path / "log", base=tmp_path)
        assert (log.num_inputs, log.features[0].num_embeddings) == (50, 8)
