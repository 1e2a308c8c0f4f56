"""The engine of ``--worker i/N``: the same command on several machines, with nothing but a folder in common."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from fae.core.errors import EngineError
from fae.core.progress import say, task
from fae.engine.claims import TaskFolder, TasksGone
from fae.engine.engine import AHEAD, Engine, check_name
from fae.engine.executor import ExecutorEngine
from fae.engine.leftovers import sweep_workers
from fae.engine.local import LocalEngine
from fae.engine.outcomes import digest_of, function_of
from fae.engine.presence import STALE_SECONDS, WORKERS_FOLDER, Observer, Presence
from fae.engine.shared_map import SharedMap

S = TypeVar("S")
R = TypeVar("R")

_LONGEST_PAUSE = 1.0


class SharedFolderEngine(Engine):
    """Shares tasks with other workers, each of which runs the same program.

    Every worker gets all results, in order. A worker may come later, leave, be killed or be started twice: its tasks
    are taken over after `stale_seconds`, at once where it ran on the same machine. What is done is never done again,
    also by a later run of the same command, as long as the folder of the tasks is there. An error is
    raised by all workers, and its task is tried again by those that begin later.

    Parameters
    ----------
    local
        Runs the tasks on this machine; closed with this engine.
    folder
        The folder of the run, which all workers see.
    worker, num_workers
        Number of this worker, from 1, and how many there are.
    stale_seconds
        The same for all workers: how long the file of a worker may stay unchanged before its tasks are taken over.

    Raises
    ------
    ArtifactError
        If the folder cannot be written to.
    EngineError
        If a worker in it runs other code.
    """

    shares_folder = True

    def __init__(
        self,
        local: ExecutorEngine | LocalEngine,
        folder: Path,
        worker: int,
        num_workers: int,
        *,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        self.num_workers = local.num_workers
        self._local, self._folder, self._worker, self._of = local, folder, worker, num_workers
        self._stale = stale_seconds
        self._presence = Presence(folder, worker, num_workers, stale_seconds)
        self._workers_folder = TaskFolder(folder / WORKERS_FOLDER, self._presence.name, self._presence.since)
        self._observer = Observer(folder, stale_seconds)
        self._has_said_alone = False
        try:
            self._observer.check_code()
            self._observer.sweep()
            self.is_leader = worker == 1 and self._leads()
        except BaseException:
            self._presence.close()
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
        check_name(name)
        function_of(task)
        shards = list(shards)
        place = folder or self._folder
        path = place / ".tasks" / f"{name}-{digest_of(task, shards)}"
        return self._results(name, task, shards, path, None if makes_folder else place)

    def prepare(self, num_bytes: int, module: str) -> None:
        self._local.prepare(num_bytes, module)

    def await_published(self, path: Path, what: str) -> None:
        if self.is_leader:
            return
        pause, start = 0.02, time.monotonic()
        watch = self.watch_leader(path)
        with _waiting(f"{what}: waiting for worker 1 of {self._of}, which publishes it") as show:
            while not _is_there(path):
                now = time.monotonic()
                watch()
                time.sleep(pause)
                pause = min(_LONGEST_PAUSE, 0.1 * (time.monotonic() - start) + 0.02)
                show(time.monotonic() - now)

    def watch_leader(self, path: Path) -> Callable[[], None]:
        last_seen: str | None = None
        gone_since: float | None = None

        def watch() -> None:
            nonlocal last_seen, gone_since
            now = time.monotonic()
            leader = None if self.is_leader else self._leader()
            last_seen = leader or last_seen
            gone_since = None if leader or last_seen is None else gone_since or now
            if gone_since is not None and now - gone_since > self._stale and not _is_there(path):
                raise EngineError(
                    f"{self._observer.title(str(last_seen))} has ended before it has published {path}; run the "
                    f"same command again, with --worker 1/{self._of} on any machine: what is done is not done again"
                )

        return watch

    def work_until(self, path: Path, what: str, work: Callable[[], None]) -> None:
        if self.is_leader:
            work()
            return
        with contextlib.suppress(TasksGone):
            work()
        self.await_published(path, what)

    def close(self, *, now: bool = False) -> None:
        try:
            self._local.close(now=now)
        finally:
            if self.is_leader:
                self._workers_folder.release(0)
            self._observer.sweep()
            self._presence.close()
            sweep_workers(self._folder)

    def _leads(self) -> bool:
        """Whether this worker 1 is the leader, and not a second one: the claim of task 0 among the workers decides."""
        folder = self._workers_folder
        while True:
            generation = folder.survey().claimed.get(0)
            if generation is None:
                if folder.claim(0):
                    return True
                continue
            try:
                owner, stamp = folder.owner_of(0, generation)
            except OSError:
                continue
            is_there = self._observer.verdict(owner) if owner else self._observer.is_recent("leader", stamp) or None
            if is_there is None:
                time.sleep(self._stale / 20)
            elif is_there or folder.claim(0, generation + 1):
                return not is_there

    def _leader(self) -> str | None:
        """Name of the leader, if it is there."""
        with contextlib.suppress(OSError, TasksGone):
            generation = self._workers_folder.survey().claimed.get(0)
            owner = self._workers_folder.owner_of(0, generation)[0] if generation is not None else ""
            return owner if owner and self._observer.is_alive(owner) else None
        return None

    def _results(
        self, name: str, task: Callable[[S], R], shards: list[S], path: Path, inside: Path | None
    ) -> Iterator[R]:
        shared = SharedMap(
            name, task, shards, TaskFolder(path, self._presence.name, self._presence.since, inside), local=self._local,
            observer=self._observer, place=(self._worker - 1, self._of), ahead=AHEAD * self.num_workers * self._of,
        )  # fmt: skip
        with contextlib.closing(shared.results()) as results:
            yield from results
        if self._of > 1 and not self._has_said_alone and len(self._observer.names()) == 1:
            self._has_said_alone = True
            say(
                f"{name}: done; no other of the {self._of} workers is in {self._folder} at the moment (a folder that "
                "machines do not share shows none)"
            )


def _is_there(path: Path) -> bool:
    """Whether a name is in its folder, which is read anew: network file systems remember that a file is not there."""
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        return any(entry.name == path.name for entry in entries)
    return False


@contextlib.contextmanager
def _waiting(label: str) -> Iterator[Callable[[float], None]]:
    with task(label, None, "s") as progress:
        yield progress.advance
