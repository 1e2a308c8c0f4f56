"""The folder of one map over a shared folder: a file a claim, a file a result, a file an error.

::

    .tasks/NAME-DIGEST/00000012.claim0    worker that runs task 12, made with O_EXCL
                       00000012.claim1    worker that took it over, as the first was gone; made with O_EXCL too
                       00000012.json      its result, published by rename
                       00000012.error     its error, valid for workers that had begun when it was published

A claim is never renamed or replaced: a worker that is slow to take over would do so with the claim of a faster one.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fae.core.errors import EngineError
from fae.core.files import cannot_write
from fae.core.whole_files import parse_json, read_plain
from fae.engine.outcomes import attempt, describe
from fae.engine.stopping import TaskStopped

_CLAIM = ".claim"
STOPPED = {"stopped": True}
"""What came of a task that nobody waited for any more."""


class TasksGone(EngineError):
    """The folder of a map has been removed while this worker used it."""


@dataclass
class Survey:
    """What is in the folder: tasks that are done, have failed, are claimed; of claims the last generation."""

    done: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    claimed: dict[int, int] = field(default_factory=dict)


class TaskFolder:
    """Claims, results and errors of one map.

    Parameters
    ----------
    path
        The folder, which is made.
    owner
        Name of this worker, see `fae.engine.presence.Presence`.
    since
        Errors of an earlier time, by the clock of the file system in ns, are of an earlier try, and are removed.
    inside
        A folder above it that must be there: others remove it when they have finished with it.

    Raises
    ------
    ArtifactError
        If it cannot be made.
    TasksGone
        If `inside` is not there.
    """

    def __init__(self, path: Path, owner: str, since: int, inside: Path | None = None) -> None:
        self.path, self._owner, self._since = path, owner, since
        self._held: dict[int, int] = {}
        try:
            if inside is None:
                path.mkdir(parents=True, exist_ok=True)
            else:
                for place in [*reversed([each for each in path.parents if inside in each.parents]), path]:
                    place.mkdir(exist_ok=True)
        except OSError as error:
            was_removed = isinstance(error, FileExistsError) and not os.path.lexists(error.filename)
            if was_removed or isinstance(error, FileNotFoundError):
                raise self.gone() from None
            raise cannot_write(path, error) from error

    def survey(self) -> Survey:
        """List the folder. On a network file system this sees what others have made; opening one file need not.

        Raises
        ------
        TasksGone
            If it is no longer there.
        """
        found = Survey()
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    stem, kind = os.path.splitext(entry.name)
                    if not stem.isdigit():
                        continue
                    if kind == ".json":
                        found.done.add(int(stem))
                    elif kind == ".error" and self._is_of_now(entry):
                        found.failed.add(int(stem))
                    elif kind.startswith(_CLAIM):
                        generation = int(kind.removeprefix(_CLAIM))
                        found.claimed[int(stem)] = max(generation, found.claimed.get(int(stem), 0))
        except FileNotFoundError:
            raise self.gone() from None
        return found

    def gone(self) -> TasksGone:
        """The error for a folder that is no longer there."""
        return TasksGone(
            f"{self.path} has been removed while its tasks were run: another worker has finished the stage, or "
            "somebody has removed it; run the same command again"
        )

    def claim(self, index: int, generation: int = 0) -> bool:
        """Claim a task, unless another worker has.

        Parameters
        ----------
        generation
            0, or one more than that of the claim of a worker that is gone, which is taken over: of several who try, one
            succeeds.

        Raises
        ------
        TasksGone
            If the folder is no longer there.
        """
        path = self._claim(index, generation)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            return False
        except FileNotFoundError:
            raise self.gone() from None
        with os.fdopen(descriptor, "w") as file:
            file.write(self._owner)
        self._held[index] = generation
        return True

    def owner_of(self, index: int, generation: int) -> tuple[str, object]:
        """Who has claimed a task, "" where that is not written yet, and a stamp of the claim.

        Raises
        ------
        OSError
            If the claim is not there.
        """
        with self._claim(index, generation).open("rb") as file:
            status = os.fstat(file.fileno())
            return file.read(200).decode("ascii", "replace"), (status.st_ino, status.st_mtime_ns)

    def is_mine(self, index: int) -> bool:
        """Whether this worker has claimed a task, and the folder is still the one where it did so."""
        with contextlib.suppress(OSError, TasksGone):
            for generation in range(self.survey().claimed.get(index, -1) + 1):
                with contextlib.suppress(OSError):
                    if self.owner_of(index, generation)[0] == self._owner:
                        return True
        return False

    def release(self, index: int) -> None:
        """Give the claim of this worker up: those that it took over first, so that the task is never free before."""
        for generation in range(self._held.pop(index, -1) + 1):
            with contextlib.suppress(OSError):
                self._claim(index, generation).unlink()

    def read(self, index: int, kind: str) -> dict[str, Any] | None:
        """What was published of a task, a ``json`` or an ``error``; None where nothing is, or it cannot be read.

        A file that cannot be read, which only a power failure leaves, is removed: the task is done again.
        """
        path = self._file(index, kind)
        try:
            found = parse_json(read_plain(path))
            if isinstance(found, dict):
                return found
        except OSError:
            return None
        except ValueError:
            pass
        path.unlink(missing_ok=True)
        return None

    def drop(self, index: int) -> None:
        """Remove a result that is none."""
        self._file(index, "json").unlink(missing_ok=True)

    def publish(self, index: int, described: dict[str, Any]) -> None:
        """Publish a result or an error; what has been published of the same task stays.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        path = self._file(index, "error" if "error" in described else "json")
        temporary = self.path / f".{path.name}.{secrets.token_hex(6)}.writing"  # two workers may run the same task
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(described, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _file(self, index: int, kind: str) -> Path:
        return self.path / f"{index:08d}.{kind}"

    def _claim(self, index: int, generation: int) -> Path:
        return self._file(index, f"{_CLAIM[1:]}{generation}")

    def _is_of_now(self, entry: os.DirEntry[str]) -> bool:
        with contextlib.suppress(FileNotFoundError):
            if entry.stat(follow_symlinks=False).st_mtime_ns >= self._since:
                return True
            os.unlink(entry.path)
        return False


def attempt_and_publish(tasks: TaskFolder, task: Callable[[Any], Any], numbered: tuple[int, Any]) -> dict[str, Any]:
    """Run a task of a map and publish what came of it; returns an error, or nothing of interest."""
    index, shard = numbered
    outcome = attempt(task, shard)
    if isinstance(outcome.error, TaskStopped):
        return STOPPED
    described = describe(outcome)
    if "error" not in described and tasks.read(index, "json") is not None:
        return {}  # another worker, who took this one for gone, was faster
    if "error" in described and not tasks.is_mine(index):
        return STOPPED  # what it read and wrote may have been removed meanwhile, by a worker that begins anew
    try:
        tasks.publish(index, described)
    except FileNotFoundError:
        return STOPPED  # the folder is gone; who surveys it says so
    return described if "error" in described else {}
