"""Progress of a long stage, on stderr: a bar on a terminal, a line every 15 seconds elsewhere.

Stdout belongs to results (``--json``); nothing here writes to it. Nothing here fails: a stream that is closed, full or
read by nobody costs the lines and no more.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, cast

from fae.core.printable import is_muted, printable, tell, write_log_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LINE_EVERY_SECONDS = 15.0


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
        self._done = 0.0
        self._start = self._last_line = time.monotonic()

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
            line = f"{self._label}: {share} after {now - self._start:.0f} s {note}".rstrip()
            # A bar is on the terminal already, and not in the log file.
            (say if self._bar is None else write_log_line)(line)


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
