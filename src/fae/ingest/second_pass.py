"""The second pass of ingest: counts of the training split, final ids, vocabulary files, the log's summary.

Place in the flow: after every raw file was read, when the splits are known. Invariant: ``counts.npy`` is exactly the
number of times each id stands in the training rows of ``ids.npy``. Works through ``ids.npy`` in steps, in place. What
is kept in case of a kill, and when, `fae.ingest.resume` says.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fae.artifacts.columnar_log import FeatureSchema
from fae.artifacts.lineage import num_appended
from fae.core.errors import LogError
from fae.core.npy import RowFile, RowWriter, save_array
from fae.core.progress import task
from fae.core.threads import num_threads, run_jobs
from fae.ingest.config import LogConfig
from fae.ingest.final_ids import Numbering, count_ids
from fae.ingest.provisional_ids import Column
from fae.ingest.renumbering import SlotNumbering, renumber
from fae.ingest.resume import Partial
from fae.ingest.scratch import Scratch
from fae.ingest.splits import Splits
from fae.ingest.vocabulary import Int64

_ENCODED_SLACK, _ENCODED_IDS_PER_INPUT = 1_000_000, 100
"""An encoded id far above the number of inputs is a raw id that was called encoded: its table would fill the disk."""
_STEP_BYTES = 4 * 2**20
"""Of ``ids.npy`` worked on at a time: columns pass over the same rows one after the other, so these stay in cache."""
_VALUES_PER_ROW_GROUP = 1 << 18


def write_second_pass(
    config: LogConfig, columns: Sequence[Column], splits: Splits, partial: Partial, scratch: Scratch
) -> dict[str, Any]:
    """Turn the provisional ids of an unfinished log into final ones and write the rest of it; return its summary.

    Parameters
    ----------
    columns
        With their vocabularies filled while the log is in its phase ``reading``; later they may be empty.
    """
    if partial.phase == "reading":
        partial.state["summary"] = _number(config, columns, splits, partial, scratch)
        partial.save("numbering")
    if partial.phase == "numbering":
        numberings = [
            SlotNumbering(
                slots=column.slots,
                encoded=column.config.encoded,
                final=np.load(_final_file(partial, index), mmap_mode="r"),
            )
            for index, column in enumerate(columns)
        ]
        with RowFile(partial.folder / "ids.npy", writable=True) as ids:
            renumber(ids, numberings, partial.work / "undo", step_bytes=_STEP_BYTES)
        partial.finish()
    summary: dict[str, Any] = partial.state["summary"]
    return summary


def _final_file(partial: Partial, index: int) -> Path:
    return partial.work / f"final_{index}.npy"


def _number(
    config: LogConfig, columns: Sequence[Column], splits: Splits, partial: Partial, scratch: Scratch
) -> dict[str, Any]:
    """Count the training split and write ``counts.npy``, vocabularies and the final ids to be; return the summary."""
    folder = partial.folder
    labels = np.load(folder / "labels.npy", mmap_mode="r")
    start, stop = splits["train"]
    for column in columns:
        if column.vocabulary is not None:
            column.vocabulary.seal()
    with RowFile(folder / "ids.npy") as ids:
        counts = [scratch.array(_num_values(column, ids, stop) + 2, np.int64) for column in columns]
        for array in counts:
            array[:] = 0
        missing = _count(columns, ids, stop, counts)
    shutil.rmtree(folder / "vocabulary", ignore_errors=True)
    (folder / "vocabulary").mkdir()
    features: list[FeatureSchema] = []
    with RowWriter(folder / "counts.npy", np.int64, None) as counts_file:
        # A few columns at a time, one a thread: all at once, their counts would be in memory together.
        for first in range(0, len(columns), num_threads()):
            group = range(first, min(first + num_threads(), len(columns)))
            numberings: dict[int, Numbering] = {}

            def job(index: int, numberings: dict[int, Numbering] = numberings) -> Callable[[], None]:
                def work() -> None:
                    column = columns[index]
                    own = column.config.min_frequency
                    numbering = column.number(counts[index], config.min_frequency if own is None else own, scratch)
                    scratch.release(counts[index])
                    write_vocabulary(folder / "vocabulary" / f"{index}.parquet", column, numbering, scratch)
                    save_array(_final_file(partial, index), numbering.final)
                    scratch.release(numbering.final)
                    numberings[index] = numbering

                return work

            run_jobs([job(index) for index in group])
            for index in group:
                counts_file.append(numberings[index].counts)
                scratch.release(numberings[index].counts)
                features.append(_schema(columns[index], numberings[index]))
    return {
        "features": [dataclasses.asdict(feature) for feature in features],
        "dense": list(config.dense_columns()),
        "num_inputs": len(labels),
        "splits": splits,
        "label_rate": {name: _label_rate(labels[first:last]) for name, (first, last) in splits.items()},
        "missing_share": {
            column.config.name: number / (stop - start) for column, number in zip(columns, missing, strict=True)
        },
        **_appended(columns, features),
    }


def _appended(columns: Sequence[Column], features: Sequence[FeatureSchema]) -> dict[str, Any]:
    """Rows that the tables have more than those of the log that this one continues."""
    appended = {
        column.config.name: num_appended(column.known.schema, feature)
        for column, feature in zip(columns, features, strict=True)
        if column.known
    }
    return {"appended": appended} if appended else {}


def _schema(column: Column, numbering: Numbering) -> FeatureSchema:
    return FeatureSchema(
        name=column.config.name,
        num_embeddings=numbering.num_embeddings,
        length=column.config.max_length,
        pooling=column.config.pooling,
        unknown_id=numbering.unknown_id,
        encoded=column.config.encoded,
    )


def _blocks(ids: RowFile, stop: int) -> Iterator[npt.NDArray[np.int32]]:
    """The rows ``0 .. stop - 1``, a few megabytes at a time."""
    step = max(1, _STEP_BYTES // (4 * ids.shape[1]))
    for start in range(0, stop, step):
        yield ids.read(start, min(start + step, stop))


def _num_values(column: Column, ids: RowFile, num_training: int) -> int:
    """Provisional ids that can occur in the training split."""
    if column.vocabulary is not None:
        return column.vocabulary.size
    largest = max(int(rows[:, column.slots].max()) for rows in _blocks(ids, num_training))
    most = _ENCODED_SLACK + _ENCODED_IDS_PER_INPUT * num_training
    if largest > most:
        raise LogError(
            f"the encoded column {column.config.name!r} has the id {largest}, a table of that many rows for "
            f"{num_training} training inputs (expected ids up to {most}); leave `encoded` out"
        )
    # The table of a log that continues another is never smaller than that one's; its last row is the reserved id's.
    return max(max(largest, -1) + 1, column.known.size - 1 if column.known else 0)


def _count(columns: Sequence[Column], ids: RowFile, num_training: int, counts: list[Int64]) -> list[int]:
    """Fill `counts`; return the inputs without a value of each feature."""
    empty = [0] * len(columns)
    with task("ingest: counting", num_training) as progress:
        for rows in _blocks(ids, num_training):

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


def write_vocabulary(path: Path, column: Column, numbering: Numbering, scratch: Scratch) -> None:
    """Write ``value`` and ``count`` in id order.

    The value is text; empty for a missing one; null where no value has the id for its own: the reserved id, and numbers
    of an encoded column that share it.
    """
    size = numbering.num_embeddings
    provisional = scratch.array(size, np.int32)
    if column.vocabulary is not None:
        provisional[:] = -1
        for start in range(0, column.vocabulary.size, _VALUES_PER_ROW_GROUP):
            stop = min(start + _VALUES_PER_ROW_GROUP, column.vocabulary.size)
            provisional[numbering.final[start:stop]] = np.arange(start, stop, dtype=np.int32)
    else:
        for start in range(0, size - 1, _VALUES_PER_ROW_GROUP):
            part = provisional[start : min(start + _VALUES_PER_ROW_GROUP, size - 1)]
            shared = numbering.final[start : start + len(part)] == numbering.unknown_id
            part[:] = np.where(shared, np.int32(-1), np.arange(start, start + len(part), dtype=np.int32))
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
