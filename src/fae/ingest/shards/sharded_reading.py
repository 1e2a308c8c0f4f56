"""Read a raw log: its shards on all cores, then their values and rows joined in log order.

The result is that of one pass in log order: vocabularies in order of first appearance, and rows with their provisional
ids. A shard that was read is never read again: its part waits in the folder of the unfinished log.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fae.core.progress import Task, task
from fae.engine.engine import Engine
from fae.ingest.config import LogConfig
from fae.ingest.dense.dense_rules import DenseRule
from fae.ingest.input_order.ordered_rows import is_ordered
from fae.ingest.provisional_ids import ColumnEncoder
from fae.ingest.resume import IngestProgress
from fae.ingest.scratch import Scratch
from fae.ingest.shards.helping import write_plan
from fae.ingest.shards.log_order import LogOrder, start_behind
from fae.ingest.shards.shard_cuts import Shard, cut_log
from fae.ingest.shards.shard_reading import (
    ShardTask,
    listeners,
    read_shard,
    unknown_constants,
    with_absolute_paths,
)
from fae.ingest.shards.shard_rows import JoinedRows, join_ids
from fae.ingest.shards.shard_values import JoinedIds
from fae.ingest.sources import SourceFile
from fae.ingest.splits import SplitFinder

_SMALLEST_MEMORY = 128 * 2**20


def read_shards(
    config: LogConfig,
    sources: Sequence[SourceFile],
    encoders: list[ColumnEncoder],
    finder: SplitFinder,
    progress: IngestProgress,
    rules: Sequence[DenseRule],
    scratch: Scratch,
    engine: Engine,
    *,
    memory_bytes: int,
) -> None:
    """Write ``dense.npy``, ``labels.npy`` and what else is kept of each input; ids stay in the parts.

    Where the log is ordered by time, or split at random, the provisional ids are written too, to ``ids.npy``.
    ``weights.npy`` is written too where the recipe names a column of weights, and the numbers of dense columns whose
    constants are not known yet, as `fae.ingest.dense.training_constants` has them. Which dense values are missing is
    written to ``work/missing.npy`` (`fae.ingest.notes.dense_facts`), and what is summed over all inputs to
    ``state["dense"]`` of `progress`.

    Parameters
    ----------
    encoders
        Get the values of the whole log.
    engine
        Where shards are read.
    memory_bytes
        Memory for the vocabularies of all shards that are read at once.

    Raises
    ------
    LogError
        If a file cannot be read, is not what the recipe says, or changed while it was read.
    """
    shards = cut_log(config, sources)
    order = LogOrder(config, encoders, finder)
    memory_bytes = max(memory_bytes // max(1, min(engine.num_workers, len(shards))), _SMALLEST_MEMORY)
    tasks = _shard_tasks(config, sources, shards, order.start(), progress, rules, memory_bytes)
    if engine.is_elsewhere:
        tasks = [with_absolute_paths(each) for each in tasks]
    progress.keep_parts()
    if engine.shares_folder:
        write_plan(progress.parts.folder, tasks)
    total = sum(shard.num_bytes for shard in shards)
    there = {each.path for each in tasks if each.path.is_dir()}  # of an ingest that was killed
    with JoinedIds(encoders, scratch) as joined, JoinedRows(progress) as rows:
        with task("ingest: reading the log", total, "bytes") as bar, _told(bar, progress.parts.folder) as told:
            bar.find(sum(each.num_bytes for each in tasks if each.path in there))
            results = engine.map("ingest", read_shard, tasks, folder=progress.parts.folder)
            for shard, shard_task, facts in zip(shards, tasks, results, strict=True):
                order.add(shard, shard_task, facts)
                joined.add(*order.parts[-1])
                rows.add(*order.parts[-1])
                moved = shard.num_bytes if shard_task.path in there else told[shard_task.path]
                bar.advance(shard.num_bytes - moved, f"{finder.num_inputs:,} inputs")
        progress.is_at_end = True
        engine.release_workers()
        joined.finish()
        writers, facts_checksums = rows.finish()
    for encoder in encoders:
        encoder.printed.finish()
    printed = [encoder.printed.state for encoder in encoders]
    progress.state.update(
        splits=finder.state, dense=order.dense, printed=printed, raw_dense=unknown_constants(rules),
        **({"time": order.time} if order.time else {}),
    )  # fmt: skip
    with_ids = is_ordered(config)
    id_writers, maps_facts = join_ids(encoders, order.parts, joined, progress, with_rows=with_ids)
    joined.release()
    if with_ids:
        progress.mark_read(encoders, [*writers, *id_writers])
        progress.parts.remove()
    else:
        progress.keep_ids_of(order.parts, facts_checksums, maps_facts)
        progress.mark_read(encoders, writers)
        progress.parts.drop_rows(order.parts, but="ids")


def _shard_tasks(
    config: LogConfig,
    sources: Sequence[SourceFile],
    shards: Sequence[Shard],
    first: dict[str, Any],
    progress: IngestProgress,
    rules: Sequence[DenseRule],
    memory_bytes: int,
) -> list[ShardTask]:
    """One task for each shard; the first one is read with the start `first`."""
    starts = [first, *(start_behind() for _ in shards[1:])]
    return [
        ShardTask(
            config=config, source=sources[shard.source], span=shard.span, num_bytes=shard.num_bytes,
            path=progress.parts.path(shard.source, _key(shard, start)), rules=tuple(rules), start=start,
            memory_bytes=memory_bytes,
        )
        for shard, start in zip(shards, starts, strict=True)
    ]  # fmt: skip


@contextlib.contextmanager
def _told(bar: Task, folder: Path) -> Iterator[Counter[Path]]:
    """Move the bar with each chunk that is read in this process; gives the bytes by which each part has moved it."""
    told: Counter[Path] = Counter()

    def advance(path: Path, num_bytes: int) -> None:
        with lock:
            told[path] += num_bytes
            bar.advance(num_bytes)

    lock = threading.Lock()
    listeners[folder] = advance
    try:
        yield told
    finally:
        del listeners[folder]


def _key(shard: Shard, start: dict[str, Any]) -> str:
    """Tells a part from the other parts of its file."""
    text = json.dumps([shard.span.begin, shard.span.end, start])
    return f"{shard.span.begin:012}-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"
