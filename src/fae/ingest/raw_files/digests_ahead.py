"""Digest large raw files from the first moment of a command on, while its libraries are imported.

Imports next to nothing. Half of the cores do it: the others import, here and in the server of worker processes.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fae.artifacts.block_digests import LocalBlocks, digest_files
from fae.core.threads import num_threads

TRUST_AFTER_NS = 2 * 10**9
"""A file that changed less than this before it was hashed may change again without a new time."""


class FileState(NamedTuple):
    """A file as it was: behind all links, with its size and the time of its last change in nanoseconds."""

    real: str
    num_bytes: int
    mtime_ns: int


class DigestsAhead:
    """The digests of some files, which threads compute meanwhile.

    A file that cannot be read, or has changed just now, is left out.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._files = _states(paths)
        self._found: dict[FileState, str] = {}
        self._has_stopped = False
        self._lock = threading.Lock()
        self._num_bytes = 0
        self._advance: Callable[[int], None] = self._count
        self._thread = threading.Thread(target=self._work, name="fae-digest-ahead")
        self._thread.start()

    def take(self, files: Sequence[FileState], advance: Callable[[int], None]) -> dict[FileState, str]:
        """Wait for the digests; none where one of the files that were begun is not among `files`, as it was.

        Parameters
        ----------
        advance
            Called with the bytes that are digested, of any of them.
        """
        if not set(self._files) <= set(files):
            self.stop()
            return {}
        with self._lock:
            advance(self._num_bytes)
            self._advance = advance
        self._thread.join()
        return self._found

    def stop(self) -> None:
        """End the threads."""
        self._has_stopped = True
        self._thread.join()

    def _work(self) -> None:
        with contextlib.suppress(Exception):  # what is missing is computed when it is wanted
            digests = digest_files(
                [partial(LocalBlocks, Path(file.real)) for file in self._files],
                [file.num_bytes for file in self._files],
                advance=self._tell, workers=max(1, num_threads() // 2),
            )  # fmt: skip
            self._found = dict(zip(self._files, digests, strict=True))

    def _tell(self, num_bytes: int) -> None:
        if self._has_stopped:
            raise InterruptedError
        with self._lock:
            self._advance(num_bytes)

    def _count(self, num_bytes: int) -> None:
        self._num_bytes += num_bytes


def _states(paths: Iterable[Path]) -> list[FileState]:
    now, found = time.time_ns(), []
    for path in paths:
        with contextlib.suppress(OSError):
            real = os.path.realpath(path)
            status = os.stat(real)
            if now - status.st_mtime_ns >= TRUST_AFTER_NS:
                found.append(FileState(real, status.st_size, status.st_mtime_ns))
    return list(dict.fromkeys(found))


_ahead: DigestsAhead | None = None


def begin_digests(paths: Iterable[Path]) -> None:
    """Begin to digest files for `take_digests`; `end_digests` must follow."""
    global _ahead
    end_digests()
    _ahead = DigestsAhead(paths)


def take_digests(files: Sequence[FileState], advance: Callable[[int], None]) -> dict[FileState, str]:
    """See `DigestsAhead.take`."""
    return {} if _ahead is None else _ahead.take(files, advance)


def end_digests() -> None:
    """End what was begun and is not done."""
    global _ahead
    ahead, _ahead = _ahead, None
    if ahead is not None:
        ahead.stop()
