"""What is made again and what is not, and that what is made again is the same to the last byte."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from commands import ARTIFACTS, STAGES, contents, strict_json, succeed, write_log, write_recipe

TIMED = {f"{name}/{file}" for name in ("checkpoint", "best") for file in ("progress.json", "manifest.json")}
"""Progress holds times, and the manifest beside it holds its checksum."""

TIMES = {
    "started", "ended", "command", "seconds", "samples_per_second", "stage_seconds", "phase_seconds", "timed_seconds",
    "timed_inputs",
}  # fmt: skip


def without_times(value: Any) -> Any:
    """A record or a progress file, but for what a clock said."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def written(run: Path) -> dict[str, int]:
    """When each artifact was made; a folder that is made again is a new one."""
    return {stage: (run / name).stat().st_ino for stage, name in ARTIFACTS.items()}


def made_again(folder: Path, *arguments: object, recipe: str = "recipe.toml") -> list[str]:
    """Run again with `arguments`; the stages whose artifact is a new folder."""
    run = folder / "run"
    # The old folders stay open, so that no new one gets the number of an old one.
    kept = [os.open(run / name, os.O_RDONLY) for name in ARTIFACTS.values()]
    try:
        before = written(run)
        done = succeed("run", folder / recipe, "--out", run, "--replace", *arguments)
        after = written(run)
    finally:
        for handle in kept:
            os.close(handle)
    again = [stage for stage in STAGES if before[stage] != after[stage]]
    assert [stage for stage in STAGES if f"{stage}: already there" not in done.stderr] == again
    return again


def test_a_setting_that_came_later_is_no_part_of_a_run_that_leaves_it_out(finished: Path) -> None:
    """Else every run from before it would be made again, and half a run would start anew."""
    manifest = strict_json((finished / "run" / "checkpoint" / "manifest.json").read_text())
    assert {"capture", "precision"} <= set(manifest["parameters"]["train"])
    assert "compile" not in manifest["parameters"]["train"]


def test_nothing_changed(finished: Path) -> None:
    run = finished / "run"
    before, record = contents(run), strict_json((run / "run.json").read_text())
    started = time.perf_counter()
    assert made_again(finished) == []
    seconds = time.perf_counter() - started
    assert contents(run) == before
    again = strict_json((run / "run.json").read_text())
    assert without_times(again) == without_times(record)
    assert again["stage_seconds"] == record["stage_seconds"], "times of the runs that did the work"
    assert seconds < 10 * sum(record["stage_seconds"].values())


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["train.learning_rate=0.05"], ["train"]),
        (["train.epochs=2"], ["train"]),
        (["train.placement=device"], ["train"]),
        (["train.order=adaptive"], ["calibrate", "pack", "train"]),
        (["model.top_mlp=[4]"], ["train"]),
        (["hot.budget=3KiB"], ["calibrate", "pack", "train"]),
        (["hot.ring_depth=3", "hot.budget=4.5KiB"], ["calibrate", "pack", "train"]),
        (["train.batch_size=24"], ["calibrate", "pack", "train"]),
        (["train.order=interleaved"], ["calibrate", "pack", "train"]),
        (["train.optimizer=sgd"], ["calibrate", "pack", "train"]),
        (["hot.sample_min_inputs=99", "hot.sample=0.5"], ["profile", "calibrate", "pack", "train"]),
        (["train.seed=8"], ["calibrate", "pack", "train"]),  # the profile read every input, whatever the seed
        (["log.min_frequency=2"], list(STAGES)),
        # Written differently and meaning the same, or not shaping any artifact:
        (["hot.budget=4096"], []),
        (["train.checkpoint_minutes=3.0"], []),
        (["log.categorical=['user', {name='item'}, 'site']"], []),
    ],
)
def test_what_depends_on_what(finished: Path, overrides: list[str], expected: list[str]) -> None:
    arguments = [part for override in overrides for part in ("--set", override)]
    assert made_again(finished, *arguments) == expected
    assert made_again(finished, *arguments) == []


def test_touching_and_moving_the_log(finished: Path) -> None:
    log = finished / "log.csv"
    os.utime(log, (1e9, 1e9))
    assert made_again(finished) == []
    (finished / "there").mkdir()
    log.rename(finished / "there" / "log.csv")
    assert made_again(finished, "--set", "log.train=there/log.csv") == []


def test_one_byte_of_the_log(finished: Path) -> None:
    log = finished / "log.csv"
    content = bytearray(log.read_bytes())
    last = content.rstrip().rfind(b",") + 1
    content[last] = ord("7") if content[last] != ord("7") else ord("8")
    log.write_bytes(content)
    assert made_again(finished) == list(STAGES)


def test_one_byte_of_the_log_within_a_tick_of_the_clock(finished: Path) -> None:
    """The size is the same and the time all but the same: the bytes decide."""
    log = finished / "log.csv"
    status = log.stat()
    log.write_bytes(log.read_bytes()[:-2] + b"9\n")
    os.utime(log, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert made_again(finished) == list(STAGES)


def test_recipe_in_another_place_and_words(finished: Path) -> None:
    """Comments, order and the recipe's own name are not what a run is made of."""
    text = (finished / "recipe.toml").read_text()
    sections = text.split("\n[")
    (finished / "other.toml").write_text("# the same\n[" + "\n[".join([*sections[1:], sections[0].lstrip("[")]))
    assert made_again(finished, recipe="other.toml") == []


def check_same_runs(first: Path, second: Path) -> None:
    """Two runs of one recipe: the same bytes in every artifact, the same figures in the record."""
    ours, theirs = contents(first), contents(second)
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} <= TIMED
    for name in ("checkpoint/progress.json", "run.json"):
        figures = [without_times(strict_json((run / name).read_text())) for run in (first, second)]
        assert figures[0] == figures[1]


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"order": "shuffled", "epochs": 2},
        {"order": "adaptive", "epochs": 2, "optimizer": "sgd"},
        {"epochs": 3, "early_stopping": 1, "learning_rate": 0.5},
    ],
    ids=["interleaved", "shuffled", "adaptive", "early stopping"],
)
def test_same_recipe_in_two_folders(tmp_path: Path, train: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the threads: the second run has one, the first has three."""
    for name, threads in (("first", "3"), ("second", "1")):
        monkeypatch.setenv("FAE_NUM_THREADS", threads)
        folder = tmp_path / name
        folder.mkdir()
        write_log(folder)
        succeed("run", write_recipe(folder, train=train), "--out", folder / "run")
    check_same_runs(tmp_path / "first" / "run", tmp_path / "second" / "run")


def test_there_and_back_again(finished: Path) -> None:
    """Another budget and the first one again: the bytes of the first time."""
    before = contents(finished / "run")
    assert made_again(finished, "--budget", "3KiB")
    assert made_again(finished) == ["calibrate", "pack", "train"]
    after = contents(finished / "run")
    assert {name for name in before if before[name] != after[name]} <= TIMED
