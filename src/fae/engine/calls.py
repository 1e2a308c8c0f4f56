"""Calls of tasks on an executor: those whose worker is lost are made again, a bounded number of times.

A process that is killed breaks its whole pool, so it is not known which of the running tasks ended it. All of them run
again, and one that was lost twice runs alone: then it is known, and it has the memory of the machine for itself.
"""

from __future__ import annotations

import contextlib
import heapq
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from typing import Any

from fae.core.errors import EngineError
from fae.engine.outcomes import Outcome

_LOST_IN_COMPANY = 2
_MOST_LOST = 4
_SHUTDOWN_TRIES = 5
_CHECK_SECONDS = 5.0


class Workers:
    """The executor of an engine, made when it is first needed and again when it is broken.

    Parameters
    ----------
    make
        Makes the executor.
    kill
        Ends its tasks at once, where that can be done; without it they are waited for.
    is_lost
        Whether an error says that a worker is lost, beside `BrokenExecutor`.
    advice
        What the user can do where a worker is lost again and again.
    cancels_blindly
        Whether its futures can be cancelled while their tasks run, which then run on. They are awaited in its place.
    check
        Called now and then while nothing ends; raises where nothing ever will.
    """

    def __init__(
        self,
        make: Callable[[], Executor],
        *,
        kill: Callable[[], None] | None = None,
        is_lost: Callable[[BaseException], bool] = lambda error: False,
        advice: str = "",
        cancels_blindly: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._make, self._kill, self._is_lost, self.advice, self.check = make, kill, is_lost, advice, check
        self.cancels_blindly = cancels_blindly
        self._executor: Executor | None = None
        self._lock = threading.Lock()

    @property
    def can_kill(self) -> bool:
        """Whether `end` ends running tasks at once."""
        return self._kill is not None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> tuple[Future, Executor]:
        """Submit a call; also returns the executor that has it.

        Raises
        ------
        BrokenExecutor
            If the executor is broken: `replace` it once its calls have ended.
        """
        with self._lock:
            if self._executor is None:
                self._executor = self._make()
            return _submit(self._executor, function, *arguments), self._executor

    def replace(self, broken: Executor | None) -> None:
        """Take another executor from now on, unless that has been done."""
        with self._lock:
            if self._executor is not broken and broken is not None:
                return
            broken, self._executor = self._executor, None
        if broken is not None:
            broken.shutdown(wait=True, cancel_futures=True)

    def is_lost(self, error: BaseException) -> bool:
        """Whether an error says that the worker was lost, and not that the task failed."""
        return isinstance(error, BrokenExecutor) or self._is_lost(error)

    def end(self, *, now: bool) -> None:
        """Shut the executor down: at once where that can be done and is wanted, else when running tasks have ended."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is None:
            return
        if now and self._kill is not None:
            self._kill()
        executor.shutdown(wait=True, cancel_futures=True)


def _submit(executor: Executor, function: Callable[..., Any], *arguments: Any) -> Future:
    """Submit a call to an executor that another thread may find broken meanwhile.

    Python's pool of processes then closes its pipes under the call, or forgets it (seen with Python 3.11).

    Raises
    ------
    BrokenExecutor
        If it is broken. The call may have a future, which nobody waits for.
    """
    try:
        future = executor.submit(function, *arguments)
    except OSError as error:
        if getattr(executor, "_broken", False):
            raise BrokenExecutor(f"it broke under a call: {error}") from error
        raise
    if getattr(executor, "_broken", False):
        raise BrokenExecutor("it broke under a call")
    return future


class Calls:
    """The calls of one map: started by index, returned as they end.

    Parameters
    ----------
    workers
        Where they run.
    function
        Called in a worker with one argument.
    read
        The outcome of what the function returned.
    what
        Name of the work, for errors.

    Attributes
    ----------
    stop_event
        Set when the calls are stopped; in this process, `fae.engine.stopping.check_stop` looks at it.
    """

    def __init__(
        self,
        workers: Workers,
        function: Callable[[Any], Any],
        read: Callable[[Any], Outcome],
        what: str,
        stop_event: threading.Event,
    ) -> None:
        self._workers, self._function, self._read, self._what = workers, function, read, what
        self.stop_event = stop_event
        self._ended: queue.SimpleQueue[Future | None] = queue.SimpleQueue()
        self._waiting: list[int] = []
        self._arguments: dict[int, Any] = {}
        self._running: dict[Future, tuple[int, Executor]] = {}
        self._lost: dict[int, int] = {}
        self._is_alone = False
        self._is_hopeless = False

    @property
    def num_open(self) -> int:
        """Number of calls that were started and have not been returned."""
        return len(self._arguments)

    def start(self, index: int, argument: Any) -> None:
        """Make a call as soon as the executor takes it."""
        self._arguments[index] = argument
        heapq.heappush(self._waiting, index)
        self._submit_waiting()

    def finished(self, timeout: float | None = None) -> list[tuple[int, Outcome]]:
        """Wait for calls that end, `wake`, or the time; may return none.

        Parameters
        ----------
        timeout
            Seconds; None waits for as long as is usual between two checks of the workers.
        """
        outcomes = []
        try:
            future = self._ended.get(timeout=_CHECK_SECONDS if timeout is None else timeout)
        except queue.Empty:
            with self._engine_failures():
                self._workers.check()
            return []
        with contextlib.suppress(queue.Empty):
            while True:
                if future is not None:
                    outcomes += self._returned(future)
                future = self._ended.get_nowait()
        self._submit_waiting()
        return outcomes

    def wake(self) -> None:
        """Let `finished` return; any thread may call this."""
        self._ended.put(None)

    def stop(self, *, now: bool) -> None:
        """Cancel what has not begun; running tasks are awaited, or ended `now` where that can be done."""
        now = now or self._is_hopeless
        self.stop_event.set()
        self._waiting.clear()
        running = list(self._running)
        for future in running if now or not self._workers.cancels_blindly else ():
            future.cancel()
        if running and now and self._workers.can_kill:
            self._workers.end(now=True)
        wait([future for future in running if not future.cancelled()])
        self._running.clear()
        self._arguments.clear()

    @contextlib.contextmanager
    def _engine_failures(self) -> Iterator[None]:
        """Take note of an engine that can no longer be used: what runs there need not end."""
        try:
            yield
        except EngineError:
            self._is_hopeless = True
            raise

    def _submit_waiting(self) -> None:
        tries = 0
        while self._waiting and not self._is_alone:
            index = self._waiting[0]
            alone = self._lost.get(index, 0) >= _LOST_IN_COMPANY
            if alone and self._running:
                return
            try:
                with self._engine_failures():
                    future, executor = self._workers.submit(self._function, self._arguments[index])
            except BrokenExecutor as error:
                if self._running:
                    return  # until all calls of the broken executor have said so
                tries += 1
                if tries > _SHUTDOWN_TRIES:
                    raise EngineError(
                        f"{self._what}: workers end as soon as they begin; {self._workers.advice}"
                    ) from error
                self._workers.replace(None)
                continue
            heapq.heappop(self._waiting)
            self._is_alone = alone
            self._running[future] = index, executor
            future.add_done_callback(self._ended.put)

    def _returned(self, future: Future) -> list[tuple[int, Outcome]]:
        if future not in self._running:
            return []
        index, executor = self._running.pop(future)
        if not self._running:
            self._is_alone = False
        error: BaseException | None = None
        if future.cancelled():
            error = BrokenExecutor("cancelled by others")
        else:
            error = future.exception()
        if error is None:
            outcome = self._read(future.result())
        elif self._workers.is_lost(error):
            if not self._running and isinstance(error, BrokenExecutor):
                self._workers.replace(executor)
            lost = self._lost[index] = self._lost.get(index, 0) + 1
            if lost < _MOST_LOST:
                heapq.heappush(self._waiting, index)
                return []
            outcome = Outcome(error=EngineError(
                f"{self._what}: the worker that ran task {index + 1} was lost {lost} times, in the end with that task "
                f"alone; {self._workers.advice}"
            ))  # fmt: skip
        else:
            outcome = Outcome(error=error)
        del self._arguments[index]
        return [(index, outcome)]
