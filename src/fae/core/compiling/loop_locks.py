"""A lock that one process holds while it compiles a loop; others that need the loop wait, and load what it has kept.

Compiling is single-threaded and mostly Python, so several processes share it (`fae.run.ahead.compile_helpers`), and
workers of an engine that start side by side need the same loops. The lock is a file beside the kept loop; it ends with
the process that holds it. Where files cannot be locked, every process compiles for itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

PATIENCE = 60.0
"""Seconds to wait for another process, longer than any loop takes: one that was stopped must not stop others."""
_PAUSE = 0.005


class LoopLock:
    """The lock of one compiled function. A thread takes it within numba's own lock, so there is one at a time.

    Parameters
    ----------
    path
        The file; made where it can be.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self, patience: float = PATIENCE) -> bool:
        """Take the lock, or keep it; returns False if another process still has it after `patience` seconds."""
        if self._descriptor is not None:
            return True
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError:
            return True
        try:
            is_ours = _lock(descriptor, time.monotonic() + patience)
        except OSError:  # the disk knows no locks
            os.close(descriptor)
            return True
        except BaseException:
            os.close(descriptor)
            raise
        if is_ours:
            self._descriptor = descriptor
        else:
            os.close(descriptor)
        return is_ours

    def release(self) -> None:
        """Give it back, if it is held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a process that was forked meanwhile has the file open, too
            os.close(descriptor)


def _lock(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE)
        else:
            return True
