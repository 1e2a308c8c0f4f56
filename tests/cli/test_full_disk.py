"""Disks that are full or read-only, at many moments of every stage: one line, and nothing that was there is touched.

The disks are real ones of a few kilobytes (`disks`): what a library makes of the system's refusal is what is tested.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fae.core.whole_files import write_record

from commands import ARTIFACTS, STAGES, Done, contents, fae, fault, succeed, unfinished, write_recipe
from disks import PAGE, SmallDisk, small_disk

CHANGES: dict[str, list[str]] = {
    "ingest": ["log.min_frequency=2"],
    "profile": ["hot.sample=0.5", "hot.sample_min_inputs=99"],
    "calibrate": ["hot.budget=3KiB"],
    "pack": ["train.seed=8"],
    "train": ["train.learning_rate=0.3", "train.checkpoint_batches=5", "train.early_stopping=2", "train.epochs=2"],
}
"""Change what makes a stage run again while its old artifact is still there."""

NO_SPACE = "No space left on device; free some space or choose another folder with --out"


def changed(stage: str) -> list[str]:
    """As arguments."""
    return [part for override in CHANGES[stage] for part in ("--set", override)]


def growing() -> Iterator[int]:
    """0, 1, 2, 3, ... 8, then in steps of a fifth."""
    number = 0
    while True:
        yield number
        number += max(1, number // 5)


def without(files: dict[str, bytes], *folders: str) -> dict[str, bytes]:
    """Files but for some, and for those in some folders."""
    return {name: data for name, data in files.items() if name.split("/")[0] not in folders}


@pytest.fixture
def disk(finished_run: Path, tmp_path: Path) -> Iterator[tuple[SmallDisk, Path]]:
    """A small disk with a finished run on it, and the recipe, which is elsewhere."""
    shutil.copy(finished_run / "log.csv", tmp_path)
    recipe = write_recipe(tmp_path)
    with small_disk(tmp_path / "disk") as small:
        shutil.copytree(finished_run / "run", small.path / "run")
        yield small, recipe


@pytest.mark.parametrize("kind", ["bytes", "names"])
@pytest.mark.parametrize("stage", STAGES)
def test_stage_on_a_full_disk(disk: tuple[SmallDisk, Path], stage: str, kind: str) -> None:
    """From no room at all to enough, for bytes and for files: each time it stops at another moment."""
    small, recipe = disk
    run = small.path / "run"
    before = contents(run)
    described = {name: (run / name).read_bytes() for name in ("run.json", "metrics.jsonl")}
    used_bytes, used_names = small.used_bytes, small.used_names
    statuses = []
    for room in growing():
        if kind == "bytes":
            small.resize(used_bytes + room * PAGE)
        else:
            small.resize(64 << 20, used_names + room)
        replace = ["--replace"] if stage in ("ingest", "train") else []
        done = fae(stage, recipe, "--out", run, *replace, *changed(stage))
        statuses.append(done.status)
        if done.status == 0:
            break
        fault(done, str(run), NO_SPACE)
        assert not unfinished(run)
        if (run / "checkpoint" / "manifest.json").read_bytes() == before["checkpoint/manifest.json"]:
            assert {name: (run / name).read_bytes() for name in described} == described
        now = contents(run)
        if stage != "train":
            # Of ingest also what it has read stays, for the next try; that is in a folder of its own.
            assert without(now, ".log.partial", ".log.partial.json") == before
        elif now != before:  # it had got as far as a checkpoint of its own, which is whole
            own = ("checkpoint", "best", "last", "metrics.jsonl")
            assert without(now, *own) == without(before, *own)
    assert statuses[0] == 2
    assert len(statuses) > 1
    small.resize(64 << 20)
    succeed("run", recipe, "--out", run, "--replace", *changed(stage))


def test_run_from_nothing_on_a_growing_disk(disk: tuple[SmallDisk, Path]) -> None:
    """Every stage in turn does not fit; each run continues with what the ones before it left, to the same bytes."""
    small, recipe = disk
    expected = contents(small.path / "run")
    shutil.rmtree(small.path / "run")
    run = small.path / "new"
    named = set()
    for room in growing():
        small.resize(small.used_bytes + room * PAGE)
        done = fae("run", recipe, "--out", run)
        if done.status == 0:
            break
        line = fault(done, "cannot write to", str(run), NO_SPACE)
        named |= {name for name in (*ARTIFACTS.values(), "run.json", "timings.json") if f"{run / name}:" in line}
        assert not unfinished(small.path)
    assert {"log", "packed", "checkpoint"} <= named
    ours = contents(run)
    assert {name for name in expected if ours[name] != expected[name]} <= {
        "checkpoint/progress.json", "checkpoint/manifest.json",  # they hold times
    }  # fmt: skip


@pytest.mark.parametrize("name", ["run.json", "timings.json"])
def test_record_on_a_full_disk(disk: tuple[SmallDisk, Path], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The artifacts are there, the record is not: the next run writes it."""
    small, recipe = disk
    run = small.path / "run"
    before = contents(run)
    (run / name).unlink()
    if name == "timings.json":
        shutil.rmtree(run / "profile")

    def on_a_full_disk(path: Path, value: object) -> None:
        if path.name == name:
            small.resize(small.used_bytes)
        write_record(path, value)

    monkeypatch.setattr("fae.run.folder.write_record", on_a_full_disk)
    fault(fae("run", recipe, "--out", run), f"cannot write to {run / name}", NO_SPACE)
    assert not (run / name).exists()
    assert not unfinished(run)
    assert contents(run) == before
    small.resize(64 << 20)
    monkeypatch.undo()
    succeed("run", recipe, "--out", run)
    assert contents(run) == before


