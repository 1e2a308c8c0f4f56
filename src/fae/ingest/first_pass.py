"""The first pass of ingest: text to labels, dense features and provisional ids, in order of first appearance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np

from fae.core.npy import RowWriter
from fae.core.progress import task
from fae.core.threads import run_jobs
from fae.ingest.config import LogConfig
from fae.ingest.continued_ids import KnownIds
from fae.ingest.dense_values import to_dense, to_labels
from fae.ingest.formats import CRITEO_FORMATS
from fae.ingest.provisional_ids import Column
from fae.ingest.readers.chunk import Chunk, CriteoChunk
from fae.ingest.readers.dispatch import read_chunks
from fae.ingest.resume import Partial
from fae.ingest.scratch import Scratch
from fae.ingest.sources import SourceFile
from fae.ingest.splits import SplitFinder


def make_columns(config: LogConfig, scratch: Scratch, known: Sequence[KnownIds | None]) -> list[Column]:
    columns: list[Column] = []
    hexadecimal = config.format in CRITEO_FORMATS
    for column, ids in zip(config.columns(), known, strict=True):
        first_slot = columns[-1].slots.stop if columns else 0
        columns.append(Column(column, first_slot, scratch, hexadecimal=hexadecimal, known=ids))
    return columns


def first_pass(
    config: LogConfig, sources: Sequence[SourceFile], columns: list[Column], finder: SplitFinder, partial: Partial
) -> None:
    """Write ``ids.npy`` (provisional), ``dense.npy`` and ``labels.npy``, from the first unread file on."""
    num_slots, num_dense = columns[-1].slots.stop, len(config.dense_columns())
    with (
        task("ingest: reading the log", sum(source.num_bytes for source in sources), "bytes") as progress,
        partial.open_rows("ids", np.int32, num_slots) as ids,
        partial.open_rows("dense", np.float32, num_dense) as dense,
        partial.open_rows("labels", np.uint8, None) as labels,
    ):
        progress.advance(sum(source.num_bytes for source in sources[: partial.num_done]))
        for source in sources[partial.num_done :]:
            finder.start_file(source.role)
            with closing(read_chunks(config, source.path)) as chunks:
                for chunk in chunks:
                    finder.see(chunk)
                    if isinstance(chunk, Chunk):
                        _encode_chunk(config, chunk, columns, ids, dense, labels)
                    else:
                        _encode_parsed(chunk, columns, ids, dense, labels)
                    progress.advance(chunk.raw_bytes, f"{ids.num_rows:,} inputs")
            source.check_unchanged()
            partial.state["splits"] = finder.state
            partial.mark(columns, (ids, dense, labels), durable=source is not sources[-1])


def _encode_parsed(
    chunk: CriteoChunk, columns: list[Column], ids: RowWriter, dense: RowWriter, labels: RowWriter
) -> None:
    id_rows = np.empty((chunk.num_inputs, len(columns)), np.int32)

    def id_job(index: int) -> Callable[[], None]:
        return lambda: columns[index].encode_keys(chunk.keys[index], id_rows)

    run_jobs([*map(id_job, range(len(columns)))])
    ids.append(id_rows)
    dense.append(chunk.dense)
    labels.append(chunk.labels)


def _encode_chunk(
    config: LogConfig, chunk: Chunk, columns: list[Column], ids: RowWriter, dense: RowWriter, labels: RowWriter
) -> None:
    names = config.dense_columns()
    id_rows = np.empty((chunk.num_inputs, columns[-1].slots.stop), np.int32)
    dense_rows = np.empty((chunk.num_inputs, len(names)), np.float32)
    label_rows = np.empty(chunk.num_inputs, np.uint8)

    def label_job() -> None:
        label_rows[:] = to_labels(chunk.label, config.label_column(), chunk.locate)

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
