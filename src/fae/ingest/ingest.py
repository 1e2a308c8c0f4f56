"""Ingest: a raw click log becomes the columnar log (`fae.artifacts.columnar_log` says what is in it).

Place in the flow: the first stage. Two passes, both streaming. The first parses the text once and writes labels, dense
features and *provisional* ids (order of first appearance); when the number of inputs is known, so are the splits, and
the second counts the training split, gives final ids by popularity and renumbers in place.

Invariants: the result depends on the log and the configuration alone, never on block sizes, threads, memory or kills;
memory is bounded by `memory_bytes` and a few blocks; a raw file that was read to its end is not read again
(`fae.ingest.resume`). It does not choose hot rows, sample or shuffle.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fae.artifacts.columnar_log import FORMAT_VERSION, KIND, ColumnarLog
from fae.artifacts.manifest import Plan, write_artifact
from fae.core.config import to_table
from fae.core.errors import LogError
from fae.core.files import cannot_write, check_replaceable
from fae.core.progress import say
from fae.ingest.config import LogConfig
from fae.ingest.continued_ids import known_ids
from fae.ingest.first_pass import first_pass, make_columns
from fae.ingest.resume import Partial
from fae.ingest.scratch import Scratch
from fae.ingest.second_pass import write_second_pass
from fae.ingest.sources import SourceFile, digest_sources, find_sources, remember
from fae.ingest.splits import SplitFinder

COMMAND = "fae ingest RECIPE.toml"


def plan_ingest(
    config: LogConfig, *, base: Path, previous: Path | None = None, parent: ColumnarLog | None = None
) -> Plan:
    """What the columnar log will be made from.

    Parameters
    ----------
    base
        Folder that relative names and globs are resolved against: the recipe's.
    previous
        Where the log stands or will stand. Files that have not changed since it was made (path, size, modification
        time) are then not read again to name their content.
    parent
        The log whose ids this one continues (`fae.ingest.continued_ids`).

    Raises
    ------
    LogError
        If a name or glob matches no file, or a file is empty or named twice.
    """
    sources = find_sources(config, base)
    return _plan(config, sources, digest_sources(sources, previous), parent)


def _plan(config: LogConfig, sources: list[SourceFile], digests: list[str], parent: ColumnarLog | None) -> Plan:
    parameters = to_table(config)
    # What two recipes may write differently and mean alike is written one way, so that the log is not made twice.
    parameters["categorical"] = [to_table(column) for column in config.columns()]
    parameters["dense"] = list(config.dense_columns())
    parameters["label"] = config.label_column()
    published = config.has_published_split()
    parameters["test_fraction"] = "published" if published else config.effective_test_fraction()
    parameters["validation_fraction"] = "published" if published else config.effective_validation_fraction()
    for role in ("train", "test"):
        parameters[role] = [source.name for source in sources if source.role == role]
    parameters["sources"] = [
        {"name": source.name, "bytes": source.num_bytes, "blake2b": digest}
        for source, digest in zip(sources, digests, strict=True)
    ]
    parents = {} if parent is None else {KIND: parent.manifest.fingerprint}
    return Plan(kind=KIND, format_version=FORMAT_VERSION, parameters=parameters, parents=parents, command=COMMAND)


def ingest(
    config: LogConfig, path: Path, *, base: Path, memory_bytes: int = 2**30, parent: ColumnarLog | None = None
) -> ColumnarLog:
    """Read the raw log and write the columnar log to `path`, whole or not at all.

    Parameters
    ----------
    base
        Folder that relative names and globs are resolved against: the recipe's.
    memory_bytes
        Memory for vocabularies and counts; what is beyond it lives in memory-mapped files beside the result until it
        is done. A few blocks of the log (about 100 MB) come on top.
    parent
        The log whose ids this one continues: its values keep their ids, new ones are appended.

    Raises
    ------
    LogError
        If the log cannot be read as the configuration describes it: one line with file, line and value.
    ArtifactError
        If `path` cannot be written, or the parent has other columns or is damaged.
    """
    known = known_ids(parent, config)
    sources = find_sources(config, base)
    plan = _plan(config, sources, digest_sources(sources, path), parent)
    partial = _open_partial(path, plan, sources)
    summary: dict[str, Any] = {}
    try:
        with write_artifact(path, plan, summary, unfinished=partial.folder):
            scratch = Scratch(partial.work / "scratch", memory_bytes)
            reading = partial.phase == "reading"
            columns = make_columns(config, scratch, known if reading else [None] * len(known))
            finder = SplitFinder(config, partial.state.get("splits"))
            if reading:
                partial.restore(columns)
                first_pass(config, sources, columns, finder, partial)
            summary.update(write_second_pass(config, columns, finder.splits(), partial, scratch))
            scratch.close()
    except BaseException as error:
        # A log that was read to its end and is not accepted will not be the next time either.
        if partial.num_done == 0 or (partial.num_done == len(sources) and isinstance(error, LogError)):
            partial.discard()
        else:
            say(
                f"ingest: {partial.num_done} of {len(sources)} files are read and kept in {partial.folder}; the "
                "same command goes on behind them"
            )
        raise
    partial.discard()
    remember(sources, path)
    return ColumnarLog(path)


def _open_partial(path: Path, plan: Plan, sources: Sequence[SourceFile]) -> Partial:
    """What an earlier process has left of this log, or nothing yet."""
    # Everything but the list of files, of which a beginning will do.
    key = {name: value for name, value in plan.parameters.items() if name not in ("train", "test", "sources")}
    named = [{"role": source.role, **facts} for source, facts in zip(sources, plan.parameters["sources"], strict=True)]
    try:
        check_replaceable(path)
        partial = Partial(path, [key, plan.parents], named)
    except OSError as error:
        raise cannot_write(path, error) from error
    if partial.num_done:
        say(f"ingest: going on behind {partial.num_done} of {len(sources)} files")
    return partial
