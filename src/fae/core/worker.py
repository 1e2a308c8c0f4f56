"""Threads that pass numbered batches from stage to stage, and stop together when one of them fails.

Invariant: whoever waits for a stage is woken when it is reached, when a thread fails, and when the consumer leaves; no
thread outlives `Worker.stop`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable


class _Stopped(Exception):
    """What was waited for will not come: a thread failed, or the consumer left."""


class Worker:
    """Counters of how many batches have passed each stage, and the threads that raise them.

    Parameters
    ----------
    name
        Of the threads.

    Attributes
    ----------
    waited
        Seconds that each thread (by its number) has waited for each stage: where a pipeline stalls.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        # One condition a stage: waking threads that wait for something else costs more than the hand-over itself.
        self._conditions: defaultdict[str, threading.Condition] = defaultdict(lambda: threading.Condition(self._lock))
        self._counts: Counter[str] = Counter()
        self.waited: defaultdict[tuple[int, str], float] = defaultdict(float)
        self._threads: list[threading.Thread] = []
        self._stopping = False
        self._failure: BaseException | None = None

    def start(self, loop: Callable[[], None]) -> None:
        """Run `loop` in a thread of its own."""

        def guarded() -> None:
            try:
                loop()
            except _Stopped:
                pass
            except BaseException as error:  # told to whoever waits next in the consumer
                with self._lock:
                    self._failure = error
                    self._wake_all()

        thread = threading.Thread(target=guarded, name=self._name)
        self._threads.append(thread)
        thread.start()

    def wait(self, stage: str, count: int) -> None:
        """Wait until `count` batches have passed `stage`.

        Raises
        ------
        RuntimeError
            In the consumer, if a thread failed; its error is the cause.
        """
        if self._counts[stage] >= count:
            return
        started = time.perf_counter()
        with self._lock:
            self._conditions[stage].wait_for(
                lambda: self._counts[stage] >= count or self._failure is not None or self._stopping
            )
            self.waited[threading.get_ident(), stage] += time.perf_counter() - started
            if self._counts[stage] >= count:
                return
            if threading.current_thread() in self._threads:
                raise _Stopped
            raise RuntimeError(f"a {self._name} thread failed") from self._failure

    def reached(self, stage: str, count: int) -> None:
        """Say that `count` batches have passed `stage`."""
        with self._lock:
            self._counts[stage] = count
            self._conditions[stage].notify_all()

    def _wake_all(self) -> None:
        for condition in self._conditions.values():
            condition.notify_all()

    def stop(self) -> None:
        """Wake every thread and wait for its end."""
        with self._lock:
            self._stopping = True
            self._wake_all()
        for thread in self._threads:
            thread.join()
