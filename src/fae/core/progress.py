"""Progress of a long stage, on stderr: a bar on a terminal, a line every 15 seconds elsewhere, both with the time left.

Stdout belongs to results (``--json``); nothing here writes to it. Nothing here fails: a stream that is closed, full or
read by nobody costs the lines and no more.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, cast

from fae.core.printable import is_muted, printable, tell, write_log_line
from fae.core.units import format_duration

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LINE_EVERY_SECONDS = 15.0
_SURE_SHARE = 0.005
"""Share of the work after which the time left is more than a guess."""

watchers: list[Callable[[str, bool], None]] = []
"""Who is told of each piece of work of this process: its label, and whether it begins or ends."""


def say(text: str) -> None:
    """Print one line for people, on stderr; what cannot be seen in it is escaped (`fae.core.printable`).

    Under ``--quiet`` it goes into the log file alone.
    """
    if is_muted():
        write_log_line(text)
    else:
        tell(text)


class Task:
    """A piece of long work whose progress is shown; `advance` counts in the unit of `total`."""

    def __init__(self, label: str, total: float | None, unit: str, bar: tuple[Progress, TaskID] | None) -> None:
        self._label, self._total, self._unit, self._bar = label, total, unit, bar
        self._done = self._found = 0.0
        self._start = self._last_line = time.monotonic()

    def find(self, amount: float) -> None:
        """Count `amount` units as done before this process began: they say nothing of how long the rest takes."""
        self._done += amount
        self._found += amount
        if self._bar is not None and amount:
            progress, task_id = self._bar
            progress.reset(task_id, total=self._total, completed=int(self._done))  # forgets the rate so far

    def advance(self, amount: float, note: str = "") -> None:
        """Add `amount` units to what is done; `note` is shown behind the bar."""
        self._done += amount
        if self._bar is not None:
            progress, task_id = self._bar
            progress.update(task_id, advance=amount, note=printable(note))
        now = time.monotonic()
        if now - self._last_line >= _LINE_EVERY_SECONDS:
            self._last_line = now
            share = f"{100 * self._done / self._total:.0f} %" if self._total else f"{self._done:,.0f} {self._unit}"
            left = self.seconds_left(now - self._start)
            rest = "" if left is None else f", about {format_duration(left)} left"
            comma = "," if rest and note else ""
            line = f"{self._label}: {share} after {format_duration(now - self._start)}{rest}{comma} {note}".rstrip()
            # A bar is on the terminal already, and not in the log file.
            (say if self._bar is None else write_log_line)(line)

    def seconds_left(self, seconds: float) -> float | None:
        """Seconds that the rest takes at the rate of what this process did in `seconds`; None where it is not known.

        Examples
        --------
        >>> half = Task("pack", 100, "inputs", None)
        >>> half.find(40)
        >>> half.advance(10)
        >>> half.seconds_left(2.0)
        10.0
        """
        own = self._done - self._found
        if not self._total or own < _SURE_SHARE * self._total:
            return None
        return max(0.0, self._total - self._done) * seconds / own


class _Terminal:
    """Stderr for the bar. One that was closed meanwhile takes nothing, and the work continues."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def task(label: str, total: float | None = None, unit: str = "inputs") -> Iterator[Task]:
    """Show the progress of one piece of work while the block runs."""
    for watcher in watchers:
        watcher(label, True)
    try:
        with _shown(label, total, unit) as shown:
            yield shown
    finally:
        for watcher in watchers:
            watcher(label, False)


@contextmanager
def _shown(label: str, total: float | None, unit: str) -> Iterator[Task]:
    if is_muted() or not _is_terminal(sys.stderr):
        yield Task(label, total, unit, None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )  # fmt: skip
    console = Console(file=cast(IO[str], _Terminal(sys.stderr)))
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(printable(label), total=total, note="")
        yield Task(label, total, unit, (progress, bar))


def _is_terminal(stream: IO[str] | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):  # closed
        return False
