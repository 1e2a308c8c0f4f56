"""Lanes: threads that each run one compiled loop over all batches of a pass, and meet at counters.

Place in the flow: the streaming pipeline and the feeds start one lane for each kind of work; the consumer alone speaks
Python and to the device. Why: a hand-over between Python threads costs 20 to 50 us, as much as copying a thousand rows;
with a dozen threads and some 45 hand-overs a batch, that was three times a whole step. Invariant: whoever waits is
released when a lane fails and when the consumer leaves; no thread outlives `Lanes.stop`.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.counters import NOT_YET, REACHED, STOP, look, new_counters, publish
from fae.core.threads import num_threads

Cells = npt.NDArray[np.int64]
_MOST_CELLS = 1024
_MANY_CORES = 8
# Of a waiting lane: yields before it sleeps (0.3 us each), longest sleep in microseconds. Waiting has a price: cores
# often come in pairs, and whoever spins takes from its sibling; where they are few, it takes them from work.
_MANY_PATIENCE, _FEW_PATIENCE = (20, 32), (0, 256)
PATIENCE: tuple[int, int] | None = None
"""Set by benchmarks in place of the two."""
_SET_TIMER_SLACK = 29  # prctl


def sleep_exactly() -> None:
    """Let short sleeps of this thread end on time (Linux adds 50 us else); elsewhere they are longer."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_SET_TIMER_SLACK, 1000, 0, 0, 0)


def _nothing() -> None:
    pass


_running: weakref.WeakSet[Lanes] = weakref.WeakSet()


def _release_all() -> None:
    for lanes in list(_running):
        publish(lanes.counters, STOP, 1)


# A stream that is never closed must not keep the process: this comes before threads are joined, atexit only after.
if hasattr(threading, "_register_atexit"):
    threading._register_atexit(_release_all)


class Lanes:
    """Counters and the threads that raise them.

    Parameters
    ----------
    name
        Of the threads.

    Attributes
    ----------
    waited
        Seconds that the consumer has waited.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        patience = _MANY_PATIENCE if num_threads() >= _MANY_CORES else _FEW_PATIENCE
        self.counters = new_counters(_MOST_CELLS, *(PATIENCE or patience))
        self._num_cells, self.waited = 0, 0.0
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None

    def cells(self, count: int) -> Cells:
        """Numbers of `count` new counters, at 0."""
        first = self._num_cells + 1
        self._num_cells += count
        assert self._num_cells <= _MOST_CELLS
        return np.arange(first, first + count)

    def cell(self) -> int:
        """Number of one new counter, at 0."""
        return int(self.cells(1)[0])

    def start(self, loop: Callable[..., object], *arguments: Any) -> None:
        """Run ``loop(counters, *arguments)`` in a thread of its own."""

        def guarded() -> None:
            sleep_exactly()
            try:
                loop(self.counters, *arguments)
            except BaseException as error:  # told to the consumer when it waits next
                self._failure = error
                publish(self.counters, STOP, 1)

        _running.add(self)
        thread = threading.Thread(target=guarded, name=self._name)
        self._threads.append(thread)
        thread.start()

    def publish(self, cell: int, count: int) -> None:
        """Raise a counter."""
        publish(self.counters, cell, count)

    def have(self, cells: Cells, count: int) -> bool:
        """Whether all these counters have reached `count`."""
        return bool(look(self.counters, cells, count, 0) == REACHED)

    def wait(self, cells: Cells, count: int, meanwhile: Callable[[], None] = _nothing) -> None:
        """Wait in the consumer until all these counters have reached `count`, calling `meanwhile` every 10 us or so.

        Raises
        ------
        RuntimeError
            If a lane failed; its error is the cause.
        """
        if self.have(cells, count):
            return
        started = time.perf_counter()
        while True:
            state = look(self.counters, cells, count, 20)
            if state == REACHED:
                self.waited += time.perf_counter() - started
                return
            if state != NOT_YET:
                if self._failure is None:  # the process ends with this pass unfinished
                    return
                raise RuntimeError(f"a {self._name} thread failed") from self._failure
            meanwhile()

    def stop(self) -> None:
        """Release every waiting lane and wait for its end."""
        publish(self.counters, STOP, 1)
        for thread in self._threads:
            thread.join()
        _running.discard(self)