def on_full(small: SmallDisk, *arguments: object) -> Done:
    """A command while there is no room at all."""
    small.resize(small.used_bytes)
    try:
        return fae(*arguments)
    finally:
        small.resize(64 << 20)


def test_report_on_a_full_disk(disk: tuple[SmallDisk, Path]) -> None:
    small, _ = disk
    run = small.path / "run"
    fault(on_full(small, "report", run), f"cannot write to {run / 'report.html'}", NO_SPACE)
    assert not (run / "report.html").exists()
    succeed("report", run)
    page = (run / "report.html").read_bytes()
    fault(on_full(small, "report", run), f"cannot write to {run / 'report.html'}", NO_SPACE)
    assert (run / "report.html").read_bytes() == page
    assert not unfinished(run)


def test_synthetic_logs_on_a_full_disk(disk: tuple[SmallDisk, Path]) -> None:
    small, _ = disk
    text, folder = small.path / "log.tsv", small.path / "columnar"
    for room in itertools.islice(growing(), 12):
        for arguments in (("--out", text), ("--columnar", "--out", folder)):
            small.resize(small.used_bytes + room * PAGE)
            done = fae("synthetic", "--inputs", 3000, *arguments)
            fault(done, "No space left on device", str(small.path))
            assert not unfinished(small.path)
    assert not text.exists()
    assert not (folder / "log").exists()
    small.resize(small.used_bytes)
    fault(fae("demo", "--inputs", 5000, "--out", small.path / "demo"), "No space left on device", str(small.path))


@pytest.mark.parametrize("verb", ["run", *STAGES])
def test_read_only_disk(disk: tuple[SmallDisk, Path], verb: str) -> None:
    """Whether there is something to do or not: the lock of the folder cannot be taken, and that is said first."""
    small, recipe = disk
    run = small.path / "run"
    before = contents(run)
    changes = changed(verb) if verb in CHANGES else []
    small.set_read_only(True)
    try:
        for out in (run, small.path / "new" / "run"):
            done = fae(verb, recipe, "--out", out, *changes)
            fault(done, f"cannot write to {out}: Read-only file system; make it writable or choose", "--out")
        assert contents(run) == before
    finally:
        small.set_read_only(False)


def test_report_and_demo_on_a_read_only_disk(disk: tuple[SmallDisk, Path]) -> None:
    small, _ = disk
    run = small.path / "run"
    small.set_read_only(True)
    try:
        fault(fae("report", run), f"cannot write to {run / 'report.html'}: Read-only file system")
        succeed("report", run, "--out", small.path.parent / "page.html")  # reading is enough for that
        for verb in (["demo"], ["synthetic", "--columnar"]):
            fault(fae(*verb, "--inputs", 5000, "--out", run), f"cannot write to {run}: Read-only file system")
        fault(fae("synthetic", "--inputs", 5000, "--out", run / "log.tsv"), "Read-only file system", "log.tsv")
    finally:
        small.set_read_only(False)
