"""The engines of one machine: threads, processes, and what takes one or the other by the work there is."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from fae.core.host_memory import keep_freed_memory
from fae.core.interrupts import put_off
from fae.core.threads import num_threads
from fae.engine.calls import Calls
from fae.engine.engine import Engine, R, S
from fae.engine.executor import ExecutorEngine
from fae.engine.worker_limits import limit_libraries

_PROCESSES_FROM_CORES, _PROCESSES_FROM_BYTES = 4, 1 << 30
_SERVER_SECONDS = 10.0
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
    """Tasks in processes, each with one thread: for tasks that hold the GIL.

    They are forked from a server, a process that is started afresh and has none of this one's threads. Works wherever
    it is called from: the script that runs is not imported by the processes, so it needs no
    ``if __name__ == "__main__"``. Ctrl-C reaches this process alone; the others end with it, also when it is killed.

    Parameters
    ----------
    num_workers
        Number of processes, by default `fae.core.threads.num_threads`.
    """

    def __init__(self, num_workers: int | None = None) -> None:
        number = num_workers or num_threads()
        self._context = _Context()
        self._is_prepared, self._waiting_calls = False, list[Callable[[], object]]()
        super().__init__(
            lambda: self._make(number), number, kill=self._context.kill_all,
            advice=f"it may have been killed because memory ran out: run it with --engine "
            f"processes:{max(1, number // 2)}, or on a machine with more memory",
        )  # fmt: skip
        _server.use()

    def prepare(self, num_bytes: int, module: str) -> None:
        self._is_prepared = True
        _server.start(module)

    def when_tasks_have_run(self, call: Callable[[], object]) -> None:
        if self._is_prepared:
            self._waiting_calls.append(call)
        else:
            call()

    def _tasks_have_run(self) -> None:
        while self._waiting_calls:
            self._waiting_calls.pop(0)()

    def close(self, *, now: bool = False) -> None:
        super().close(now=now)
        _server.release(now=now)

    def _make(self, number: int) -> Executor:
        _server.start()
        return ProcessPoolExecutor(number, mp_context=self._context, initializer=begin_worker_process)


def is_much(num_bytes: int) -> bool:
    """Whether this many bytes of text are read by processes: what they and other helpers cost is little beside it."""
    return num_threads() >= _PROCESSES_FROM_CORES and num_bytes >= _PROCESSES_FROM_BYTES


class LocalEngine(Engine):
    """Processes where there is much to do and there are cores for it, threads otherwise: what runs by default.

    On 16 cores reading 4.9 GB of Criteo's text took 6.2 s in threads, which wait for one another's interpreter lock,
    and takes some two seconds in processes, whose server takes two to start (docs/results/text_to_model.md).
    """

    def __init__(self) -> None:
        self.num_workers = num_threads()
        self._engine: ExecutorEngine | None = None
        self._releasing: threading.Thread | None = None

    @property
    def chosen(self) -> ExecutorEngine:
        """The engine that was taken; without `prepare`, threads."""
        if self._engine is None:
            self._engine = ThreadsEngine(self.num_workers)
        return self._engine

    def prepare(self, num_bytes: int, module: str) -> None:
        if self._engine is None:
            self._engine = (ProcessesEngine if is_much(num_bytes) else ThreadsEngine)(self.num_workers)
        self._engine.prepare(num_bytes, module)

    def when_tasks_have_run(self, call: Callable[[], object]) -> None:
        if self._engine is None:
            call()
        else:
            self._engine.when_tasks_have_run(call)

    def map(
        self,
        name: str,
        task: Callable[[S], R],
        shards: Sequence[S],
        *,
        folder: Path | None = None,
        makes_folder: bool = True,
    ) -> Iterator[R]:
        return self.chosen.map(name, task, shards)

    def calls(self, name: str, task: Callable[[Any], Any]) -> Calls:
        """As `ExecutorEngine.calls`."""
        return self.chosen.calls(name, task)

    def await_published(self, path: Path, what: str) -> None:
        """Return at once: this process is alone, and has published it."""

    def release_workers(self) -> None:
        """End the processes, meanwhile."""
        engine, self._engine = self._engine, None
        if engine is not None:
            self._releasing = threading.Thread(target=engine.close, name="fae-release")
            self._releasing.start()
            engine._tasks_have_run()

    def close(self, *, now: bool = False) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close(now=now)
        if self._releasing is not None:
            self._releasing.join()


class _Server:
    """The process from which workers are forked: it is started once, and ends with the last engine that uses it."""

    def __init__(self) -> None:
        self._num_users = 0
        self._lock = threading.Lock()

    def use(self) -> None:
        with self._lock:
            self._num_users += 1

    def start(self, *modules: str) -> None:
        """Start it, unless it runs, and return while it imports `modules`."""
        resource_tracker.ensure_running()  # which lets interrupts through again: before they are blocked
        with self._lock, _without_interrupts(), _no_main_module():
            forkserver.set_forkserver_preload(["fae.engine.worker_server", *modules])
            forkserver.ensure_running()

    def release(self, *, now: bool = False) -> None:
        with self._lock:
            self._num_users -= 1
            if self._num_users == 0:
                self._stop(now=now)

    def _stop(self, *, now: bool) -> None:
        """End it, `now` at once. Else it waits for its processes: for ever for one that was never told what to do."""
        server: Any = forkserver._forkserver
        if (pid := server._forkserver_pid) is None:
            return
        if now:
            _kill(pid)
        timer = threading.Timer(_SERVER_SECONDS, _kill, [pid])
        timer.start()
        try:
            server._stop()
        finally:
            timer.cancel()


_server = _Server()


class _Process(ForkServerProcess):
    def start(self) -> None:
        """Start it where Ctrl-C does not reach it, also before `begin_worker_process` says so."""
        with _without_interrupts(), _no_main_module():
            super().start()


class _Context(ForkServerContext):
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


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Keep SIGINT from what is started in the block, and a signal that another thread takes from ending it half-way."""
    is_main = threading.current_thread() is threading.main_thread()
    with put_off() if is_main else contextlib.nullcontext():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:  # an interrupt that came just now is raised in here, and the signal is not left blocked
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
    keep_freed_memory()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True, name="fae-parent").start()


def _end_with(sentinel: int) -> None:
    """End this process when its parent has ended: one that was killed cannot tell its workers."""
    wait([sentinel])
    os._exit(1)
