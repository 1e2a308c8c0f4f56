"""Jobs on all threads."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from fae.core.threads import num_threads, one_thread, run_jobs, run_ranges


def test_jobs_all_end_and_the_first_failure_is_reported() -> None:
    ended = []

    def job(index: int) -> Any:
        def run() -> None:
            ended.append(index)
            if index in (3, 5):
                raise ValueError(str(index))

        return run

    with pytest.raises(ValueError, match="3"):
        run_jobs([job(index) for index in range(8)])
    assert sorted(ended) == list(range(8))


def test_a_forked_process_has_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DataLoader's workers are forked from a process whose threads have worked."""
    monkeypatch.setenv("FAE_NUM_THREADS", "2")
    run_ranges(lambda start, stop: None, 2)
    child = os.fork()
    if child == 0:
        done: list[int] = []
        run_ranges(lambda start, stop: done.append(stop - start), 10)
        os._exit(sum(done))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 10


def test_one_thread_is_for_this_thread_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAE_NUM_THREADS", "4")
    barrier = threading.Barrier(2)

    def threads_used() -> set[int]:
        used: set[int] = set()
        run_ranges(lambda start, stop: used.add(threading.get_ident()), 1000)
        run_jobs([lambda: used.add(threading.get_ident())] * 20)
        return used

    def other() -> None:
        barrier.wait(30)
        found.append(num_threads())
        barrier.wait(30)

    found: list[int] = []
    thread = threading.Thread(target=other)
    thread.start()
    with one_thread():
        with one_thread():
            barrier.wait(30)
            assert threads_used() == {threading.get_ident()}
        barrier.wait(30)
        assert num_threads() == 1, "the inner block ends for itself"
        with pytest.raises(ZeroDivisionError):
            run_jobs([lambda: None, lambda: 1 // 0])  # type: ignore[list-item,func-returns-value]
    thread.join()
    assert found == [4]
    assert num_threads() == 4
    with pytest.raises(ValueError, match="x"), one_thread():
        raise ValueError("x")
    assert num_threads() == 4
