"""Which files make a log, and the digests that identify them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from fae.artifacts.manifest import is_current
from fae.core.errors import LogError
from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest
from fae.ingest.log_plan import plan_ingest
from fae.ingest.raw_files import source_digests as sources
from fae.ingest.raw_files.source_digests import sidecar
from fae.ingest.sources import find_sources

TEXT = "label,item\n1,a\n0,b\n1,a\n0,b\n"


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_known_digests", {})


@pytest.fixture
def digested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read to compute their digests."""
    names: list[str] = []
    real = sources.open_blocks

    def spy(path: Path) -> Any:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(sources, "open_blocks", spy)
    return names


def write(path: Path, text: str = TEXT, age_seconds: float = 60) -> None:
    path.write_text(text)
    moment = time.time() - age_seconds
    os.utime(path, (moment, moment))


def config(**changes: Any) -> LogConfig:
    return LogConfig(**({"train": "a.csv", "categorical": ("item",)} | changes))


def test_globs_are_in_natural_order_and_test_files_last(tmp_path: Path) -> None:
    for name in ("day_10.csv", "day_2.csv", "day_1.csv", "eval.csv"):
        write(tmp_path / name)
    found = find_sources(config(train=("day_*.csv",), test="eval.csv"), tmp_path)
    assert [(source.name, source.role) for source in found] == [
        ("day_1.csv", "train"), ("day_2.csv", "train"), ("day_10.csv", "train"), ("eval.csv", "test"),
    ]  # fmt: skip


def test_names_that_match_nothing_or_twice(tmp_path: Path) -> None:
    write(tmp_path / "a.csv")
    (tmp_path / "folder").mkdir()
    for train, test, expected in (
        ("b.csv", (), "does not exist; set [log] train"),
        ("folder", (), "is a folder"),
        ("b*.csv", (), "'b*.csv' matches no file"),
        ((), (), "[log] train names no file"),
        ("*.csv", "a.csv", "is named twice, by [log] train and by [log] test"),
        ("a.csv", "gone.csv", "does not exist; set [log] test"),
    ):
        with pytest.raises(LogError) as caught:
            plan_ingest(config(train=train, test=test), base=tmp_path)
        assert expected in str(caught.value)


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    write(tmp_path / "a[1].csv")
    assert [source.name for source in find_sources(config(train="a[1].csv"), tmp_path)] == ["a[1].csv"]


def test_content_names_the_log_not_time_or_place(tmp_path: Path) -> None:
    write(tmp_path / "a.csv")
    first = plan_ingest(config(), base=tmp_path)
    os.utime(tmp_path / "a.csv")
    assert plan_ingest(config(), base=tmp_path).fingerprint == first.fingerprint
    (tmp_path / "moved").mkdir()
    write(tmp_path / "moved" / "a.csv")
    assert plan_ingest(config(train="moved/a.csv"), base=tmp_path).fingerprint == first.fingerprint
    write(tmp_path / "a.csv", TEXT.replace("0,b", "1,b", 1))
    assert plan_ingest(config(), base=tmp_path).fingerprint != first.fingerprint
    assert str(tmp_path) not in json.dumps(first.parameters)
    assert first.parameters["sources"][0]["bytes"] == len(TEXT)


def test_two_spellings_of_one_configuration_are_one_log(tmp_path: Path) -> None:
    write(tmp_path / "a.csv")
    plans = [
        plan_ingest(this, base=tmp_path).fingerprint
        for this in (
            config(),
            config(train=("a.csv",), test_fraction=0.1),
            config(categorical=(ColumnConfig(name="item"),)),
            config(min_frequency=2),
        )
    ]
    assert plans[0] == plans[1] == plans[2] != plans[3]


def test_unchanged_files_are_not_read_again(tmp_path: Path, digested: list[str], monkeypatch: Any) -> None:
    write(tmp_path / "a.csv")
    path = tmp_path / "run" / "log"
    plan_ingest(config(), base=tmp_path, previous=path)
    ingest(config(), path, base=tmp_path)
    assert digested == ["a.csv"]  # once in one process
    monkeypatch.setattr(sources, "_known_digests", {})  # another process
    plan = plan_ingest(config(), base=tmp_path, previous=path)
    assert digested == ["a.csv"]
    assert is_current(path, plan)
    os.utime(tmp_path / "a.csv", (1, 1))
    plan_ingest(config(), base=tmp_path, previous=path)
    assert digested == ["a.csv"] * 2
    monkeypatch.setattr(sources, "_known_digests", {})
    plan_ingest(config(), base=tmp_path, previous=path)  # the plan itself remembered the touched file
    assert digested == ["a.csv"] * 2
    assert "sources.json" not in "".join(file.name for file in path.rglob("*"))


def test_a_file_just_written_is_not_trusted(tmp_path: Path, digested: list[str]) -> None:
    write(tmp_path / "a.csv", age_seconds=0)
    path = tmp_path / "log"
    for _ in range(2):
        plan_ingest(config(), base=tmp_path, previous=path)
    assert digested == ["a.csv"] * 2


@pytest.mark.parametrize("content", ["", "[]", '{"x": 3}', "{"])
def test_a_damaged_sidecar_only_costs_time(tmp_path: Path, content: str) -> None:
    write(tmp_path / "a.csv")
    path = tmp_path / "log"
    expected = plan_ingest(config(), base=tmp_path).fingerprint
    sidecar(path).write_text(content)
    assert plan_ingest(config(), base=tmp_path, previous=path).fingerprint == expected


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.csv")
    from fae.ingest import chunk_encoding as module

    real = module._encode_chunk

    def slow(*arguments: Any) -> Any:
        rows = real(*arguments)
        write(tmp_path / "a.csv", TEXT + "1,a\n")
        return rows

    monkeypatch.setattr(module, "_encode_chunk", slow)
    with pytest.raises(LogError, match="changed while it was read"):
        ingest(config(), tmp_path / "log", base=tmp_path)
    assert not (tmp_path / "log").exists()


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.csv")

    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(sources, "open_blocks", refuse)
    with pytest.raises(LogError, match=r"cannot read .*Permission denied"):
        plan_ingest(config(), base=tmp_path)
