"""A disk that is full or read-only, at every moment of every stage: one line, and nothing that was there is touched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import STAGES, contents, fae, fault, unfinished, write_recipe
from disks import PAGE, SmallDisk, small_disk

CHANGES: dict[str, list[str]] = {
    "ingest": ["log.min_frequency=2"],
    "profile": ["hot.sample=0.5", "hot.sample_min_inputs=99"],
    "calibrate": ["hot.budget=3KiB"],
    "pack": ["train.seed=8"],
    "train": ["train.learning_rate=0.3", "train.checkpoint_batches=5"],
}
"""What has a stage made again, while the artifact of before stands in its place."""


def changed(stage: str) -> list[str]:
    """As arguments."""
    return [part for override in CHANGES[stage] for part in ("--set", override)]


@pytest.fixture
def disk(finished_run: Path, tmp_path: Path) -> Iterator[tuple[SmallDisk, Path]]:
    """A small disk with a finished run on it, and the recipe, which is elsewhere."""
    shutil.copy(finished_run / "log.csv", tmp_path)
    recipe = write_recipe(tmp_path)
    with small_disk(tmp_path / "disk") as small:
        shutil.copytree(finished_run / "run", small.path / "run")
        yield small, recipe


@pytest.mark.parametrize("stage", STAGES)
def test_stage_on_a_full_disk(disk: tuple[SmallDisk, Path], stage: str) -> None:
    """Page by page, from no room at all to enough."""
    small, recipe = disk
    run = small.path / "run"
    before = contents(run)
    target = "train" if stage == "train" else stage
    used = small.used_bytes
    statuses = []
    for pages in range(400):
        small.resize(used + pages * PAGE)
        done = fae(target, recipe, "--out", run, *changed(stage))
        statuses.append(done.status)
        if done.status == 0:
            break
        fault(done, "No space left on device", str(run), "--out")
        assert contents(run) == before
        assert not unfinished(run)
    assert statuses[0] == 2
    assert statuses[-1] == 0
    assert len(statuses) > 1
