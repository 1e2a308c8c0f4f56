"""What workers leave in a run folder when they are killed: who still uses it, and what can go.

A worker of this machine that has ended is seen at once. One of another machine is taken for gone when its file is older
than twice the time in which it would have been renewed. Both ages are by the clock of the file system: who wants to
know writes a file beside it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

from fae.engine.presence import STALE_SECONDS, WORKERS_FOLDER, Observer

TASKS_FOLDER = WORKERS_FOLDER.parts[0]


def has_leftovers(folder: Path) -> bool:
    """Whether there is anything of workers in a run folder, be they there or gone."""
    return (folder / TASKS_FOLDER).is_dir()


def active_workers(folder: Path, *, writes: bool = False) -> list[str]:
    """The workers that use a run folder, as people call them: name, machine, process.

    Parameters
    ----------
    writes
        Whether a file may be written into the folder of the workers, to see what its clock says. Without it the clock
        of this machine is taken.
    """
    observer = Observer(folder)
    names = observer.names()
    return [observer.title(name) for name in _there(folder, observer, names, writes=writes)] if names else []


def sweep_workers(folder: Path) -> None:
    """Remove what workers that are gone have left below `WORKERS_FOLDER`; results of tasks stay."""
    workers = folder / WORKERS_FOLDER
    try:
        with os.scandir(workers) as entries:
            # Listed before it is known who is there: what comes later is somebody's.
            found = [entry.name for entry in entries]
    except OSError:
        return
    observer = Observer(folder)
    names = {name.removesuffix(".json") for name in found} & {*observer.names()}
    there = _there(folder, observer, sorted(names), writes=True)
    for entry in found:
        if entry.removesuffix(".json") in there or (there and entry.removesuffix(".json") not in names):
            continue  # claims and the like are everybody's
        with contextlib.suppress(OSError):
            (workers / entry).unlink()
    for empty in (workers, workers.parent):
        with contextlib.suppress(OSError):
            empty.rmdir()


def _there(folder: Path, observer: Observer, names: list[str], *, writes: bool) -> list[str]:
    """Those of the workers that are there, or may be."""
    now: float | None = None
    found = []
    for name in names:
        verdict = observer.verdict(name)
        if verdict is None:
            now = _now(folder, writes=writes) if now is None else now
            with contextlib.suppress(OSError):
                changed = (folder / WORKERS_FOLDER / f"{name}.json").stat().st_mtime
                verdict = now - changed < 2 * STALE_SECONDS
        if verdict:
            found.append(name)
    return found


def _now(folder: Path, *, writes: bool) -> float:
    """Seconds by the clock of the file system."""
    if writes:
        path = folder / WORKERS_FOLDER / f".{secrets.token_hex(6)}.clock"
        with contextlib.suppress(OSError):
            path.touch()
            try:
                return path.stat().st_mtime
            finally:
                path.unlink()
    return time.time()
