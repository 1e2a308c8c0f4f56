"""The second pass of ingest: counts of the training split, final ids, vocabulary files, the log's summary.

Place in the flow: after every raw file was read, when the splits are known. Invariant: ``counts.npy`` is exactly the
number of times each id stands in the training rows of ``ids.npy``. Works through ``ids.npy`` in steps, in place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fae.core.errors import LogError
from fae.core.progress import task
from fae.data.columnar import FeatureSchema
from fae.data.columns import Column
from fae.data.config import LogConfig
from fae.data.jobs import run_jobs
from fae.data.npy import RowWriter, write_rows
from fae.data.ranking import Numbering, count_ids
from fae.data.scratch import Scratch
from fae.data.vocabulary import Int64

_ENCODED_SLACK, _ENCODED_IDS_PER_INPUT = 1_000_000, 100
"""An encoded id far above the number of inputs is a raw id that was called encoded: its table would fill the disk."""
_STEP_BYTES = 4 * 2**20
"""Of ``ids.npy`` worked on at a time: columns pass over the same rows one after the other, so these stay in cache."""
_VALUES_PER_ROW_GROUP = 1 << 18

Splits = dict[str, list[int]]


def finish_log(
    config: LogConfig, columns: Sequence[Column], splits: Splits, folder: Path, scratch: Scratch
) -> dict[str, Any]:
    """Turn the provisional ids in `folder` into final ones and write the rest of the log; return its summary."""
    ids = np.load(folder / "ids.npy", mmap_mode="r")
    labels = np.load(folder / "labels.npy", mmap_mode="r")
    start, stop = splits["train"]
    for column in columns:
        if column.vocabulary is not None:
            column.vocabulary.seal()
    counts = [scratch.array(_num_values(column, ids[start:stop]) + 2, np.int64) for column in columns]
    for array in counts:
        array[:] = 0
    missing = _count(columns, ids[start:stop], counts)
    features, numberings = [], []
    (folder / "vocabulary").mkdir()
    with RowWriter(folder / "counts.npy", np.int64, None) as counts_file:
        for index, column in enumerate(columns):
            minimum = config.min_frequency if column.config.min_frequency is None else column.config.min_frequency
            numbering = column.number(counts[index], minimum, scratch)
            scratch.release(counts[index])
            counts_file.append(numbering.counts)
            write_vocabulary(folder / "vocabulary" / f"{index}.parquet", column, numbering, scratch)
            scratch.release(numbering.counts)
            numberings.append(numbering)
            features.append(_schema(column, numbering))
    _renumber(columns, ids, numberings, folder / "ids.npy")
    return {
        "features": [dataclasses.asdict(feature) for feature in features],
        "dense": list(config.dense_columns()),
        "num_inputs": len(ids),
        "splits": splits,
        "label_rate": {name: _label_rate(labels[first:last]) for name, (first, last) in splits.items()},
        "missing_share": {
            column.config.name: number / (stop - start) for column, number in zip(columns, missing, strict=True)
        },
    }


def _schema(column: Column, numbering: Numbering) -> FeatureSchema:
    return FeatureSchema(
        name=column.config.name,
        num_embeddings=numbering.num_embeddings,
        length=column.config.max_length,
        pooling=column.config.pooling,
        unknown_id=numbering.unknown_id,
        encoded=column.config.encoded,
    )


def _steps(ids: npt.NDArray[np.int32]) -> list[slice]:
    rows = max(1, _STEP_BYTES // (4 * ids.shape[1]))
    return [slice(start, start + rows) for start in range(0, len(ids), rows)]


def _num_values(column: Column, training: npt.NDArray[np.int32]) -> int:
    """Provisional ids that can occur in the training split."""
    if column.vocabulary is not None:
        return column.vocabulary.size
    largest = max(int(training[step, column.slots].max()) for step in _steps(training))
    most = _ENCODED_SLACK + _ENCODED_IDS_PER_INPUT * len(training)
    if largest > most:
        raise LogError(
            f"the encoded column {column.config.name!r} has the id {largest}, a table of that many rows for "
            f"{len(training)} training inputs (expected ids up to {most}); leave `encoded` out"
        )
    return max(largest, -1) + 1


def _count(columns: Sequence[Column], training: npt.NDArray[np.int32], counts: list[Int64]) -> list[int]:
    """Fill `counts`; return the inputs without a value of each feature."""
    empty = [0] * len(columns)
    with task("ingest: counting", len(training)) as progress:
        for step in _steps(training):
            rows = np.ascontiguousarray(training[step])

            def job(index: int, rows: npt.NDArray[np.int32] = rows) -> Callable[[], None]:
                def work() -> None:
                    column = columns[index]
                    empty[index] += int(count_ids(rows, column.first_slot, column.config.max_length, counts[index]))

                return work

            run_jobs([job(index) for index in range(len(columns))])
            progress.advance(len(rows))
    for index, column in enumerate(columns):
        if column.config.max_length == 1 and column.missing_id != -1:
            empty[index] = int(counts[index][column.missing_id])
    return empty


def _renumber(
    columns: Sequence[Column], ids: npt.NDArray[np.int32], numberings: Sequence[Numbering], path: Path
) -> None:
    with task("ingest: numbering by popularity", len(ids)) as progress, path.open("r+b") as file:
        for step in _steps(ids):
            rows = np.array(ids[step])
            for column, numbering in zip(columns, numberings, strict=True):
                column.renumber(rows, numbering)
            write_rows(file.fileno(), step.start, rows)
            progress.advance(len(rows))


def write_vocabulary(path: Path, column: Column, numbering: Numbering, scratch: Scratch) -> None:
    """Write ``value`` (text; null for the reserved id, empty for a missing value) and ``count``, in id order."""
    size = numbering.num_embeddings
    provisional = scratch.array(size, np.int32)
    if column.vocabulary is not None:
        provisional[:] = -1
        for start in range(0, column.vocabulary.size, _VALUES_PER_ROW_GROUP):
            stop = min(start + _VALUES_PER_ROW_GROUP, column.vocabulary.size)
            provisional[numbering.final[start:stop]] = np.arange(start, stop, dtype=np.int32)
    else:
        provisional[:] = np.arange(size, dtype=np.int32)
    provisional[numbering.unknown_id] = -1
    schema = pa.schema([("value", pa.string()), ("count", pa.int64())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, size, _VALUES_PER_ROW_GROUP):
            ids = provisional[start : start + _VALUES_PER_ROW_GROUP]
            if column.vocabulary is not None:
                values = column.vocabulary.values(ids)
            else:
                values = pa.array(ids, mask=ids < 0).cast(pa.string())
            counts = pa.array(numbering.counts[start : start + _VALUES_PER_ROW_GROUP])
            writer.write_table(pa.table([values, counts], schema=schema))
    scratch.release(provisional)


def _label_rate(labels: npt.NDArray[np.uint8]) -> float | None:
    return float(labels.sum(dtype=np.int64)) / len(labels) if len(labels) else None
