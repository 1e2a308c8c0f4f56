"""Help another process to ingest a log: read its shards, and wait for the log.

Worker 1 plans the log and writes its shards to ``.plan.json`` among the parts; the others take them from there. So they
read no file to name it, and all have the same shards. Files and folders have the same paths for all.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fae.core.errors import EngineError
from fae.core.files import MANIFEST
from fae.core.progress import say
from fae.core.whole_files import read_json, write_durably
from fae.engine.claims import TasksGone
from fae.engine.engine import Engine
from fae.engine.plain_values import from_plain, to_plain
from fae.engine.presence import STALE_SECONDS
from fae.ingest.formats import ready_module
from fae.ingest.shards.shard_reading import ShardTask, read_shard

PLAN = ".plan.json"
_PAUSE_SECONDS, _SAY_EVERY_SECONDS = 0.2, 15.0


def write_plan(folder: Path, tasks: Sequence[ShardTask]) -> None:
    """Tell other workers what there is to read."""
    write_durably(folder / PLAN, json.dumps(to_plain(list(tasks))))


def help_ingest(path: Path, parts: Path, engine: Engine, *, stale_seconds: float = STALE_SECONDS) -> int:
    """Read shards of a log that worker 1 ingests, until it is there; return the number of its shards.

    0 where the log is there already and nobody begins another.

    Parameters
    ----------
    path
        The log.
    parts
        Folder of its parts while it is read.

    Raises
    ------
    EngineError
        If worker 1 ends without the log.
    """
    num_shards = 0
    while True:
        tasks = _await_plan(path, parts / PLAN, engine, 0.0 if num_shards else stale_seconds)
        if not tasks:
            break
        if not num_shards:
            engine.prepare(sum(task.num_bytes for task in tasks), ready_module(tasks[0].config.format))
            say(f"ingest: helping to read {len(tasks):,} shards of {path}")
        num_shards = len(tasks)
        with contextlib.suppress(TasksGone):  # the log is there, or worker 1 was started again and plans it anew
            for _ in engine.map("ingest", read_shard, tasks, folder=parts, makes_folder=False):
                pass
            engine.await_published(path / MANIFEST, "ingest")
            return num_shards
    if not num_shards:
        say(f"ingest: already there, {path}")
    return num_shards


def _await_plan(path: Path, plan: Path, engine: Engine, stale_seconds: float) -> list[ShardTask]:
    started = said = time.monotonic()
    watch = engine.watch_leader(path / MANIFEST)
    while True:
        try:
            found: list[ShardTask] = from_plain(read_json(plan), "fae")
            return found
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise EngineError(f"{plan} is no list of shards ({error}); run the command of worker 1 again") from error
        now = time.monotonic()
        if (path / MANIFEST).is_file() and now - started > stale_seconds:
            return []
        watch()
        if now - said > _SAY_EVERY_SECONDS:
            said = now
            say("ingest: waiting for worker 1, which plans the log")
        time.sleep(_PAUSE_SECONDS)


def as_result(num_shards: int) -> dict[str, Any]:
    """The result of a command that helped."""
    return {"helped": True, "num_shards": num_shards}
