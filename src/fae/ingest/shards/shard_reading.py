"""Read one shard: text to labels, dense features and ids of the shard's own vocabularies, written as a part.

A shard is read as if the log began with it, but for what `start_behind` says: what the shards before it decide is
checked when they are put together (`fae.ingest.shards.log_order`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fae.core.errors import LogError
from fae.engine.stopping import check_stop
from fae.ingest.chunk_encoding import encode_rows, make_encoders
from fae.ingest.column_config import columns_of_tables
from fae.ingest.config import LogConfig
from fae.ingest.continued_ids import KnownIds
from fae.ingest.dense.dense_rules import DenseRule
from fae.ingest.dense.training_constants import RAW_ROWS
from fae.ingest.input_order.ordered_rows import OrderKeys, is_ordered
from fae.ingest.notes.dense_facts import MISSING_ROWS, DenseFacts, num_missing_bytes
from fae.ingest.provisional_ids import ColumnEncoder
from fae.ingest.readers.dispatch import read_span
from fae.ingest.readers.span import Span, SpanEnds
from fae.ingest.scratch import Scratch
from fae.ingest.shards.part_counts import BYTES_PER_VALUE, count_part
from fae.ingest.shards.shard_files import SCRATCH, PartWriter, read_part
from fae.ingest.sources import SourceFile, passing_over_empty
from fae.ingest.splits import SplitFinder

listeners: dict[Path, Callable[[Path, int], None]] = {}
"""By the folder of parts: who is told of the bytes of each chunk, where shards are read in this process."""

_MOST_COUNTED = 2**24
"""Inputs of a part whose counts surely fit 32 bits, with a hundred lookups of one value each."""
_SHARE_OF_COUNTS = 4
"""A part whose counts need more than this share of the memory is counted with its rows."""


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """Everything that reading a shard depends on.

    Attributes
    ----------
    path
        Where the part appears.
    rules
        What is done to dense columns.
    start
        What is known of the log before the shard: how lists are printed, of each column or a number of lists that were
        looked at; what the ``time`` is; the last ``day``.
    num_bytes
        Bytes that are read, about.
    memory_bytes
        For vocabularies; beyond it they are kept in files.
    """

    config: LogConfig
    source: SourceFile
    span: Span
    path: Path
    rules: tuple[DenseRule, ...]
    start: dict[str, Any]
    memory_bytes: int
    num_bytes: int


def with_absolute_paths(task: ShardTask) -> ShardTask:
    """The task for a process whose working directory is another."""
    source = task.source
    if isinstance(source.path, Path):
        source = dataclasses.replace(source, path=source.path.absolute())
    return dataclasses.replace(task, source=source, path=task.path.absolute())


def read_shard(task: ShardTask) -> dict[str, Any]:
    """Read a shard and publish its part, unless it is there; return the part's facts.

    An error of the log is among the facts, as ``error``, and then there is no part: whether it is one depends on the
    shards before it.
    """
    if (found := read_part(task.path)) is not None:
        return found
    try:
        return read_rows(task)
    except LogError as error:
        return {"error": str(error)}


def read_rows(task: ShardTask) -> dict[str, Any]:
    """Read a shard and publish its part; return the part's facts.

    Raises
    ------
    LogError
        If the shard cannot be read.
    """
    config, ends = task.config, SpanEnds(begin=task.span.begin)
    part = PartWriter(task.path)
    try:
        encoders = make_encoders(config, Scratch(part.folder / SCRATCH, task.memory_bytes), without_known(config))
        for index, encoder in enumerate(encoders):
            encoder.printed.start(task.start["printed"], index)
        part.state["time"] = dict(task.start["time"]) or None
        finder = SplitFinder(config)
        finder.state["day"] = task.start["day"]
        finder.start_file(task.source.role)
        facts = DenseFacts(len(config.dense_columns()))
        with passing_over_empty(task.source):
            _write_rows(task, part, encoders, finder, facts, ends)
        task.source.check_unchanged()
        printed = [encoder.printed.state for encoder in encoders]
        part.state.update(splits=finder.state, dense=facts.state, printed=printed)
        found = {"begin": ends.begin, "stop": ends.stop, "unseen": list(ends.unseen)}
        is_counted = _can_count(task, finder.num_inputs, encoders)
        counts = count_part(part.folder / "ids.npy", encoders) if is_counted else []
        return part.publish(encoders, {"num_inputs": finder.num_inputs, **found}, counts)
    except BaseException:
        part.abandon()
        raise


def _can_count(task: ShardTask, num_inputs: int, encoders: Sequence[ColumnEncoder]) -> bool:
    """Whether counts of a part are of use, and fit memory and 32 bits.

    They are where ids of the part are its own, and its inputs stay together.
    """
    if is_ordered(task.config) or any(encoder.vocabulary is None for encoder in encoders):
        return False
    num_bytes = BYTES_PER_VALUE * sum(encoder.table_encoder.num_values for encoder in encoders)
    return 0 < num_inputs < _MOST_COUNTED and num_bytes <= task.memory_bytes // _SHARE_OF_COUNTS


def without_known(config: LogConfig) -> list[KnownIds | None]:
    """No known values for any table."""
    return [None] * len(columns_of_tables(config.categorical_columns()))


def _write_rows(
    task: ShardTask,
    part: PartWriter,
    encoders: list[ColumnEncoder],
    finder: SplitFinder,
    facts: DenseFacts,
    ends: SpanEnds,
) -> None:
    config = task.config
    num_slots, num_dense = encoders[-1].slots.stop, len(config.dense_columns())
    unknown = unknown_constants(task.rules)
    with ExitStack() as files:
        ids = files.enter_context(part.open_rows("ids", np.int32, (num_slots,)))
        dense = files.enter_context(part.open_rows("dense", np.float32, (num_dense,)))
        labels = files.enter_context(part.open_rows("labels", np.uint8, ()))
        missing = files.enter_context(part.open_rows(MISSING_ROWS, np.uint8, (num_missing_bytes(num_dense),)))
        weights = files.enter_context(part.open_rows("weights", np.float32, ())) if config.weight else None
        raw = files.enter_context(part.open_rows(RAW_ROWS, np.float64, (len(unknown),))) if unknown else None
        keys = OrderKeys(config, part, files)
        for chunk in read_span(config, task.source.path, task.span, ends):
            finder.add(chunk)
            keys.add(chunk)
            rows = encode_rows(config, chunk, encoders, task.rules)
            ids.append(rows.ids)
            dense.append(rows.dense)
            assert rows.labels is not None
            labels.append(rows.labels)
            missing.append(rows.missing)
            if raw is not None:
                raw.append(rows.raw)
            if weights is not None:
                assert rows.weights is not None
                weights.append(rows.weights)
            facts.add(rows.vanished, rows.largest)
            check_stop()
            if (told := listeners.get(task.path.parent)) is not None:
                told(task.path, chunk.raw_bytes)


def unknown_constants(rules: Sequence[DenseRule]) -> list[str]:
    """The dense columns whose constants are not known before the log is read."""
    return [rule.name for rule in rules if not rule.is_known]
