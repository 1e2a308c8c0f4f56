"""The time left of long work: from what this process did, not from what it found."""

from __future__ import annotations

import pytest

from fae.core import progress
from fae.core.progress import task


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_line_says_the_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with task("pack", 1000) as shown:
        clock.now += 20
        shown.advance(100, "cold")
    assert capsys.readouterr().err.strip() == "pack: 10 % after 20 s, about 3 min 0 s left, cold"


def test_what_was_found_says_nothing_of_the_rate(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with task("train", 1000, "batches") as shown:
        shown.find(800)
        clock.now += 20
        shown.advance(100)
    assert capsys.readouterr().err.strip() == "train: 90 % after 20 s, about 20 s left"


@pytest.mark.parametrize(("total", "done"), [(None, 5), (10_000, 5)])
def test_what_is_not_known_is_not_said(
    clock: Clock, capsys: pytest.CaptureFixture[str], total: float | None, done: int
) -> None:
    with task("calibrate", total, "steps") as shown:
        clock.now += 20
        shown.advance(done)
    line = capsys.readouterr().err
    assert "after 20 s" in line
    assert "left" not in line


def test_watchers_are_told_of_begin_and_end() -> None:
    told: list[tuple[str, bool]] = []
    watch = lambda label, begins: told.append((label, begins))  # noqa: E731
    progress.watchers.append(watch)
    try:
        with pytest.raises(KeyError), task("work"):
            raise KeyError
    finally:
        progress.watchers.remove(watch)
    assert told == [("work", True), ("work", False)]
