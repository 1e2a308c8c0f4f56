"""Jobs on all threads."""

from __future__ import annotations

import os
from typing import Any

import pytest

from fae.core.threads import run_jobs, run_ranges


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
