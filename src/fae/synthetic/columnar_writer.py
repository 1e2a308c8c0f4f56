"""Write a synthetic click log directly as a columnar log, as if its text had gone through ingest.

Chunks are drawn by all threads and written at their place. Memory holds a few chunks and 8 bytes for every possible
value, whatever the number of inputs. The bytes depend on the configuration alone, not on threads. There is no
``vocabulary/``, because the values have no text.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import FORMAT_VERSION, KIND, FeatureSchema
from fae.artifacts.manifest import Plan, write_artifact
from fae.core.config import to_table
from fae.core.errors import RecipeError
from fae.core.npy import NpyRows, NpyWriter, save_array
from fae.core.progress import Task, task
from fae.core.threads import num_threads, run_ranges
from fae.synthetic.click_log import ClickTally, SyntheticChunk, SyntheticLog, SyntheticSummary
from fae.synthetic.columns import MAX_COUNT, MISSING_COUNT
from fae.synthetic.config import SyntheticConfig
from fae.synthetic.inputs import CHUNK_INPUTS, ColumnFacts

COMMAND = "fae synthetic --columnar"
Ids = Literal["popularity", "encoded"]

# Dense features are log(1 + max(count, 0)), rounded once: what ingest makes of the text. Missing counts are 0.
_DENSE = np.log1p(np.maximum(np.arange(MISSING_COUNT, MAX_COUNT + 1), 0)).astype(np.float32)


def write_columnar(
    config: SyntheticConfig,
    path: Path,
    *,
    ids: Ids = "popularity",
    test_fraction: float = 0.1,
    validation_fraction: float = 0.05,
) -> SyntheticSummary:
    """Write the columnar log to `path`, as a whole or not at all.

    Parameters
    ----------
    ids
        ``popularity``: numbered as by ingest, by accesses in the training split (ties in the generator's order); values
        that the training split never shows get the reserved id. ``encoded``: the generator's own numbers, nearly in
        that order, which saves the second pass.
    test_fraction, validation_fraction
        As in a recipe's ``[log]``.

    Raises
    ------
    RecipeError
        If nothing is left to train on.
    ArtifactError
        If `path` cannot be written.
    """
    total = config.num_inputs
    test_start = total - int(total * test_fraction + 0.5)
    train_stop = test_start - int(test_start * validation_fraction + 0.5)
    if train_stop <= 0:
        raise RecipeError(f"of {total} inputs none is left for training; give more inputs, or smaller fractions")
    splits = {"train": [0, train_stop], "validation": [train_stop, test_start], "test": [test_start, total]}
    parameters = {"synthetic": to_table(config), "ids": ids, "splits": splits}
    plan = Plan(kind=KIND, format_version=FORMAT_VERSION, parameters=parameters, parents={}, command=COMMAND)
    summary: dict[str, Any] = {}
    with write_artifact(path, plan, summary) as folder:
        writer = _Writer(SyntheticLog(config), folder, train_stop)
        tally = writer.first_pass()
        finals = [
            assign_final_ids(column, count, ids) for column, count in zip(writer.columns, writer.counts, strict=True)
        ]
        if ids == "popularity":
            replace_ids(folder / "ids.npy", finals)
        save_array(folder / "counts.npy", np.concatenate([final.counts for final in finals]))
        result = tally.summary(sum(file.stat().st_size for file in folder.iterdir()))
        labels = np.load(folder / "labels.npy", mmap_mode="r")
        summary.update(
            features=[final.schema.to_summary() for final in finals],
            dense=list(writer.log.dense_names),
            num_inputs=total,
            splits=splits,
            label_rate={
                name: float(labels[start:stop].mean(dtype=np.float64)) if stop > start else None
                for name, (start, stop) in splits.items()
            },
            synthetic=dataclasses.asdict(result),
        )
    return result


class _Writer:
    """The first pass: draw chunks, write them at their place, count the training split.

    In a column that can miss values, the missing value is id 0 and value v is id v + 1; elsewhere value v is id v.
    """

    def __init__(self, log: SyntheticLog, folder: Path, train_stop: int) -> None:
        self.log, self.columns, self._folder, self._train_stop = log, log.columns, folder, train_stop
        self.counts = [np.zeros(num_possible_ids(column) + 1, np.uint32) for column in self.columns]
        self._locks = [threading.Lock() for _ in self.columns]
        self._shifts = np.array([[int(c.can_miss)] for c in self.columns for _ in range(c.length)], np.int32)

    def first_pass(self) -> ClickTally:
        total, slots = self.log.config.num_inputs, len(self._shifts)
        num_chunks = -(-total // CHUNK_INPUTS)
        tallies = [ClickTally() for _ in range(min(num_threads(), num_chunks))]
        with (
            task("synthetic log", total) as progress,
            NpyWriter(self._folder / "ids.npy", np.int32, (slots,)) as ids,
            NpyWriter(self._folder / "dense.npy", np.float32, (len(self.log.dense_names),)) as dense,
            NpyWriter(self._folder / "labels.npy", np.uint8) as labels,
        ):
            files = (ids, dense, labels)

            def work(start: int, stop: int) -> None:
                # Threads take chunks in turns, so that the files grow from their beginning to their end.
                for part in range(start, stop):
                    for index in range(part, num_chunks, len(tallies)):
                        self._write(index, files, tallies[part], progress)

            run_ranges(work, len(tallies))
        for other in tallies[1:]:
            tallies[0].merge(other)
        return tallies[0]

    def _write(self, index: int, files: tuple[NpyWriter, ...], tally: ClickTally, progress: Task) -> None:
        start = index * CHUNK_INPUTS
        size = min(CHUNK_INPUTS, self.log.config.num_inputs - start)
        chunk: SyntheticChunk = self.log.chunk(index)
        by_slot = chunk.ids.T[:, :size] + self._shifts
        dense = np.empty((size, chunk.counts.shape[1]), np.float32)
        for column, counts in enumerate(chunk.counts.T):
            dense[:, column] = _DENSE.take(counts[:size] - MISSING_COUNT)
        arrays: tuple[npt.NDArray[Any], ...] = (by_slot.T, dense, chunk.labels[:size])
        for file, rows in zip(files, arrays, strict=True):
            file.write(start, rows)
        tally.add(chunk.labels[:size], chunk.probabilities[:size])
        training = min(max(self._train_stop - start, 0), size)
        slot = 0
        for column, facts in enumerate(self.columns):
            values = by_slot[slot : slot + facts.length, :training].reshape(-1)
            slot += facts.length
            with self._locks[column]:
                add_id_counts(values, self.counts[column])
        progress.advance(size)


def num_possible_ids(column: ColumnFacts) -> int:
    """Number of ids that can occur in a column, including the missing value."""
    return column.num_values + column.can_miss


def add_id_counts(ids: npt.NDArray[np.int32], counts: npt.NDArray[np.uint32]) -> None:
    """Add to `counts` how often each id occurs; -1 (no lookup) is counted in its last entry."""
    # A Python 1 would be converted for every element, which is twelve times slower.
    np.add.at(counts, ids, np.uint32(1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinalIds:
    """Final ids of one column.

    Attributes
    ----------
    counts
        int64 ``[num_embeddings]``: accesses in the training split.
    places
        int32: final id + 1 by id of the first pass; 0 if the training split never shows it.
    """

    schema: FeatureSchema
    counts: npt.NDArray[np.int64]
    places: npt.NDArray[np.int32]


def assign_final_ids(column: ColumnFacts, counts: npt.NDArray[np.uint32], ids: Ids) -> FinalIds:
    """Number the ids that the training split shows by their accesses; all others share the last id."""
    counts = counts[:-1]
    # Zero means the reserved id, so that memory pages of values that never occur are never touched.
    places = np.zeros(len(counts), np.int32)
    if ids == "popularity":
        seen = np.flatnonzero(counts)
        seen = seen[np.argsort(-counts[seen].astype(np.int64), kind="stable")]
        places[seen] = np.arange(1, len(seen) + 1, dtype=np.int32)
        counts = counts[seen]
    schema = FeatureSchema(
        name=column.name, num_embeddings=len(counts) + 1, length=column.length, unknown_id=len(counts),
        pooling="sum" if column.length == 1 else "none", encoded=ids == "encoded",
    )  # fmt: skip
    return FinalIds(schema=schema, counts=np.append(counts, np.uint32(0)).astype(np.int64), places=places)


def replace_ids(path: Path, finals: Sequence[FinalIds]) -> None:
    """Replace the ids of the first pass in the file by the final ones, chunk by chunk, in place."""
    of_slot = [final for final in finals for _ in range(final.schema.length)]
    with NpyRows(path, writable=True) as file, task("synthetic log: numbering by popularity", len(file)) as progress:

        def work(start: int, stop: int) -> None:
            for index in range(start, stop):
                rows = file.read(index * CHUNK_INPUTS, (index + 1) * CHUNK_INPUTS)
                for slot, final in enumerate(of_slot):
                    ids = np.ascontiguousarray(rows[:, slot])
                    places = final.places.take(ids, mode="clip")
                    places -= 1
                    places[places < 0] = final.schema.unknown_id
                    if final.schema.length > 1:
                        places[ids < 0] = -1
                    rows[:, slot] = places
                file.write(index * CHUNK_INPUTS, rows)
                progress.advance(len(rows))

        run_ranges(work, -(-len(file) // CHUNK_INPUTS))
