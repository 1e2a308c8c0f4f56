"""Which workers of a shared folder are there: each renews the time of a file, and others see when it no longer does.

Clocks of machines differ, so no time is compared with a clock: a worker is gone when its file has not changed for a
while by the watch of the one who looks. Where both are on one machine, a process that has ended is seen at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from pathlib import Path
from typing import Any

from fae.core.errors import EngineError
from fae.core.files import cannot_write
from fae.core.whole_files import parse_json, read_plain, write_durably
from fae.engine.code_version import code_version
from fae.engine.processes import machine_facts, process_start

STALE_SECONDS = 30.0
"""A worker whose file has not changed for so long is taken for gone, and its tasks are taken over."""
_BEATS = 6
"""The file is renewed so often in that time."""
_SAME_MACHINE = ("host", "boot", "processes")
WORKERS_FOLDER = Path(".tasks", "workers")
DASK_CLIENT = 0
"""In the place of a worker's number: the command that gives tasks to a Dask cluster."""
_TRIES = 10


def _machine_facts() -> dict[str, Any]:
    """What tells whether another process runs on this machine, and this process from a later one of its number."""
    return {"pid": os.getpid(), "started": process_start(os.getpid()), **machine_facts()}


class Presence:
    """The file of this worker, renewed by a thread until `close`.

    Parameters
    ----------
    folder
        The shared folder.
    worker, num_workers
        This worker's number from 1, and how many there are.
    stale_seconds
        As `STALE_SECONDS`; must be the same for all workers.

    Attributes
    ----------
    name
        Name of the file, which no other worker has; claims carry it.
    path
        The file.
    text
        What is in it.
    since
        Time of its file when this worker began, by the clock of the file system, in ns.

    Raises
    ------
    ArtifactError
        If the folder cannot be written to.
    """

    def __init__(self, folder: Path, worker: int, num_workers: int, stale_seconds: float = STALE_SECONDS) -> None:
        self.name = f"{worker}-{secrets.token_hex(6)}"
        self.path = folder / WORKERS_FOLDER / f"{self.name}.json"
        facts = {"worker": worker, "num_workers": num_workers, "code": code_version(), **_machine_facts()}
        self.text = json.dumps(facts)
        try:
            self._write()
            self.since = self.path.stat().st_mtime_ns
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._end = threading.Event()
        self._thread = threading.Thread(
            target=self._renew, args=(stale_seconds / _BEATS,), daemon=True, name="fae-presence"
        )
        self._thread.start()

    def close(self) -> None:
        """Remove the file: whatever this worker has claimed is free."""
        self._end.set()
        self._thread.join()
        self.path.unlink(missing_ok=True)
        for folder in (self.path.parent, self.path.parent.parent):
            with contextlib.suppress(OSError):  # others are there
                folder.rmdir()

    def _write(self) -> None:
        for attempt in range(_TRIES):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_durably(self.path, self.text)
                return
            except (FileNotFoundError, FileExistsError):  # another process has just removed the empty folder
                if attempt == _TRIES - 1:
                    raise

    def _renew(self, seconds: float) -> None:
        while not self._end.wait(seconds):
            with contextlib.suppress(OSError):  # the disk may come back
                try:
                    os.utime(self.path)
                except FileNotFoundError:
                    self._write()


class Observer:
    """Judges which workers of a shared folder are still there.

    Parameters
    ----------
    folder
        The shared folder.
    stale_seconds
        As for `Presence`.
    """

    def __init__(self, folder: Path, stale_seconds: float = STALE_SECONDS) -> None:
        self._folder, self._stale = folder / WORKERS_FOLDER, stale_seconds
        self._mine = _machine_facts()
        self._facts: dict[str, dict[str, Any]] = {}
        self._seen: dict[str, tuple[object, float, bool]] = {}

    def names(self) -> list[str]:
        """Names of the workers whose files are there."""
        with contextlib.suppress(OSError):
            return sorted(path.stem for path in self._folder.glob("[0-9]*.json"))
        return []

    def sweep(self) -> None:
        """Remove the files of workers that are known to be gone; one that is there after all writes its own again."""
        for name in self.names():
            if self.verdict(name) is False:
                with contextlib.suppress(OSError):
                    (self._folder / f"{name}.json").unlink()

    def is_alive(self, name: str) -> bool:
        """Whether a worker is there, as far as is known: one on another machine is, until its file is stale."""
        return self.verdict(name) is not False

    def verdict(self, name: str) -> bool | None:
        """True where a worker is there, False where it is gone, None where that is not known yet."""
        path = self._folder / f"{name}.json"
        try:
            # Network file systems look again when a file is opened, not when its status is read.
            with path.open("rb") as file:
                changed = os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return False
        except OSError:
            changed = -1
        facts = self.facts(name)
        is_here = bool(facts) and all(facts.get(key) and facts[key] == self._mine.get(key) for key in _SAME_MACHINE)
        if is_here and process_start(int(facts["pid"])) != facts.get("started"):
            return False
        if not self.is_recent(name, changed):
            return False
        return True if is_here or self._seen[name][2] else None

    def is_recent(self, name: str, stamp: object) -> bool:
        """Whether a stamp is new, or has been the same for less than the time after which something is stale."""
        now = time.monotonic()
        if name not in self._seen or self._seen[name][0] != stamp:
            self._seen[name] = stamp, now, name in self._seen
        return now - self._seen[name][1] < self._stale

    def facts(self, name: str) -> dict[str, Any]:
        """What a worker says of itself; empty where nothing can be read."""
        if name not in self._facts:
            with contextlib.suppress(OSError, ValueError):
                found = parse_json(read_plain(self._folder / f"{name}.json"))
                if isinstance(found, dict) and isinstance(found.get("pid"), int):
                    self._facts[name] = found
        return self._facts.get(name, {})

    def title(self, name: str) -> str:
        """A worker as people call it: its number, machine and process."""
        facts = self.facts(name)
        number = name.partition("-")[0]
        if not facts:
            return f"worker {number}"
        if facts.get("worker") == DASK_CLIENT:
            return f"the command that uses a Dask cluster ({facts.get('host')}, process {facts.get('pid')})"
        return f"worker {number} of {facts.get('num_workers')} ({facts.get('host')}, process {facts.get('pid')})"

    def check_code(self) -> None:
        """Refuse to work beside a worker that runs other code.

        Raises
        ------
        EngineError
            If there is one.
        """
        for name in self.names():
            code = self.facts(name).get("code")
            if code is not None and code != code_version() and self.is_alive(name):
                raise EngineError(
                    f"{self.title(name)} runs fae {code}, this worker {code_version()}; install the same on all "
                    "machines, end the others and run the same command on all of them"
                )
