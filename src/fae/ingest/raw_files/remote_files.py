"""Open raw files wherever they are, and read remote ones by ranges, ahead of the reader and again when cut off."""

from __future__ import annotations

import io
import os
import stat
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from fae.artifacts.block_digests import LocalBlocks, ReadableBlocks
from fae.core.progress import say
from fae.core.threads import num_threads
from fae.ingest.raw_files.missing_files import RemoteFileError
from fae.ingest.raw_files.remote_entries import Ranges
from fae.ingest.raw_files.remote_faults import explain_remote_fault
from fae.ingest.raw_files.remote_name import RemoteName, is_remote
from fae.ingest.raw_files.remote_stores import store_of

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each new try of a read that was cut off. The libraries try three times by themselves before that."""
_STEPS = (1 << 16, 1 << 20, 8 * 2**20)
"""Bytes of a range: of the first one behind a jump, of the next, and of all others while reading continues."""
_AHEAD = 3
"""Ranges that are fetched ahead, once they are of the largest size."""
_REQUESTS = 16
"""Ranges that are fetched at once, of all files together: one connection seldom has more than 100 MB/s."""

_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget_pool)


def _requests() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(_REQUESTS, thread_name_prefix="fae-remote")
    return _pool


class RemotePath(RemoteName):
    """A file that is elsewhere, with what readers use of a path; it is no path of this machine."""

    def stat(self) -> os.stat_result:
        """Size and time of the last change; ``st_mtime_ns`` is -1 where the store does not say.

        Raises
        ------
        FileNotFoundError
            If it is not there.
        RemoteFileError
            If that cannot be found out.
        """
        found = store_of(self).status_of(self)
        if found is None or found.is_folder:
            raise FileNotFoundError(2, os.strerror(2), str(self))
        return os.stat_result(
            (stat.S_IFREG, 0, 0, 1, 0, 0, found.num_bytes, 0, max(found.mtime_ns, 0) // 10**9, 0),
            {"st_mtime_ns": found.mtime_ns},
        )

    def exists(self) -> bool:
        """Whether it is there."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def open(self, mode: str = "rb") -> Any:
        """Open it for reading bytes: a file object that can seek."""
        if mode != "rb":
            raise ValueError(f"{self} is open for reading bytes alone, mode {mode!r}")
        return io.BufferedReader(RemoteFile(self), 1 << 16)


def source_path(name: str) -> Path:
    """The path of a raw file, or of a pattern: a `RemotePath`, which readers take like a path, where it is elsewhere.

    Raises
    ------
    LogError
        If the name holds a user's name or password.
    """
    return cast("Path", RemotePath(name)) if is_remote(name) else Path(name)


def open_source(name: Path | str) -> tuple[Any, int]:
    """Open a raw file, local or remote, for reading anywhere in it.

    Parameters
    ----------
    name
        A path as `fae.ingest.sources.SourceFile` has it, or a name as a recipe has it.

    Returns
    -------
    The file, an Arrow file with ``read``, ``seek``, ``tell`` and ``read_at(num_bytes, position)``, which may move it;
    and its size in bytes.

    Raises
    ------
    OSError
        If a local file cannot be opened.
    RemoteFileError
        If a remote one cannot, at once or when it is read.
    """
    import pyarrow as pa

    path = source_path(name) if isinstance(name, str) else name
    if isinstance(path, RemotePath):
        remote = RemoteFile(path)
        return pa.PythonFile(remote, mode="r"), remote.num_bytes
    file = pa.OSFile(os.fsencode(path))  # whatever bytes its name has: pyarrow takes text as UTF-8 alone
    return file, int(file.size())


def open_blocks(path: Path) -> ReadableBlocks:
    """Open a raw file for its digest."""
    remote = cast("object", path)
    return RemoteBlocks(remote) if isinstance(remote, RemotePath) else LocalBlocks(path)


def workers_for(paths: Sequence[Path]) -> int:
    """Threads that read files: where one is remote, more than there are cores, as most of them wait."""
    is_remote = any(isinstance(cast("object", path), RemotePath) for path in paths)
    return max(num_threads(), _REQUESTS) if is_remote else num_threads()


