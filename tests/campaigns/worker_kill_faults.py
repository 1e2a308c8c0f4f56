"""What a campaign of kills changes in its processes: tasks take a while; earlier faults of engines are put back."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PAUSE, FAULT = "FAE_CAMPAIGN_PAUSE", "FAE_CAMPAIGN_FAULT"
"""Variables of the environment: seconds that a task waits before it reads; the fault that is put back."""

_changed: list[str] = []


def change_process() -> None:
    """Let tasks of this process take a while, and put the fault of the environment back, once."""
    import fae.ingest.shards.shard_reading as shard_reading

    if not _changed:
        original = shard_reading.read_rows

        def slow(task: Any) -> dict[str, Any]:
            time.sleep(float(os.environ.get(PAUSE, "0")))
            return original(task)

        shard_reading.read_rows = slow
    fault = os.environ.get(FAULT, "")
    if fault and fault not in _changed:
        _PATCHES[fault]()
    _changed.append(fault)


def _parts_without_rename() -> None:
    import fae.ingest.shards.shard_files as shard_files

    class Hasty:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def rename(self, source: Path, target: Path) -> None:
            os.mkdir(target)
            for name in sorted(os.listdir(source), reverse=True):  # values and part.json first
                path = Path(source) / name
                (shutil.copytree if path.is_dir() else shutil.copyfile)(path, Path(target) / name)
                time.sleep(0.02)
            shutil.rmtree(source)

    shard_files.os = Hasty()  # type: ignore[attr-defined]


def _claims_never_expire() -> None:
    from fae.engine.shared_map import SharedMap

    SharedMap._take_over = lambda self, index: False  # type: ignore[method-assign]


def _parts_are_believed() -> None:
    from fae.ingest.shards.kept_parts import KeptParts

    KeptParts.check = lambda self, say_damaged: None  # type: ignore[method-assign]


def _lost_workers_are_errors() -> None:
    from fae.engine.calls import Workers

    Workers.is_lost = lambda self, error: False  # type: ignore[method-assign]


def _a_gone_leader_is_awaited() -> None:
    from fae.engine.shared_folder import SharedFolderEngine

    SharedFolderEngine._leader = lambda self: "1-always"  # type: ignore[method-assign]


def _workers_leave_their_files() -> None:
    import fae.engine.dask_cluster as dask_cluster
    import fae.engine.shared_folder as shared_folder
    import fae.run.folder as run_folder
    from fae.engine.presence import Observer

    Observer.sweep = lambda self: None  # type: ignore[method-assign]
    for module in (dask_cluster, shared_folder, run_folder):
        module.sweep_workers = lambda folder: None


def _folders_are_not_locked() -> None:
    import fae.core.files as files
    import fae.run.folder as run_folder

    @contextlib.contextmanager
    def unlocked(folder: Path) -> Iterator[None]:
        files.make_folder(folder)
        (folder / files.LOCK).touch()
        yield

    run_folder.locked_folder = unlocked


def _workers_outlive_their_parent() -> None:
    import fae.engine.local as local

    local._end_with = lambda sentinel: None


_PATCHES: dict[str, Callable[[], None]] = {
    "a part is published file by file": _parts_without_rename,
    "a claim of a worker that is gone stays": _claims_never_expire,
    "a part that was kept is not checked": _parts_are_believed,
    "a lost worker is an error": _lost_workers_are_errors,
    "a leader that is gone is waited for": _a_gone_leader_is_awaited,
    "workers that are gone leave their files": _workers_leave_their_files,
    "two runs write to one folder": _folders_are_not_locked,
    "processes outlive the run that began them": _workers_outlive_their_parent,
}


def _put_back(name: str) -> Callable[[], None]:
    def put_back() -> None:
        os.environ[FAULT] = name
        change_process()

    return put_back


FAULTS: dict[str, Callable[[], None]] = {name: _put_back(name) for name in _PATCHES}
