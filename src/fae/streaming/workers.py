"""WorkerGroup: threads that each run one compiled loop over all batches of a pass, and meet at counters.

The streaming pipeline and the input buffers start one worker thread for each kind of work; only the consumer runs
Python. A hand-over between Python threads costs 20 to 50 us, as much as copying a thousand rows: with a dozen threads
and some 45 hand-overs a batch it took three times as long as a whole step. If a worker fails or ends before its work is
done, or the consumer stops, all waiting threads are released. No thread outlives `WorkerGroup.stop`.
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
from fae.kernels.torch_private import before_threads_are_joined
from fae.streaming.counters import NOT_YET, REACHED, STOP, new_counters, poll, publish

CounterIds = npt.NDArray[np.int64]
MOST_COUNTERS = 1024
_MANY_CORES = 8
# For a waiting worker: yields before it sleeps (0.3 us each), longest sleep in microseconds. Waiting has a price: cores
# often come in pairs, and a thread that spins takes time from its sibling; with few cores, it takes them from work.
_MANY_PATIENCE, _FEW_PATIENCE = (20, 32), (0, 256)
PATIENCE: tuple[int, int] | None = None
"""Used in place of both where a benchmark sets it."""
_POLLS = 20
"""Polls of the waiting consumer before it returns to Python for a moment: 6 us of yields or 4 ms of sleep."""
_CHECK_SECONDS = 0.25
"""How long the consumer waits before it checks that the threads it waits for still run, and between such checks."""
_SET_TIMER_SLACK = 29  # prctl


@cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None)  # once: every worker of every pass needs it


def sleep_exactly() -> None:
    """Let short sleeps of this thread end on time (Linux adds 50 us else); elsewhere they are longer."""
    with contextlib.suppress(AttributeError, OSError):
        _c_library().prctl(_SET_TIMER_SLACK, 1000, 0, 0, 0)


_running: weakref.WeakSet[WorkerGroup] = weakref.WeakSet()


def _release_all() -> None:
    for group in list(_running):
        publish(group.counters, STOP, 1)


# A stream that is never closed must not keep the process alive.
before_threads_are_joined(_release_all)


@dataclass(frozen=True, kw_only=True)
class _Worker:
    """A thread, the counter that it raises, and the counter's value when its work is done."""

    what: str
    counter: int
    end: int
    thread: threading.Thread


class WorkerError(RuntimeError):
    """A worker failed or ended before its work was done: a defect, or no memory. Its own error is the cause."""


class WorkerGroup:
    """Counters and the threads that raise them.

    Parameters
    ----------
    name
        The threads are called ``name: what``.

    Attributes
    ----------
    counters
        The array that loops get (`fae.streaming.counters`).
    waited
        Seconds that the consumer has waited.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        # A consumer that polls without a break takes cores from work. With many cores it does so, to be quick.
        self._sleeps = num_threads() < _MANY_CORES
        patience = _FEW_PATIENCE if self._sleeps else _MANY_PATIENCE
        self.counters = new_counters(MOST_COUNTERS, *(PATIENCE or patience))
        self._num_counters, self.waited = 0, 0.0
        self._workers: list[_Worker] = []
        self._failure: tuple[str, BaseException | None] | None = None

    def add_counters(self, count: int) -> CounterIds:
        """Take `count` unused counters, which are 0; returns their numbers."""
        first = self._num_counters + 1
        self._num_counters += count
        assert self._num_counters <= MOST_COUNTERS
        return np.arange(first, first + count)

    def add_counter(self) -> int:
        """Take one unused counter, which is 0; returns its number."""
        return int(self.add_counters(1)[0])

    def start(self, what: str, loop: Callable[..., object], counter: int, *arguments: Any, end: int) -> None:
        """Run ``loop(counters, counter, *arguments)`` in a new thread.

        Parameters
        ----------
        what
            The worker's name in messages.
        counter
            The counter that the loop raises.
        end
            The counter's value when the loop is done. A loop that ends below it without a request to stop has failed.
        """

        def guarded() -> None:
            sleep_exactly()
            try:
                loop(self.counters, counter, *arguments)
            except BaseException as error:  # told to the consumer when it waits next
                self._fail(f"failed: {type(error).__name__}: {error}", what, error)
                return
            if self.counters[counter, 0] < end and not self.counters[STOP, 0]:
                self._fail(self._unfinished(counter, end), what, None)

        _running.add(self)
        thread = threading.Thread(target=guarded, name=f"{self._name}: {what}")
        thread.start()
        self._workers.append(_Worker(what=what, counter=counter, end=end, thread=thread))

    def _unfinished(self, counter: int, end: int) -> str:
        return f"ended, without an error, at {self.counters[counter, 0]} of {end} batches"

    def _fail(self, how: str, what: str, error: BaseException | None) -> None:
        if self._failure is None:
            self._failure = f"{self._name} thread {what!r} {how}", error
        publish(self.counters, STOP, 1)

    def _check_threads(self, counter_ids: CounterIds, count: int) -> None:
        """Fail if one of these counters is below `count` and the thread that raises it has ended."""
        for worker in self._workers:
            # In this order: once a thread is known to have ended, the last value that it wrote is seen.
            if (
                worker.counter in counter_ids
                and not worker.thread.is_alive()
                and self.counters[worker.counter, 0] < count
            ):
                self._fail(self._unfinished(worker.counter, count), worker.what, None)

    def publish(self, counter: int, count: int) -> None:
        """Raise a counter to `count`."""
        publish(self.counters, counter, count)

    def have_reached(self, counter_ids: CounterIds, count: int) -> bool:
        """Whether all these counters have reached `count`."""
        return bool(poll(self.counters, counter_ids, count, 0, False) == REACHED)

    def wait(self, counter_ids: CounterIds, count: int) -> None:
        """Wait in the consumer until all these counters have reached `count`.

        Raises
        ------
        WorkerError
            Within a second after a worker failed or ended too early; it says which.
        """
        if self.have_reached(counter_ids, count):
            return
        started = time.perf_counter()
        checked = started
        while True:
            state = poll(self.counters, counter_ids, count, _POLLS, self._sleeps)
            if state == REACHED:
                self.waited += time.perf_counter() - started
                return
            if state != NOT_YET:
                if self._failure is None:  # the process ends with this pass unfinished
                    return
                message, error = self._failure
                raise WorkerError(message) from error
            now = time.perf_counter()
            if now > checked + _CHECK_SECONDS:
                checked = now
                self._check_threads(counter_ids, count)

    def stop(self) -> None:
        """Stop every worker, also those that wait, and join their threads."""
        publish(self.counters, STOP, 1)
        for worker in self._workers:
            worker.thread.join()
        _running.discard(self)


def last_turn(first: int, step: int, count: int) -> int:
    """The last value of the counter of a worker that takes positions first, first + step, ... below `count`.

    >>> last_turn(1, 3, 9), last_turn(0, 3, 1), last_turn(2, 3, 2)
    (8, 1, 0)
    """
    return first + (count - 1 - first) // step * step + 1 if count > first else 0
