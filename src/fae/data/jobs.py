"""Uneven pieces of work over the threads of the process.

Place in the flow: ingest's columns, of which one may be a hundred times the work of another. Invariant: every job has
ended when `run_jobs` returns, failed or not. Jobs must touch disjoint memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from fae.core.threads import num_threads, run_ranges


def run_jobs(jobs: Sequence[Callable[[], None]]) -> None:
    """Run jobs over all threads, each thread taking the next one that waits: columns differ much in their work.

    All jobs end before this returns; of several that fail, the first in the list is the one reported.
    """
    waiting = deque(enumerate(jobs))
    failures: dict[int, Exception] = {}

    def work(start: int, stop: int) -> None:
        while True:
            try:
                index, job = waiting.popleft()
            except IndexError:
                return
            try:
                job()
            except Exception as error:
                failures[index] = error

    run_ranges(work, min(num_threads(), len(jobs)))
    if failures:
        raise failures[min(failures)]
