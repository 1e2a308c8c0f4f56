"""The one verb of an engine: map a task over shards, with the results in shard order whatever ran them."""

from __future__ import annotations

import abc
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

S = TypeVar("S")
R = TypeVar("R")

AHEAD = 2
"""Tasks a worker that may be started and whose results have not been taken."""


class Engine(abc.ABC):
    """Runs tasks: pure functions from a shard, a small value that says what to read, to a small result.

    The data itself is in files, which tasks publish by rename: a task may run twice, and does no harm then. An engine
    is a context manager; behind its block none of its threads and processes is left.

    Attributes
    ----------
    num_workers
        Tasks that run at once, as far as this process knows.
    is_leader
        Whether this process may do what only one may do: publish an artifact, train. True but for workers 2 to N of a
        shared folder.
    shares_folder
        Whether other processes run the same command, and take what there is to do from a folder.
    is_elsewhere
        Whether tasks run where relative paths may lead elsewhere.
    """

    num_workers: int
    is_leader: bool = True
    shares_folder: bool = False
    is_elsewhere: bool = False

    @abc.abstractmethod
    def map(
        self,
        name: str,
        task: Callable[[S], R],
        shards: Sequence[S],
        *,
        folder: Path | None = None,
        makes_folder: bool = True,
    ) -> Iterator[R]:
        """Results of ``task(shard)`` for every shard, in shard order.

        Tasks start when the first result is taken, and run at most `AHEAD` times the number of workers ahead of the
        results that were taken. Where the loop over the results is left, tasks that have not begun are cancelled, and
        running ones have ended. After Ctrl-C they are ended, or end where they call
        `fae.engine.stopping.check_stop`.

        Parameters
        ----------
        name
            What the work is called in folders and messages: letters, digits, ``-``, ``_``, and ``/`` between words.
        task
            A function of a module, or ``functools.partial`` of one. It runs in one thread: loops of
            `fae.core.threads` run inline in it.
        shards
            Small values: None, bool, int, float, str, bytes, `Path`, and lists, tuples, dicts and frozen dataclasses of
            them. Results are of the same kinds.
        folder
            Where the files of these tasks are. Workers of a shared folder keep there, below ``.tasks``, who does what
            and what was done; remove both together, and rename the folder before: a slow worker may still write there.
            By default the folder of the engine.
        makes_folder
            Whether a folder that is not there is made. Without it the results raise `fae.engine.claims.TasksGone`: a
            slow worker must not make anew what others have finished with.

        Raises
        ------
        Exception
            What the first shard in order that fails raised, when the results before it have been taken.
        EngineError
            Workers were lost again and again.
        """

    def prepare(self, num_bytes: int, module: str) -> None:  # noqa: B027 (most engines have nothing to start)
        """Say how many bytes tasks will read soon: an engine may start what takes time to start.

        Parameters
        ----------
        module
            Name of a module that gets a process ready for the tasks; its import starts no thread of Python or numpy.
        """

    def when_tasks_have_run(self, call: Callable[[], object]) -> None:
        """Call a function once other processes have run their tasks, which this one must not be late to start and join.

        It is called at once where no such tasks are expected (`prepare`). Else it is called at the end of the first
        `map`, or by `release_workers`: who gives the function calls it too, if neither came after all.
        """
        call()

    def release_workers(self) -> None:  # noqa: B027 (most engines keep what they have)
        """Say that no tasks follow for long: an engine may give memory back, and starts again when it is needed."""

    @abc.abstractmethod
    def await_published(self, path: Path, what: str) -> None:
        """Wait until the leader has published `path`; the leader itself, and a process alone, return at once.

        Parameters
        ----------
        what
            What it is, for the progress line.

        Raises
        ------
        EngineError
            If the leader has ended without it.
        """

    def watch_leader(self, path: Path) -> Callable[[], None]:
        """A function to call now and then while waiting for the leader, which will publish `path`.

        It raises `EngineError` once the leader was there and has ended without it. Before the leader is there it
        raises nothing: it may come later.
        """
        return lambda: None

    def work_until(self, path: Path, what: str, work: Callable[[], None]) -> None:
        """Call `work`, which maps and at its end publishes `path` where this process `is_leader`; `path` is there then.

        A slow worker may find the folder of its tasks removed, because the leader has published: `work` is left then.
        """
        work()

    @abc.abstractmethod
    def close(self, *, now: bool = False) -> None:
        """End threads and processes; `now` ends running tasks at once, where that can be done."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(now=error is not None)


def check_name(name: str) -> None:
    """Refuse a name of work that cannot be a folder's.

    Raises
    ------
    ValueError
        If it has other characters than `Engine.map` says.
    """
    if not re.fullmatch(r"[a-zA-Z0-9][\w-]*(/[a-zA-Z0-9][\w-]*)*", name, re.ASCII):
        raise ValueError(f"{name!r} cannot be the name of a map: letters, digits, - and _, and / between words")
