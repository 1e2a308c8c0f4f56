"""The engine of a Dask cluster: workers on many machines that see the folder of the run at the same place.

Imports distributed when an engine is made (``pip install 'fae[dask]'``).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import logging
import queue
import secrets
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fae.core.errors import EngineError, FaeError
from fae.core.progress import say
from fae.core.whole_files import read_plain, write_whole
from fae.engine.code_version import versions
from fae.engine.executor import ExecutorEngine
from fae.engine.leftovers import sweep_workers
from fae.engine.outcomes import Outcome, attempt_apart, describe
from fae.engine.presence import DASK_CLIENT, WORKERS_FOLDER, Presence
from fae.engine.worker_limits import limit_libraries

S = TypeVar("S")
R = TypeVar("R")

_RETRIES = 3
_PATIENCE_SECONDS = 30.0
_PARTS_OF_CONNECTING = 3
"""A client connects, asks who is there, and registers; each may take all patience."""


@dataclass(frozen=True)
class Meeting:
    """What a worker must find before its first task.

    Attributes
    ----------
    file
        The file of the client below the folder of the run (`fae.engine.presence`).
    word
        What is in it.
    versions
        Versions in the client's process.
    """

    file: str
    word: str
    versions: dict[str, str]

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(self.file).parents[len(WORKERS_FOLDER.parts)]


class DaskEngine(ExecutorEngine):
    """Tasks on the workers of a Dask cluster.

    Parameters
    ----------
    address
        Host and port of the scheduler, ``host:8786``.
    folder
        The folder of the run: every worker must see it at the same place, and write to it.
    patience_seconds
        How long to wait for the scheduler, and for its first worker.

    Raises
    ------
    EngineError
        If distributed is not installed, no scheduler answers, it has no worker, or a worker has other versions or does
        not see the folder.
    """

    is_elsewhere = True

    def __init__(self, address: str, folder: Path, *, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._address, self._patience = address, patience_seconds
        self._client = _connect(address, patience_seconds)
        try:
            self._presence = Presence(folder.resolve(), DASK_CLIENT, 0)
        except BaseException:
            self._disconnect()
            raise
        self._meeting = Meeting(str(self._presence.path), self._presence.text, versions("distributed"))
        super().__init__(
            lambda: _ClusterExecutor(self._client, address, patience_seconds), 1, is_lost=_is_lost,
            cancels_blindly=True, check=self._check,
            advice="see the logs of the workers (memory that ran out, most often), give them more memory or fewer "
            "threads, and run the same command again",
        )  # fmt: skip
        try:
            _meet(self._client, address, self._meeting, patience_seconds)
            self._count_workers()
        except BaseException:
            self.close(now=True)
            raise

    def map(
        self,
        name: str,
        task: Callable[[S], R],
        shards: Sequence[S],
        *,
        folder: Path | None = None,
        makes_folder: bool = True,
    ) -> Iterator[R]:
        self._count_workers()
        return super().map(name, task, shards)

    def close(self, *, now: bool = False) -> None:
        try:
            super().close(now=now)
        finally:
            self._presence.close()
            sweep_workers(self._meeting.folder)
            self._disconnect()

    def _disconnect(self) -> None:
        with contextlib.suppress(Exception):  # the scheduler may be gone
            self._client.close(timeout=5)

    def _remote_function(self) -> Callable[[Callable[[Any], Any], Any], Any]:
        return functools.partial(attempt_on_cluster, self._meeting)

    def _check(self) -> None:
        """Wait for workers where all are gone, as long as there is patience."""
        with contextlib.suppress(OSError):  # the connection is lost; the client then ends all tasks
            if self._client.status == "running" and not self._client.nthreads():
                say(f"the Dask cluster at {self._address} has no workers at the moment")
                _await_workers(self._client, self._address, self._patience)

    def _count_workers(self) -> None:
        """Count the threads of the cluster; workers may have come."""
        with contextlib.suppress(Exception):  # where the scheduler is gone, the first task says so
            self.num_workers = max(1, sum(self._client.nthreads().values()))


class _ClusterExecutor(Executor):
    """The workers of a client as an executor.

    Not the client's own `get_executor`: where the connection breaks while it fetches a result, the future of that one
    never ends.
    """

    def __init__(self, client: Any, address: str, patience_seconds: float) -> None:
        self._client, self._address, self._patience = client, address, patience_seconds

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future:
        end = time.monotonic() + self._patience
        while self._client.status == "connecting" and time.monotonic() < end:
            time.sleep(0.1)
        if self._client.status != "running":
            raise EngineError(
                f"the Dask scheduler at {self._address} no longer answers; start it and its workers, and run the same "
                "command again"
            )
        # Tasks themselves never raise, but a worker that has just joined may fail to read one.
        future = self._client.submit(function, *arguments, **options, pure=False, retries=_RETRIES)
        return asyncio.run_coroutine_threadsafe(_result_of(future), self._client.loop.asyncio_loop)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing is left to wait for or to cancel: `Calls.stop` has done it."""


