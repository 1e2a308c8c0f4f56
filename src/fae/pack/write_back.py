"""Have the system write files to the disk while they grow, so that little is left to wait for at their end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class WriteBack:
    """A thread that waits for the disk, one file after the other; started by the first file.

    Without it a system with much memory keeps everything that was written until an artifact is complete, and then all
    threads wait for the disk.
    """

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None
        self._is_over = False

    def start(self, sync: Callable[[], None]) -> None:
        """Call `sync`, which waits until a file is on the disk, some time later."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="fae-pack-disk", daemon=True)
                self._thread.start()
        self._waiting.put(sync)

    def _work(self) -> None:
        while (sync := self._waiting.get()) is not None:
            if self._error is None and not self._is_over:
                try:
                    sync()
                except OSError as error:
                    self._error = error

    def stop(self, *, at_once: bool) -> None:
        """Wait until the thread has ended.

        Parameters
        ----------
        at_once
            Whether to leave out the files that it has not begun with.

        Raises
        ------
        OSError
            If a file could not be written to the disk: the system tells this only once.
        """
        self._is_over = at_once
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error
