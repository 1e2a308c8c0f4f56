"""The engines of one machine: threads, which are the default, and processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from fae.core.threads import num_threads
from fae.engine.executor import ExecutorEngine

_THREAD_SETTINGS = (
    "FAE_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_IO_THREADS",
)  # fmt: skip
_main_lock = threading.Lock()


class ThreadsEngine(ExecutorEngine):
    """Tasks in threads of this process: numpy, compiled loops and pyarrow release the GIL.

    Parameters
    ----------
    num_workers
        Number of threads, by default `fae.core.threads.num_threads`.
    """

    def __init__(self, num_workers: int | None = None) -> None:
        number = num_workers or num_threads()
        super().__init__(lambda: ThreadPoolExecutor(number, "fae-task"), number, same_process=True)


class ProcessesEngine(ExecutorEngine):
    """Tasks in processes that are started afresh, each with one thread: for tasks that hold the GIL.

    Works wherever it is called from: the script that runs is not imported by the processes, so it needs no
    ``if __name__ == "__main__"``. Ctrl-C reaches this process alone; the others end with it, also when it is killed.

    Parameters
    ----------
    num_workers
        Number of processes, by default `fae.core.threads.num_threads`.
    """

    def __init__(self, num_workers: int | None = None) -> None:
        number = num_workers or num_threads()
        self._context = _Context()
        super().__init__(
            lambda: self._make(number), number, kill=self._context.kill_all,
            advice=f"it may have been killed because memory ran out: run it with --engine "
            f"processes:{max(1, number // 2)}, or on a machine with more memory",
        )  # fmt: skip

    def _make(self, number: int) -> Executor:
        return ProcessPoolExecutor(number, mp_context=self._context, initializer=begin_worker_process)


class _Process(SpawnProcess):
    def start(self) -> None:
        """Start it where Ctrl-C does not reach it, also before `begin_worker_process` says so."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with _no_main_module():
                super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Context(SpawnContext):
    """Starts processes and remembers them: an executor has no way to end its tasks."""

    def __init__(self) -> None:
        super().__init__()
        self._started: list[_Process] = []

    def Process(self, *arguments: Any, **options: Any) -> _Process:  # type: ignore[override]
        self._started = [process for process in self._started if process.is_alive() or process.pid is None]
        process = _Process(*arguments, **options)
        self._started.append(process)
        return process

    def kill_all(self) -> None:
        for process in self._started:
            if process.pid is not None:
                process.kill()


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Hide the module that runs: a process would import it, and a script without a guard would run once more in it."""
    with _main_lock:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def begin_worker_process() -> None:
    """Prepare a process for tasks: one thread for every library, no Ctrl-C of its own, an end with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit_libraries()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True, name="fae-parent").start()


def limit_libraries() -> None:
    """Give libraries that have threads of their own one thread each, those that are loaded and those that will be."""
    for name in _THREAD_SETTINGS:
        os.environ[name] = "1"
    if "numba" not in sys.modules:  # which refuses another number once its threads run; FAE uses none of them
        os.environ["NUMBA_NUM_THREADS"] = "1"
    if "pyarrow" in sys.modules:
        sys.modules["pyarrow"].set_cpu_count(1)


def _end_with(sentinel: int) -> None:
    """End this process when its parent has ended: one that was killed cannot tell its workers."""
    wait([sentinel])
    os._exit(1)
