"""Ingest: a raw click log becomes the columnar log (`fae.data.columnar` says what is in it).

Place in the flow: the first stage. Two passes, both streaming. The first parses the text once and writes labels, dense
features and *provisional* ids (order of first appearance); when the number of inputs is known, so are the splits, and
the second counts the training split, gives final ids by popularity and renumbers in place.

Invariants: the result depends on the log and the configuration alone, never on block sizes, threads or memory; memory
is bounded by `memory_bytes` and a few blocks. It does not choose hot rows, sample or shuffle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from fae.core.artifact import Plan, write_artifact
from fae.core.config import to_table
from fae.core.errors import LogError
from fae.core.progress import task
from fae.data.appending import KnownIds, known_ids
from fae.data.columnar import FORMAT_VERSION, KIND, ColumnarLog
from fae.data.columns import Column
from fae.data.config import LogConfig
from fae.data.dense import to_dense, to_labels
from fae.data.finish import finish_log
from fae.data.jobs import run_jobs
from fae.data.npy import RowWriter
from fae.data.readers import Chunk, read_chunks
from fae.data.scratch import Scratch
from fae.data.sources import SourceFile, digest_sources, find_sources, remember

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
        The log whose ids this one continues (`fae.data.appending`).

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
    parameters["test_fraction"] = config.effective_test_fraction()
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
    summary: dict[str, Any] = {}
    with write_artifact(path, plan, summary) as folder:
        scratch = Scratch(folder / "scratch", memory_bytes)
        columns = _columns(config, scratch, known)
        inputs_by_role = _first_pass(config, sources, columns, folder)
        splits = split_ranges(config, inputs_by_role["train"], inputs_by_role["test"])
        summary.update(finish_log(config, columns, splits, folder, scratch))
        scratch.close()
    remember(sources, path)
    return ColumnarLog(path)


def _columns(config: LogConfig, scratch: Scratch, known: Sequence[KnownIds | None]) -> list[Column]:
    columns: list[Column] = []
    for column, ids in zip(config.columns(), known, strict=True):
        columns.append(Column(column, columns[-1].slots.stop if columns else 0, scratch, known=ids))
    return columns


def split_ranges(config: LogConfig, num_train_inputs: int, num_test_inputs: int) -> dict[str, list[int]]:
    """Ranges ``[start, stop]`` of the splits in log order, from the inputs of the train and of the test files.

    Fractions are rounded to the nearest input.

    Raises
    ------
    LogError
        If nothing is left to train on.
    """
    num_inputs = num_train_inputs + num_test_inputs
    test_start = num_train_inputs
    if not config.test:
        test_start -= int(num_inputs * config.effective_test_fraction() + 0.5)
    train_stop = test_start - int(test_start * config.validation_fraction + 0.5)
    if train_stop <= 0:
        raise LogError(
            f"the log has {num_inputs} inputs, and none is left for training after [log] test_fraction = "
            f"{config.effective_test_fraction()} and validation_fraction = {config.validation_fraction}; lower them"
        )
    return {"train": [0, train_stop], "validation": [train_stop, test_start], "test": [test_start, num_inputs]}


def _first_pass(
    config: LogConfig, sources: Sequence[SourceFile], columns: list[Column], folder: Path
) -> dict[str, int]:
    """Write ``ids.npy`` (provisional), ``dense.npy`` and ``labels.npy``; return the inputs by role."""
    inputs_by_role = {"train": 0, "test": 0}
    num_slots, num_dense = columns[-1].slots.stop, len(config.dense_columns())
    with (
        task("ingest: reading the log", sum(source.num_bytes for source in sources), "bytes") as progress,
        RowWriter(folder / "ids.npy", np.int32, num_slots) as ids,
        RowWriter(folder / "dense.npy", np.float32, num_dense) as dense,
        RowWriter(folder / "labels.npy", np.uint8, None) as labels,
    ):
        for source in sources:
            with closing(read_chunks(config, source.path)) as chunks:
                for chunk in chunks:
                    _encode_chunk(config, chunk, columns, ids, dense, labels)
                    inputs_by_role[source.role] += chunk.num_inputs
                    progress.advance(chunk.raw_bytes, f"{ids.num_rows:,} inputs")
            source.check_unchanged()
    return inputs_by_role


def _encode_chunk(
    config: LogConfig, chunk: Chunk, columns: list[Column], ids: RowWriter, dense: RowWriter, labels: RowWriter
) -> None:
    names = config.dense_columns()
    id_rows = np.empty((chunk.num_inputs, columns[-1].slots.stop), np.int32)
    dense_rows = np.empty((chunk.num_inputs, len(names)), np.float32)
    label_rows = np.empty(chunk.num_inputs, np.uint8)

    def label_job() -> None:
        label_rows[:] = to_labels(chunk.label, config.label, chunk.locate)

    def dense_job(index: int) -> Callable[[], None]:
        def job() -> None:
            dense_rows[:, index] = to_dense(chunk.dense[index], config.dense_transform, names[index], chunk.locate)

        return job

    def id_job(index: int) -> Callable[[], None]:
        return lambda: columns[index].encode(chunk.categorical[index], id_rows, chunk.locate)

    run_jobs([label_job, *map(dense_job, range(len(names))), *map(id_job, range(len(columns)))])
    ids.append(id_rows)
    dense.append(dense_rows)
    labels.append(label_rows)
