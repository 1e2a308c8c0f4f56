"""The engine over any `concurrent.futures.Executor`: ordered results, a bounded number of tasks ahead."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, TypeVar

from fae.engine.calls import Calls, Workers
from fae.engine.engine import AHEAD, Engine, check_name
from fae.engine.outcomes import Outcome, attempt, attempt_apart, function_of, outcome_of, package_of
from fae.engine.stopping import stopped_by

S = TypeVar("S")
R = TypeVar("R")


class ExecutorEngine(Engine):
    """Runs tasks on an executor.

    Parameters
    ----------
    make_executor
        Makes the executor, again when it is broken.
    num_workers
        Tasks that it runs at once.
    same_process
        Whether its workers are threads of this process, which are handed values as they are.
    kill, is_lost, advice, cancels_blindly, check
        As for `fae.engine.calls.Workers`.
    """

    def __init__(
        self,
        make_executor: Callable[[], Executor],
        num_workers: int,
        *,
        same_process: bool = False,
        kill: Callable[[], None] | None = None,
        is_lost: Callable[[BaseException], bool] = lambda error: False,
        advice: str = "run the same command again",
        cancels_blindly: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.num_workers = num_workers
        self._same_process = same_process
        self._workers = Workers(
            make_executor, kill=kill, is_lost=is_lost, advice=advice, cancels_blindly=cancels_blindly, check=check
        )
        self._open: weakref.WeakSet[Calls] = weakref.WeakSet()

    def map(
        self,
        name: str,
        task: Callable[[S], R],
        shards: Sequence[S],
        *,
        folder: Path | None = None,
        makes_folder: bool = True,
    ) -> Iterator[R]:
        check_name(name)
        function_of(task)
        return self._results(name, task, list(shards))

    def calls(self, name: str, task: Callable[[Any], Any]) -> Calls:
        """Calls of a task, to be started one by one: what `map` is made of."""
        stop_event = threading.Event()
        function: Callable[[Any], Any]
        if self._same_process:
            function, read = functools.partial(_attempt_here, stop_event, task), _as_it_is
        else:
            function, read = (
                functools.partial(self._remote_function(), task),
                functools.partial(_read, package_of(task)),
            )
        calls = Calls(self._workers, function, read, name, stop_event)
        self._open.add(calls)
        return calls

    def await_published(self, path: Path, what: str) -> None:
        """Return at once: this process is alone, and has published it."""

    def close(self, *, now: bool = False) -> None:
        for calls in list(self._open):
            calls.stop(now=now)
        self._workers.end(now=now)

    def _tasks_have_run(self) -> None:
        """Called at the end of a map."""

    def _remote_function(self) -> Callable[[Callable[[Any], Any], Any], Any]:
        """The function that another process calls with the task and the shard."""
        return attempt_apart

    def _results(self, name: str, task: Callable[[Any], Any], shards: list[Any]) -> Iterator[Any]:
        calls = self.calls(name, task)
        ahead = AHEAD * self.num_workers
        outcomes: dict[int, Outcome] = {}
        num_started = 0
        has_failed = False
        try:
            for index in range(len(shards)):
                while True:
                    while num_started < min(len(shards), index + ahead) and not has_failed:
                        calls.start(num_started, shards[num_started])
                        num_started += 1
                    if index in outcomes:
                        break
                    for number, outcome in calls.finished():
                        outcomes[number] = outcome
                        has_failed = has_failed or outcome.error is not None
                yield outcomes.pop(index).result()
            self._tasks_have_run()
        except Exception:
            calls.stop(now=False)
            raise
        except BaseException:  # Ctrl-C, or nobody takes the other results
            calls.stop(now=True)
            raise


def _attempt_here(stop_event: threading.Event, task: Callable[[Any], Any], shard: Any) -> Outcome:
    with stopped_by(stop_event):
        return attempt(task, shard)


def _as_it_is(outcome: Outcome) -> Outcome:
    return outcome


def _read(package: str, described: dict[str, Any]) -> Outcome:
    return outcome_of(described, package)
