"""Ingest: turn a raw click log into the columnar log, in two streaming passes.

The first pass parses the text once, in shards on all cores, and writes labels, dense features and *provisional* ids
(order of first appearance in the log). Then the number of inputs is known, and so are the splits. The second pass
counts the training split, assigns final ids by popularity and replaces the provisional ids in place.

The result depends on the log and the configuration alone, never on shards, block sizes, threads, memory or kills.
Memory is bounded by `memory_bytes` and a few blocks a thread. A shard that was read is not read again after a kill
(`fae.ingest.resume`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.manifest import Plan, write_artifact
from fae.core.errors import LogError
from fae.core.files import cannot_write, check_replaceable
from fae.core.progress import say
from fae.engine.engine import Engine
from fae.engine.local import LocalEngine
from fae.ingest.chunk_encoding import make_encoders
from fae.ingest.config import LogConfig
from fae.ingest.continued_ids import known_ids
from fae.ingest.dense.dense_rules import constants_summary, dense_rules
from fae.ingest.dense.training_constants import complete_dense
from fae.ingest.input_order.ordered_rows import order_inputs
from fae.ingest.log_plan import plan_of, prepare_engine
from fae.ingest.numbering.second_pass import second_pass
from fae.ingest.raw_files.file_advice import content_notes
from fae.ingest.raw_files.source_digests import cache_digests, describe_sources, digest_sources
from fae.ingest.readers.chunk import NoInputsError
from fae.ingest.readers.dispatch import check_header
from fae.ingest.resume import IngestProgress
from fae.ingest.scratch import Scratch
from fae.ingest.shards.sharded_reading import read_shards
from fae.ingest.sources import (
    SourceFile,
    find_sources,
)
from fae.ingest.splits import SplitFinder
from fae.ingest.value_types.type_classes import check_types


def ingest(
    config: LogConfig,
    path: Path,
    *,
    base: Path,
    memory_bytes: int = 2**30,
    parent: ColumnarLog | None = None,
    engine: Engine | None = None,
) -> ColumnarLog:
    """Read the raw log and write the columnar log to `path`, as a whole or not at all.

    Parameters
    ----------
    base
        Folder to which relative names and globs are relative: the recipe's.
    memory_bytes
        Memory for vocabularies and counts; beyond it they are kept in temporary memory-mapped files beside the result.
        A few blocks of the log (about 100 MB) come on top.
    parent
        The log whose ids this one continues: its values keep their ids, new ones are appended.
    engine
        Where shards are read, by default in threads of this process.

    Raises
    ------
    LogError
        If the log cannot be read as the configuration describes it: one line with file, line and value.
    ArtifactError
        If `path` cannot be written, or the parent has other columns or is damaged.
    """
    known = known_ids(parent, config)
    rules = dense_rules(config, None if parent is None else parent.manifest.summary.get("dense_constants"))
    lines: list[str] = []
    sources = find_sources(config, base, lines=lines)
    for line in lines:
        say(f"ingest: {line}")
    files = describe_sources(config, sources, digest_sources(sources, path))
    plan = plan_of(config, files, parent)
    progress = _open_progress(path, plan, files)
    summary: dict[str, Any] = {}
    try:
        with write_artifact(path, plan, summary, unfinished=progress.folder, files=progress.files):
            scratch = Scratch(progress.work / "scratch", memory_bytes)
            reading = progress.phase == "reading"
            types = _value_types(config, sources, parent)
            encoders = make_encoders(config, scratch, known if progress.phase != "done" else [None] * len(known))
            finder = SplitFinder(config, progress.state.get("splits"))
            if not reading or progress.is_read:
                if reading:
                    progress.restore(encoders)
                if engine is not None:
                    engine.release_workers()  # an earlier process has read the log
            else:
                for source in sources:
                    with contextlib.suppress(NoInputsError):  # who reads it decides whether it may be empty
                        check_header(config, source.path)
                with LocalEngine() if engine is None else contextlib.nullcontext(engine) as here:
                    prepare_engine(here, config, sources)
                    read_shards(
                        config, sources, encoders, finder, progress, rules, scratch, here, memory_bytes=memory_bytes
                    )
            splits = order_inputs(config, finder, progress)
            rules = complete_dense(rules, splits, progress)
            paths = [source.path for source in sources]
            summary.update(second_pass(config, encoders, splits, progress, scratch) | constants_summary(rules))
            notes = [*content_notes(files, finder.file_sizes, paths), *progress.state.get("order_notes", ())]
            summary["notes"] = [*notes, *summary.get("notes", ())]
            summary.update({"value_types": types} if types else {})
            scratch.close()
    except BaseException as error:
        progress.parts.wait()
        # A log that was read to its end and refused would be refused the next time too, so nothing is kept of it.
        if not progress.has_anything or (progress.is_at_end and isinstance(error, LogError)):
            progress.discard()
        else:
            say(f"ingest: {progress.describe()} and kept in {progress.folder}; the same command continues")
        raise
    progress.discard()
    cache_digests(sources, path)
    return ColumnarLog(path)


def _open_progress(path: Path, plan: Plan, files: Sequence[Mapping[str, Any]]) -> IngestProgress:
    """What an earlier process has kept of this log, or an empty beginning."""
    # The key has everything but the list of files, because the first ones of them are enough.
    key = {
        name: value for name, value in plan.parameters.items() if name not in ("train", "validation", "test", "sources")
    }
    try:
        check_replaceable(path)
        progress = IngestProgress(path, [key, plan.parents], files)
    except OSError as error:
        raise cannot_write(path, error) from error
    if progress.has_anything:
        say(f"ingest: continuing; {progress.describe()}")
    return progress


def _value_types(config: LogConfig, sources: Sequence[SourceFile], parent: ColumnarLog | None) -> dict[str, str]:
    known = None if parent is None else parent.manifest.summary.get("value_types")
    return check_types(
        config, [source.path for source in sources], known=known, known_log=None if parent is None else parent.path
    )
