"""Tasks for the tests of engines: they leave traces in a folder, so that a test sees what has run, where, how often."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fae.core.errors import LogError
from fae.core.threads import num_threads, run_jobs
from fae.engine.stopping import check_stop


@dataclass(frozen=True)
class Part:
    """A range of a file."""

    path: Path
    start: int
    stop: int


@dataclass(frozen=True)
class Counted:
    """What came of a part."""

    part: Part
    total: int
    shares: tuple[float, ...]


class OwnError(Exception):
    """An error that FAE does not know, and that needs more than a text."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(line, what)
        self.line = line


def square(number: int) -> int:
    return number * number


def count(factor: int, part: Part) -> Counted:
    total = factor * sum(range(part.start, part.stop))
    return Counted(part, total, (0.1, float("inf"), total / 3))


def trace(folder: Path, event: str, number: int) -> None:
    """Leave a file that says what happened to a task in which process."""
    (folder / f"{event}.{number}.{os.getpid()}.{time.monotonic_ns()}").touch()


def events(folder: Path, event: str) -> list[int]:
    """Numbers of the tasks that have left a trace, as often as they did."""
    return sorted(int(path.name.split(".")[1]) for path in folder.glob(f"{event}.*"))


def processes(folder: Path) -> set[int]:
    """Processes in which tasks have begun."""
    return {int(path.name.split(".")[2]) for path in folder.glob("begun.*")}


def traced(folder: Path, seconds: float, number: int) -> int:
    """Take a while."""
    trace(folder, "begun", number)
    time.sleep(seconds)
    trace(folder, "ended", number)
    return number


def fail_early_and_late(folder: Path, number: int) -> int:
    """Two tasks fail, the later one in order first."""
    trace(folder, "begun", number)
    try:
        if number == 4:
            time.sleep(0.3)
            raise LogError("log.csv, line 4: expected a number")
        if number == 5:
            raise LogError("log.csv, line 5: expected a number")
        return number
    finally:
        trace(folder, "ended", number)


def fail_with(number: int) -> int:
    """An error of another kind a number; the odd numbers do not fail."""
    if number == 0:
        raise LogError("log.csv: is empty")
    if number == 2:
        raise OSError(28, "No space left on device", "log/ids.npy")
    if number == 4:
        raise KeyError("user")
    if number == 6:
        raise OwnError(7, "odd")
    return number


def fail_until(marker: Path, number: int) -> int:
    """Fail as long as a file is not there."""
    if number == 2 and not marker.exists():
        raise LogError("log.csv: is not there yet")
    trace(marker.parent, "begun", number)
    return number


def die_once(folder: Path, number: int) -> int:
    """End the process of one task, the first time that it runs."""
    trace(folder, "begun", number)
    if number == 3:
        marker = folder / "died"
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return number


def die_always(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def hang_once(folder: Path, number: int) -> int:
    """The first one who runs task 1 never ends; a second try does."""
    if number == 1:
        try:
            (folder / "hangs").touch(exist_ok=False)
        except FileExistsError:
            return number
        trace(folder, "begun", number)
        time.sleep(600)
    return number


def long_but_polite(folder: Path, number: int) -> int:
    """Work for minutes, and look between the blocks whether it is still wanted."""
    trace(folder, "begun", number)
    try:
        for _ in range(6000):
            check_stop()
            time.sleep(0.02)
    finally:
        trace(folder, "ended", number)
    return number


def threads_of_a_task(number: int) -> list[int]:
    """How many threads a task may use, and how many its loops use."""
    found: set[int] = set()
    run_jobs([lambda: found.add(threading.get_ident())] * 8)
    return [num_threads(), len(found)]


def settings_of_libraries(number: int) -> dict[str, Any]:
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_IO_THREADS")
    return {name: os.environ.get(name) for name in names}


def odd_result(number: int) -> object:
    """A result that is no plain value."""
    return {number}
