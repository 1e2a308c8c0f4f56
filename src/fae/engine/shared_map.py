"""One map over a shared folder: claim tasks, run them on this machine, take everybody's results in order."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from fae.core.progress import say
from fae.engine.claims import STOPPED, TaskFolder, attempt_and_publish
from fae.engine.executor import ExecutorEngine
from fae.engine.local import LocalEngine
from fae.engine.outcomes import Outcome, describe, outcome_of, package_of
from fae.engine.presence import Observer

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
"""Seconds between two surveys of the folder: a tenth of the time in which nothing was new."""
_SURVEY_SHARE = 0.1
"""Share of the time of one thread that surveys may take."""
_SAY_SECONDS = 15.0


class SharedMap:
    """Shares the tasks of a map with other workers.

    A thread claims and starts tasks: those of this worker (by index, modulo the number of workers) first, then any that
    nobody has, or that a worker has who is gone. The caller's thread takes the results.

    Parameters
    ----------
    name
        Name of the work.
    task, shards
        As for `fae.engine.engine.Engine.map`.
    folder
        Where claims and results are.
    local
        Runs the tasks.
    observer
        Judges the other workers.
    place
        Number of this worker, from 0, and how many there are.
    ahead
        How far behind the results that were taken a task may be that is claimed.
    """

    def __init__(
        self,
        name: str,
        task: Callable[[Any], Any],
        shards: Sequence[Any],
        folder: TaskFolder,
        *,
        local: ExecutorEngine | LocalEngine,
        observer: Observer,
        place: tuple[int, int],
        ahead: int,
    ) -> None:
        self._name, self._shards, self._folder = name, shards, folder
        self._local, self._observer, self._place, self._ahead = local, observer, place, ahead
        self._package = package_of(task)
        self._calls = local.calls(name, functools.partial(attempt_and_publish, folder, task))
        self._news = threading.Condition()
        self._done: set[int] = set()
        self._failed: dict[int, Outcome | None] = {}
        self._running: set[int] = set()
        self._claimed: dict[int, int] = {}
        self._num_taken = 0
        self._fault: BaseException | None = None
        self._is_stopped = self._stop_now = False
        self._last_news = self._last_survey = time.monotonic()
        self._survey_seconds = 0.0

    def results(self) -> Generator[Any, None, None]:
        """Results in shard order; ends the thread and what it has started, however it is left."""
        thread = threading.Thread(target=self._work, daemon=True, name="fae-shared-map")
        thread.start()
        try:
            for index in range(len(self._shards)):
                yield self._outcome(index).result()
        except Exception:
            raise
        except BaseException:  # Ctrl-C, or nobody takes the other results
            self._stop_now = True
            raise
        finally:
            self._is_stopped = True
            self._calls.wake()
            thread.join()

    def _outcome(self, index: int) -> Outcome:
        """Wait for a result or an error."""
        self._num_taken = index
        self._calls.wake()
        start = time.monotonic()
        while True:
            with self._news:
                while index not in self._done and index not in self._failed and self._fault is None:
                    self._news.wait(_SAY_SECONDS)
                    if time.monotonic() - start >= _SAY_SECONDS:
                        start = time.monotonic()
                        self._say_who_has(index)
            outcome = self._published(index)
            if outcome is not None:
                return outcome
            if self._fault is not None:
                raise self._fault

    def _published(self, index: int) -> Outcome | None:
        """What was published of a task; None where it must be done once more after all."""
        if index in self._done:
            found = self._folder.read(index, "json")
            with contextlib.suppress(ValueError):
                if found is not None:
                    return outcome_of(found, self._package)
            self._folder.drop(index)
            self._done.discard(index)
        elif index in self._failed:
            mine = self._failed[index]
            found = self._folder.read(index, "error") if mine is None else None
            with contextlib.suppress(ValueError):
                if mine is not None or found is not None:
                    return mine or outcome_of(found or {}, self._package)
            self._failed.pop(index, None)
        return None

    def _say_who_has(self, index: int) -> None:
        if index in self._running:
            return
        with contextlib.suppress(OSError):
            who = self._observer.title(self._folder.owner_of(index, self._claimed.get(index, 0))[0])
            say(f"{self._name}: waiting for task {index + 1} of {len(self._shards)}, which {who} has")

    def _work(self) -> None:
        """What the thread does: start tasks, take note of what has ended here and elsewhere."""
        try:
            while not self._is_stopped:
                self._survey()
                self._start_tasks()
                quiet = time.monotonic() - self._last_news
                pause = min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, quiet * _SURVEY_SHARE))
                for index, outcome in self._calls.finished(pause):
                    self._ended(index, outcome)
        except BaseException as error:
            with self._news:
                self._fault = error
                self._news.notify_all()
        finally:
            self._calls.stop(now=self._stop_now)
            for index in self._running:
                self._folder.release(index)

    def _survey(self) -> None:
        """See what others have done, unless that was seen just now."""
        now = time.monotonic()
        if now - self._last_survey < self._survey_seconds / _SURVEY_SHARE:
            return
        found = self._folder.survey()
        self._last_survey = time.monotonic()
        self._survey_seconds = self._last_survey - now
        self._claimed = found.claimed
        with self._news:
            failed = found.failed - found.done
            if not found.done <= self._done or not failed <= self._failed.keys():
                self._last_news = now
                self._done |= found.done
                for index in failed:
                    self._failed.setdefault(index, None)
                self._news.notify_all()

    def _start_tasks(self) -> None:
        while self._calls.num_open < self._local.num_workers and not self._is_stopped:
            index = self._next_claim()
            if index is None:
                return
            self._running.add(index)
            self._calls.start(index, (index, self._shards[index]))

    def _next_claim(self) -> int | None:
        """Claim one more task; None where there is none to claim at the moment."""
        end = min(len(self._shards), self._num_taken + self._ahead, *self._failed)
        place, number = self._place
        open_ones = [
            index for index in range(self._num_taken, end) if index not in self._done and index not in self._running
        ]
        open_ones.sort(key=lambda index: index % number != place)
        for index in open_ones:
            if index not in self._claimed and self._is_claimed_by_me(self._folder.claim(index), index):
                return index
        for index in open_ones:
            if index in self._claimed and self._is_claimed_by_me(self._take_over(index), index):
                return index
        return None

    def _is_claimed_by_me(self, succeeded: bool, index: int) -> bool:
        if not succeeded:
            self._claimed.setdefault(index, 0)
            return False
        if self._folder.read(index, "json") is None:
            return True
        self._folder.release(index)  # it was done just before the claim
        with self._news:
            self._done.add(index)
            self._news.notify_all()
        return False

    def _take_over(self, index: int) -> bool:
        """Claim a task that another worker has claimed, if that one is gone."""
        generation = self._claimed[index]
        try:
            owner, stamp = self._folder.owner_of(index, generation)
        except OSError:
            return False  # it is done, or free at the next survey
        key = f"{self._folder.path.name}/{index}"
        is_held = self._observer.is_alive(owner) if owner else self._observer.is_recent(key, stamp)
        return not is_held and self._folder.claim(index, generation + 1)

    def _ended(self, index: int, outcome: Outcome) -> None:
        """Take note of a task that has ended here; its claim is no longer needed."""
        self._last_news = time.monotonic()
        self._running.discard(index)
        if outcome.error is not None:  # it is not published yet: its worker was lost, or the disk is full
            with contextlib.suppress(OSError):
                self._folder.publish(index, describe(outcome))
        self._folder.release(index)
        self._claimed.pop(index, None)
        if outcome.error is None and outcome.value == STOPPED:
            return
        with self._news:
            if outcome.error is not None:
                self._failed[index] = outcome
            elif "error" in outcome.value:
                self._failed[index] = outcome_of(outcome.value, self._package)
            else:
                self._done.add(index)
            self._news.notify_all()
