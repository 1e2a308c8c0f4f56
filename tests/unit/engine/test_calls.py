"""Calls whose workers are lost, on an executor that loses them at will."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any

import pytest

from fae.core.errors import EngineError
from fae.engine.executor import ExecutorEngine

from engine_tasks import square


class Fragile(Executor):
    """Runs calls when there are enough, or at once where one is alone; a task of `deadly` breaks it with all others."""

    made: list[Fragile]
    log: list[list[int]]

    def __init__(self, deadly: Callable[[int], bool]) -> None:
        self._deadly, self._is_broken = deadly, False
        self._open: list[tuple[int, Future[Any], Callable[..., Any]]] = []
        self.shutdowns = 0

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        if self._is_broken:
            raise BrokenExecutor("broken before")
        future: Future[Any] = Future()
        self._open.append((arguments[-1], future, function))
        self.log.append([number for number, _, _ in self._open])
        if len(self._open) == WIDTH or arguments[-1] >= LAST or self.is_alone(arguments[-1]):
            self._run()
        return future

    def is_alone(self, number: int) -> bool:
        return self.lost.get(number, 0) >= 2

    lost: dict[int, int]

    def _run(self) -> None:
        calls, self._open = self._open, []
        if any(self._deadly(number) for number, _, _ in calls):
            self._is_broken = True
            for number, future, _ in calls:
                self.lost[number] = self.lost.get(number, 0) + 1
                future.set_exception(BrokenExecutor("a worker died"))
            return
        for number, future, function in calls:
            future.set_result(function(number))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.shutdowns += 1


WIDTH, LAST = 4, 11


@pytest.fixture(autouse=True)
def fresh() -> None:
    Fragile.made, Fragile.log, Fragile.lost = [], [], {}


def engine(deadly: Callable[[int], bool]) -> ExecutorEngine:
    def make() -> Fragile:
        Fragile.made.append(Fragile(deadly))
        return Fragile.made[-1]

    return ExecutorEngine(make, 2, advice="give it more memory")


def test_tasks_of_a_lost_worker_run_again() -> None:
    deaths = iter([True])

    def once(number: int) -> bool:
        return number == 5 and next(deaths, False)

    with engine(once) as made:
        assert list(made.map("square", square, range(LAST + 1))) == [number * number for number in range(LAST + 1)]
    assert len(Fragile.made) == 2
    assert all(executor.shutdowns == 1 for executor in Fragile.made)
    assert Fragile.lost == {4: 1, 5: 1, 6: 1, 7: 1}, "what had ended before is not run again"


def test_a_deadly_task_is_found_and_named() -> None:
    """Two deaths in company, two alone: the error names it and none of those beside it."""
    results = engine(lambda number: number == 5).map("square", square, range(LAST + 1))
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(EngineError, match=r"task 6 was lost 4 times.*alone; give it more memory"):
        next(results)
    assert Fragile.lost[5] == 4
    assert max(count for number, count in Fragile.lost.items() if number != 5) == 2
    assert Fragile.log.count([5]) >= 2, "the third and fourth time it was alone"


def test_workers_that_never_begin_are_one_line() -> None:
    class Dead(Fragile):
        def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
            raise BrokenExecutor("dead")

    with (
        ExecutorEngine(lambda: Dead(lambda number: False), 2, advice="look at the machine") as made,
        pytest.raises(EngineError, match="square: workers end as soon as they begin; look at the machine"),
    ):
        list(made.map("square", square, range(3)))


def test_futures_that_others_cancel_run_again() -> None:
    class Forgetful(Fragile):
        def _run(self) -> None:
            if not self.lost:
                calls, self._open = self._open, []
                for number, future, _ in calls:
                    self.lost[number] = 1
                    future.cancel()
                    future.set_running_or_notify_cancel()
                return
            super()._run()

    with ExecutorEngine(lambda: Forgetful(lambda number: False), 2) as made:
        assert list(made.map("square", square, range(LAST + 1))) == [number * number for number in range(LAST + 1)]


class Breaking(Executor):
    """Breaks under its first call, as a pool of processes does whose thread finds a worker gone meanwhile."""

    made: list[Breaking]

    def __init__(self, how: str) -> None:
        self._how, self._broken = how, False

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self is not Breaking.made[0]:
            future.set_result(function(*arguments))
            return future
        if self._how == "is full":
            raise OSError(11, "no process more")
        self._broken = True
        if self._how == "closes its pipes":
            raise OSError("handle is closed")
        return future  # which never ends

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pass


@pytest.mark.parametrize("how", ["closes its pipes", "forgets the call", "is full"])
def test_an_executor_that_breaks_under_a_call(how: str) -> None:
    Breaking.made = []

    def make() -> Breaking:
        Breaking.made.append(Breaking(how))
        return Breaking.made[-1]

    results = ExecutorEngine(make, 2).map("square", square, range(6))
    if how == "is full":
        with pytest.raises(OSError, match="no process more"):
            list(results)
        return
    assert list(results) == [number**2 for number in range(6)]
    assert len(Breaking.made) == 2
