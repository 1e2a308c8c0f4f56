"""Tasks that are no longer wanted: a long one looks between its blocks whether it should end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

_current = threading.local()


class TaskStopped(Exception):
    """A task ended before its result, because nobody waits for it any more."""


def check_stop() -> None:
    """End the task of this thread if nobody waits for its result: another one failed, or the user interrupted.

    Cheap enough for every block of a task. Outside of a task it does nothing.

    Raises
    ------
    TaskStopped
        Which the task lets through.
    """
    event: threading.Event | None = getattr(_current, "event", None)
    if event is not None and event.is_set():
        raise TaskStopped


@contextlib.contextmanager
def stopped_by(event: threading.Event) -> Iterator[None]:
    """Let `check_stop` of this thread look at an event while the block runs."""
    before = getattr(_current, "event", None)
    _current.event = event
    try:
        yield
    finally:
        _current.event = before
