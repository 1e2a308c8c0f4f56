"""WorkerGroup: threads that each run one compiled loop over all batches of a pass, and meet at counters.

Place in the flow: the streaming pipeline and the feeds start one lane for each kind of work; the consumer alone speaks
Python. Why: a hand-over between Python threads costs 20 to 50 us, as much as copying a thousand rows; with a dozen
threads and some 45 hand-overs a batch, that was three times a whole step. Invariant: whoever waits is released when a
lane fails or ends before its work is done, and when the consumer leaves; no thread outlives `WorkerGroup.stop`.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.threads import num_threads
from fae.streaming.counters import NOT_YET, REACHED, STOP, new_counters, poll, publish

CounterIds = npt.NDArray[np.int64]
MOST_COUNTERS = 1024
_MANY_CORES = 8
# Of a waiting lane: yields before it sleeps (0.3 us each), longest sleep in microseconds. Waiting has a price: cores
# often come in pairs, and whoever spins takes from its sibling; where they are few, it takes them from work.
_MANY_PATIENCE, _FEW_PATIENCE = (20, 32), (0, 256)
PATIENCE: tuple[int, int] | None = None
"""Set by benchmarks in place of the two."""
_LOOKS = 20  # of the consumer, between those that Python has a part in: 6 us of yields or 4 ms of sleep
_LOOK_AT_THREADS = 0.25
"""Seconds that the consumer waits before it asks whether those that it waits for still run, and between such looks."""
_SET_TIMER_SLACK = 29  # prctl


@cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None)  # once: every lane of every pass asks for it


def sleep_exactly() -> None:
    """Let short sleeps of this thread end on time (Linux adds 50 us else); elsewhere they are longer."""
    with contextlib.suppress(AttributeError, OSError):
        _c_library().prctl(_SET_TIMER_SLACK, 1000, 0, 0, 0)


_running: weakref.WeakSet[WorkerGroup] = weakref.WeakSet()


def _release_all() -> None:
    for lanes in list(_running):
        publish(lanes.counters, STOP, 1)


# A stream that is never closed must not keep the process: this comes before threads are joined, atexit only after.
if hasattr(threading, "_register_atexit"):
    threading._register_atexit(_release_all)


@dataclass(frozen=True, kw_only=True)
class _Worker:
    """A thread, the counter that it raises, and where that counter stands when its work is done."""

    what: str
    cell: int
    end: int
    thread: threading.Thread


class WorkerError(RuntimeError):
    """A lane failed, or ended before its work was done: a defect, or no memory. The lane's own error is the cause."""


class WorkerGroup:
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
        # The consumer, too, takes the cores from work where it looks on and on; where they are many it is to be quick.
        self._sleeps = num_threads() < _MANY_CORES
        patience = _FEW_PATIENCE if self._sleeps else _MANY_PATIENCE
        self.counters = new_counters(MOST_COUNTERS, *(PATIENCE or patience))
        self._num_cells, self.waited = 0, 0.0
        self._lanes: list[_Worker] = []
        self._failure: tuple[str, BaseException | None] | None = None

    def cells(self, count: int) -> CounterIds:
        """Numbers of `count` new counters, at 0."""
        first = self._num_cells + 1
        self._num_cells += count
        assert self._num_cells <= MOST_COUNTERS
        return np.arange(first, first + count)

    def cell(self) -> int:
        """Number of one new counter, at 0."""
        return int(self.cells(1)[0])

    def start(self, what: str, loop: Callable[..., object], cell: int, *arguments: Any, end: int) -> None:
        """Run ``loop(counters, cell, *arguments)`` in a thread of its own.

        Parameters
        ----------
        what
            The lane's name, for people.
        cell
            The counter that the loop raises.
        end
            Where it leaves it. A loop that ends below, though nobody asked it to stop, has failed.
        """

        def guarded() -> None:
            sleep_exactly()
            try:
                loop(self.counters, cell, *arguments)
            except BaseException as error:  # told to the consumer when it waits next
                self._fail(f"failed: {type(error).__name__}: {error}", what, error)
                return
            if self.counters[cell, 0] < end and not self.counters[STOP, 0]:
                self._fail(self._unfinished(cell, end), what, None)

        _running.add(self)
        thread = threading.Thread(target=guarded, name=f"{self._name}: {what}")
        thread.start()
        self._lanes.append(_Worker(what=what, cell=cell, end=end, thread=thread))

    def _unfinished(self, cell: int, end: int) -> str:
        return f"ended, without an error, at {self.counters[cell, 0]} of {end} batches"

    def _fail(self, how: str, what: str, error: BaseException | None) -> None:
        if self._failure is None:
            self._failure = f"{self._name} thread {what!r} {how}", error
        publish(self.counters, STOP, 1)

    def _look_at_threads(self, cells: CounterIds, count: int) -> None:
        """Fail where a counter that is waited for has not come to `count` and nobody is left to raise it."""
        for lane in self._lanes:
            # In this order: what a thread does last is seen once it is known to have ended.
            if lane.cell in cells and not lane.thread.is_alive() and self.counters[lane.cell, 0] < count:
                self._fail(self._unfinished(lane.cell, count), lane.what, None)

    def publish(self, cell: int, count: int) -> None:
        """Raise a counter."""
        publish(self.counters, cell, count)

    def have(self, cells: CounterIds, count: int) -> bool:
        """Whether all these counters have reached `count`."""
        return bool(poll(self.counters, cells, count, 0, False) == REACHED)

    def wait(self, cells: CounterIds, count: int) -> None:
        """Wait in the consumer until all these counters have reached `count`.

        Raises
        ------
        WorkerError
            If a lane failed or has ended too early, with its name; within a second of that.
        """
        if self.have(cells, count):
            return
        started = time.perf_counter()
        looked = started
        while True:
            state = poll(self.counters, cells, count, _LOOKS, self._sleeps)
            if state == REACHED:
                self.waited += time.perf_counter() - started
                return
            if state != NOT_YET:
                if self._failure is None:  # the process ends with this pass unfinished
                    return
                message, error = self._failure
                raise WorkerError(message) from error
            now = time.perf_counter()
            if now > looked + _LOOK_AT_THREADS:
                looked = now
                self._look_at_threads(cells, count)

    def stop(self) -> None:
        """Release every waiting lane and wait for its end."""
        publish(self.counters, STOP, 1)
        for lane in self._lanes:
            lane.thread.join()
        _running.discard(self)


def last_turn(first: int, step: int, count: int) -> int:
    """Where a lane that takes positions first, first + step, ... of `count` leaves its counter.

    >>> last_turn(1, 3, 9), last_turn(0, 3, 1), last_turn(2, 3, 2)
    (8, 1, 0)
    """
    return first + (count - 1 - first) // step * step + 1 if count > first else 0
