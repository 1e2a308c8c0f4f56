"""Digests that are computed before they are wanted are those of the files as they are, or are not taken."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from fae.artifacts import block_digests
from fae.cli.main import main
from fae.engine import local
from fae.ingest.config import LogConfig
from fae.ingest.raw_files import digests_ahead, source_digests
from fae.ingest.raw_files.digests_ahead import DigestsAhead, FileState, begin_digests, end_digests, take_digests
from fae.ingest.raw_files.source_digests import digest_sources
from fae.ingest.sources import SourceFile, find_sources

from commands import write_log, write_recipe

OLD_NS = 10**18


def write(path: Path, content: bytes) -> FileState:
    path.write_bytes(content)
    os.utime(path, ns=(OLD_NS, OLD_NS))
    return FileState(os.path.realpath(path), len(content), OLD_NS)


def nothing(num_bytes: float) -> None:
    """Progress that nobody sees."""


def sources(folder: Path, *names: str) -> list[SourceFile]:
    return find_sources(LogConfig(train=names, label="y", categorical=("user",)), folder)


def test_they_are_the_digests_of_the_files(tmp_path: Path) -> None:
    files = [write(tmp_path / name, name.encode() * 50_000) for name in ("a", "b")]
    (tmp_path / "link").symlink_to("a")
    told: list[int] = []
    found = DigestsAhead([tmp_path / "link", tmp_path / "b", tmp_path / "none"]).take(files, told.append)
    assert sum(told) == 100_000
    expected = block_digests.digest_files(
        [lambda name=name: block_digests.LocalBlocks(tmp_path / name) for name in ("a", "b")], [50_000] * 2
    )
    assert [found[file] for file in files] == expected


def test_who_waits_is_told_of_each_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_digests, "BLOCK_BYTES", 1000)
    is_awaited = threading.Event()
    tell = DigestsAhead._tell

    def late(self: DigestsAhead, num_bytes: int) -> None:
        is_awaited.wait()
        tell(self, num_bytes)

    monkeypatch.setattr(DigestsAhead, "_tell", late)
    file, told = write(tmp_path / "a", bytes(2500)), list[int]()

    def advance(num_bytes: int) -> None:
        told.append(num_bytes)
        is_awaited.set()

    assert list(DigestsAhead([tmp_path / "a"]).take([file], advance)) == [file]
    assert sorted(told) == [0, 500, 1000, 1000]


def test_a_file_that_changes_is_not_taken(tmp_path: Path) -> None:
    before = write(tmp_path / "a", b"before")
    ahead = DigestsAhead([tmp_path / "a", tmp_path / "new"])
    after = before._replace(mtime_ns=OLD_NS + 1)
    assert ahead.take([after], nothing) == {}
    (tmp_path / "new").write_bytes(b"written just now")
    status = (tmp_path / "new").stat()
    state = FileState(os.path.realpath(tmp_path / "new"), status.st_size, status.st_mtime_ns)
    assert DigestsAhead([tmp_path / "new"]).take([state], nothing) == {}


def test_threads_end_when_the_digests_are_not_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_digests, "BLOCK_BYTES", 1 << 10)
    begun = threading.Event()
    tell = DigestsAhead._tell

    def slow(self: DigestsAhead, num_bytes: int) -> None:
        begun.set()
        while not self._has_stopped:
            pass
        tell(self, num_bytes)

    monkeypatch.setattr(DigestsAhead, "_tell", slow)
    write(tmp_path / "a", bytes(100 << 10))
    before = threading.active_count()
    begin_digests([tmp_path / "a"])
    begun.wait()
    end_digests()
    assert threading.active_count() == before
    assert take_digests([FileState("a", 1, OLD_NS)], nothing) == {}


def test_sources_are_named_by_them_and_the_others_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.csv", "b.csv", "c.csv"):
        write(tmp_path / name, b"y,user\n0," + name.encode() + b"\n")
    monkeypatch.setattr(source_digests, "_known_digests", {})
    expected = digest_sources(sources(tmp_path, "a.csv", "b.csv", "c.csv"), None).of()
    monkeypatch.setattr(source_digests, "_known_digests", {})
    read: list[Any] = []
    real = source_digests.digest_files

    def watched(opens: Any, sizes: Any, **options: Any) -> list[str]:
        read.extend(sizes)
        return real(opens, sizes, **options)

    monkeypatch.setattr(source_digests, "digest_files", watched)
    begin_digests([tmp_path / "c.csv", tmp_path / "a.csv"])
    assert digest_sources(sources(tmp_path, "a.csv", "b.csv", "c.csv"), None).of() == expected
    end_digests()
    assert len(read) == 1


@pytest.mark.parametrize("command", ["ingest", "run"])
def test_a_command_names_a_large_log_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("FAE_NUM_THREADS", "4")
    monkeypatch.setattr(local, "_PROCESSES_FROM_BYTES", 1)
    monkeypatch.setattr(source_digests, "_known_digests", {})
    os.utime(write_log(tmp_path), ns=(OLD_NS, OLD_NS))
    taken: list[int] = []
    take = DigestsAhead.take

    def watched(self: DigestsAhead, *arguments: Any) -> dict[FileState, str]:
        found = take(self, *arguments)
        taken.append(len(found))
        return found

    monkeypatch.setattr(DigestsAhead, "take", watched)
    recipe = write_recipe(tmp_path)
    for out in ("first/run", "second/run"):
        assert not main([command, str(recipe), "--out", str(tmp_path / out), "--quiet"])
        monkeypatch.setattr(source_digests, "_known_digests", {})
    assert taken == [1, 1]
    manifests = [(tmp_path / out / "log" / "manifest.json").read_text() for out in ("first/run", "second/run")]
    assert manifests[0].partition('"summary"')[0] == manifests[1].partition('"summary"')[0]
    assert digests_ahead._ahead is None


def test_a_file_that_a_run_beside_has_named_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAE_NUM_THREADS", "4")
    monkeypatch.setattr(local, "_PROCESSES_FROM_BYTES", 1)
    monkeypatch.setattr(source_digests, "_known_digests", {})
    begun: list[list[str]] = []
    monkeypatch.setattr(DigestsAhead, "__init__", lambda self, paths: begun.append([path.name for path in paths]))
    monkeypatch.setattr(DigestsAhead, "take", lambda *_: {})
    monkeypatch.setattr(DigestsAhead, "stop", lambda *_: None)
    os.utime(write_log(tmp_path), ns=(OLD_NS, OLD_NS))
    recipe = write_recipe(tmp_path)
    for out in ("one", "two"):
        assert not main(["ingest", str(recipe), "--out", str(tmp_path / "runs" / out), "--quiet"])
    assert begun == [["log.csv"], []]


def test_a_damaged_sidecar_of_a_neighbour_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAE_NUM_THREADS", "4")
    monkeypatch.setattr(local, "_PROCESSES_FROM_BYTES", 1)
    write_log(tmp_path)
    for name, content in (("a", b'{"x\xff": 1}'), ("b", b"")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "log.sources.json").write_bytes(content)
    (tmp_path / "runs" / "c").mkdir()
    os.mkfifo(tmp_path / "runs" / "c" / "log.sources.json")
    assert not main(["ingest", str(write_recipe(tmp_path)), "--out", str(tmp_path / "runs" / "mine"), "--quiet"])