async def _result_of(future: Any) -> Any:
    return await future


_found_faults: dict[str, str] = {}
"""What is wrong with this worker, by the word of the client; "" where nothing is."""


def attempt_on_cluster(meeting: Meeting, task: Callable[[Any], Any], shard: Any) -> dict[str, Any]:
    """Run a task on a worker of a cluster, which may have joined after the engine was made."""
    if meeting.word not in _found_faults:
        _found_faults[meeting.word] = fault_of_worker(meeting)
        limit_libraries()
    if _found_faults[meeting.word]:
        return describe(Outcome(error=EngineError(f"a Dask worker {_found_faults[meeting.word]}")))
    return attempt_apart(task, shard)


def fault_of_worker(meeting: Meeting) -> str:
    """What keeps this process from working for the client, as a sentence without its subject; "" where nothing does."""
    mine = versions("distributed")
    other = [
        f"{name} {mine[name]} and not {wanted}" for name, wanted in meeting.versions.items() if mine[name] != wanted
    ]
    if other:
        return f"has {', '.join(other)}; install the same versions on all machines and start it again"
    path = Path(meeting.file)
    try:
        is_there = read_plain(path).decode() == meeting.word
        trial = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        if is_there:
            write_whole(trial, meeting.word)
            trial.unlink()
    except OSError:
        is_there = False
    except FaeError as error:
        return f"cannot write to the folder of the run: {error}"
    if not is_there:
        return f"does not see {meeting.folder}; give --out a folder that all machines see at the same place"
    return ""


def _connect(address: str, patience_seconds: float) -> Any:
    try:
        distributed = importlib.import_module("distributed")
    except ImportError as error:
        raise EngineError(
            f"--engine dask://{address} needs the package distributed ({error}); run `pip install 'fae[dask]'`"
        ) from error
    # Its traces of lost connections are no news: one line of ours says what happened.
    for name in ("distributed", "distributed.client", "tornado", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    made: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def make() -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of versions, which are compared below
                made.put(distributed.Client(f"tcp://{address}", timeout=patience_seconds, set_as_default=False))
        except BaseException as error:
            made.put(error)

    # In a thread: a client has no bound of its own for all that it does before it is there.
    threading.Thread(target=make, daemon=True, name="fae-dask-client").start()
    try:
        found = made.get(timeout=_PARTS_OF_CONNECTING * patience_seconds)
    except queue.Empty:
        found = TimeoutError()
    if isinstance(found, (OSError, TimeoutError, ValueError)):
        raise EngineError(
            f"no Dask scheduler answers at {address}; start one with `dask scheduler`, and workers with "
            f"`dask worker {address}`, or choose another --engine"
        ) from found
    if isinstance(found, BaseException):
        raise found
    return found


def _meet(client: Any, address: str, meeting: Meeting, patience_seconds: float) -> None:
    """Let every worker look for the file of this process."""
    _await_workers(client, address, patience_seconds)
    faults = client.run(fault_of_worker, meeting, on_error="return")
    for worker, fault in sorted(faults.items()):
        if isinstance(fault, ImportError):
            fault = f"cannot import fae ({fault}); install it there and start the worker again"
        if fault:
            raise EngineError(f"the Dask worker {worker} {fault}")


def _await_workers(client: Any, address: str, patience_seconds: float) -> None:
    try:
        client.wait_for_workers(1, timeout=patience_seconds)
    except TimeoutError as error:
        raise EngineError(
            f"the Dask scheduler at {address} has no workers; start them with `dask worker {address}` on each machine, "
            "and run the same command again"
        ) from error


def _is_lost(error: BaseException) -> bool:
    """Whether Dask gave a task up because workers died under it, or the connection did."""
    return type(error).__name__ in ("KilledWorker", "CommClosedError", "FutureCancelledError", "FutureLostError")
