"""Run compiled loops that release the GIL on all CPU threads.

Not numba's own parallel loops: its portable threading layer must not be entered from two Python threads at once, which
the streaming pipeline does, and its parallel kernels compile several times more slowly.

Work is cut into contiguous ranges. The caller makes sure that ranges write disjoint memory, so that results do not
depend on the number of threads.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

_pool: ThreadPoolExecutor | None = None
_limit = threading.local()
_sharing = [1]
"""How many processes share the cores."""


def _forget_pool() -> None:
    global _pool
    _pool = None


# A forked process has the pool's queue but none of its threads, and would wait for them forever.
os.register_at_fork(after_in_child=_forget_pool)


def num_threads() -> int:
    """Number of CPU threads to use: ``FAE_NUM_THREADS`` if set, else the cores this process may run on.

    1 in a block of `one_thread`; the share of this process in one of `shared_cores`.
    """
    if getattr(_limit, "is_one", False):
        return 1
    set_by_user = os.environ.get("FAE_NUM_THREADS", "")
    if set_by_user.isdigit() and int(set_by_user) > 0:
        return int(set_by_user)
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        cores = os.cpu_count() or 1
    return max(1, cores // _sharing[-1])


@contextlib.contextmanager
def shared_cores(num_processes: int) -> Iterator[None]:
    """Take one of `num_processes` equal shares of the cores while the block runs; ``FAE_NUM_THREADS`` is no share.

    >>> with shared_cores(10_000):
    ...     num_threads() == 1 or "FAE_NUM_THREADS" in os.environ
    True
    """
    _sharing.append(num_processes)
    try:
        yield
    finally:
        _sharing.pop()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run `run_ranges` and `run_jobs` of this thread inline while the block runs; other threads see no change.

    For a thread that is one of many which share the cores already, such as a worker of `fae.engine`.

    >>> with one_thread():
    ...     num_threads()
    1
    """
    before = getattr(_limit, "is_one", False)
    _limit.is_one = True
    try:
        yield
    finally:
        _limit.is_one = before


def run_ranges(function: Callable[[int, int], None], size: int, *, min_range: int = 1) -> None:
    """Call ``function(start, stop)`` over ``[0, size)`` cut into one contiguous range per thread; wait for all.

    Parameters
    ----------
    function
        Must release the GIL to gain anything (a numba function with ``nogil=True``, numpy, torch).
    size
        Length of the whole range.
    min_range
        Smallest range: below it, handing work to a thread costs more than it saves.
    """
    global _pool
    parts = max(1, min(num_threads(), size // max(1, min_range)))
    if parts == 1:
        if size > 0:
            function(0, size)
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(max_workers=max(32, num_threads()), thread_name_prefix="fae-range")
    bounds = [size * part // parts for part in range(parts + 1)]
    waiting: list[Future[None]] = [_pool.submit(function, bounds[part], bounds[part + 1]) for part in range(1, parts)]
    function(bounds[0], bounds[1])
    for future in waiting:
        future.result()


def run_jobs(jobs: Sequence[Callable[[], None]]) -> None:
    """Run jobs on all threads; each thread takes the next waiting job, because jobs differ much in length.

    Returns when all jobs have ended. If several fail, the error of the first one in the list is raised.
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

    try:
        run_ranges(work, min(num_threads(), len(jobs)))
    finally:
        waiting.clear()  # after an interrupt no thread begins another job
    if failures:
        raise failures[min(failures)]