class RetriedRanges:
    """A remote file whose ranges are read again, after growing pauses, where an answer is cut off.

    Several threads may read at once.
    """

    def __init__(self, path: RemoteName) -> None:
        self._path, self._is_closed = path, False
        self._ranges: Ranges = self._retried(lambda: store_of(path).open(path), "opening it")
        self.num_bytes = self._ranges.num_bytes

    def read(self, first: int, stop: int) -> bytes:
        """The bytes ``[first, stop)`` of the file.

        Raises
        ------
        RemoteFileError
            If they cannot be read, or not after several tries.
        """

        def read() -> bytes:
            data = self._ranges.read(first, stop)
            if len(data) != stop - first:
                raise ConnectionResetError
            return data

        return cast("bytes", self._retried(read, f"reading from byte {first:,} of {self.num_bytes:,} on"))

    def _retried(self, action: Any, what: str) -> Any:
        for pause in (*PAUSES, None):
            try:
                return action()
            except Exception as error:
                fault = explain_remote_fault(self._path, error)
                if not fault.is_passing or self._is_closed:
                    raise fault from error
                if pause is None:
                    text = str(fault).removeprefix(f"{self._path}: ")
                    raise RemoteFileError(
                        f"{self._path}: {what} failed {len(PAUSES) + 1} times in a row: {text}; the same command "
                        "continues from what is kept"
                    ) from error
                say(f"ingest: {str(fault).split('; ')[0]}; trying again in {pause:g} s")
            time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def close(self) -> None:
        """Close the file."""
        self._is_closed = True
        self._ranges.close()


class RemoteBlocks(RetriedRanges):
    """A remote file, open for `fae.artifacts.block_digests.digest_files`."""

    def pieces(self, first: int, stop: int) -> Iterator[bytes | memoryview]:
        """The bytes ``[first, stop)`` as one piece; nothing where the file is shorter."""
        if stop <= self.num_bytes:
            yield self.read(first, stop)


class RemoteFile(io.RawIOBase):
    """A remote file as Python's file objects are, read ahead as long as its reader continues.

    Memory is at most four ranges of 8 MiB, or what one read wants.
    """

    def __init__(self, path: RemoteName) -> None:
        super().__init__()
        self._ranges = RetriedRanges(path)
        self.num_bytes: int = self._ranges.num_bytes
        self._position, self._first, self._held = 0, 0, b""
        self._step = self._planned = 0
        self._ahead: deque[tuple[int, Future[bytes]]] = deque()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Position of the next byte to read."""
        return self._position

    def size(self) -> int:
        """Bytes of the file."""
        return self.num_bytes

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; nothing is read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.num_bytes}[whence]
        if base + offset < 0:
            raise OSError(22, os.strerror(22))
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the file reaches."""
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), max(self.num_bytes - self._position, 0))
        filled = 0
        while filled < wanted:
            self._hold(wanted - filled)
            start = self._position - self._first
            count = min(wanted - filled, len(self._held) - start)
            view[filled : filled + count] = self._held[start : start + count]
            filled += count
            self._position += count
        return filled

    def read(self, size: int | None = -1) -> bytes:
        """The next `size` bytes, fewer only where the file ends; all that follow without a size."""
        left = max(self.num_bytes - self._position, 0)
        buffer = bytearray(left if size is None or size < 0 else min(size, left))
        self.readinto(buffer)
        return bytes(buffer)

    def readall(self) -> bytes:
        """All bytes that follow."""
        return self.read()

    def close(self) -> None:
        """Close the file; ranges that are on their way are dropped."""
        if not self.closed:
            self._drop_ahead()
            self._held = b""
            self._ranges.close()
        super().close()

    def _hold(self, wanted: int) -> None:
        """Make the range at hand one that has the byte at the position."""
        end = self._first + len(self._held)
        if self._first <= self._position < end:
            return
        if self._position != end or not self._held:
            self._drop_ahead()
            self._step, self._planned = 0, self._position
        if not self._ahead:
            self._plan(wanted)
        self._first, future = self._ahead.popleft()
        while self._step == len(_STEPS) - 1 and len(self._ahead) < _AHEAD and self._planned < self.num_bytes:
            self._plan(0)
        self._held = future.result()

    def _plan(self, wanted: int) -> None:
        """Fetch the next range that nobody has fetched."""
        size = max(_STEPS[self._step], min(wanted, _STEPS[-1]))
        first, stop = self._planned, min(self._planned + size, self.num_bytes)
        self._ahead.append((first, _requests().submit(self._ranges.read, first, stop)))
        self._planned, self._step = stop, min(self._step + 1, len(_STEPS) - 1)

    def _drop_ahead(self) -> None:
        for _, future in self._ahead:
            future.cancel()
        self._ahead.clear()
