"""A made-up click log straight into the columnar form, as if its text had gone through ingest.

Place in the flow: writes the artifact ``log`` (`fae.artifacts.columnar_log`), so profile and the stages behind it go on from it.
Chunks are drawn by all threads and written where they belong; memory holds a few chunks and 8 bytes for every value
that can occur, whatever the number of inputs is.

Invariants: the bytes depend on the configuration alone, not on threads; ``counts.npy`` is exactly the number of times
each id stands in the training rows. There is no ``vocabulary/``: the values have no text. It needs numpy alone.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import FORMAT_VERSION, KIND, FeatureSchema
from fae.artifacts.manifest import Plan, write_artifact
from fae.core.config import to_table
from fae.core.errors import RecipeError
from fae.core.npy import npy_header, save_array, write_rows_at
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
    """Write the columnar log to `path`, whole or not at all.

    Parameters
    ----------
    ids
        ``popularity``: as ingest numbers them, by accesses in the training split (equals in the order of the
        generator), values that the training split never shows as the reserved id. ``encoded``: the generator's own
        numbers, nearly in that order, without the second pass that renumbers.
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
            number_values(column, count, ids) for column, count in zip(writer.columns, writer.counts, strict=True)
        ]
        if ids == "popularity":
            renumber(folder / "ids.npy", finals)
        save_array(folder / "counts.npy", np.concatenate([final.counts for final in finals]))
        result = tally.summary(sum(file.stat().st_size for file in folder.iterdir()))
        labels = np.load(folder / "labels.npy", mmap_mode="r")
        summary.update(
            features=[dataclasses.asdict(final.schema) for final in finals],
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
    """The first pass: draw, write at its place, count the training split.

    Values become ids by a shift of one where a missing value is possible: it is id 0.
    """

    def __init__(self, log: SyntheticLog, folder: Path, train_stop: int) -> None:
        self.log, self.columns, self._folder, self._train_stop = log, log.columns, folder, train_stop
        self.counts = [np.zeros(num_ids(column) + 1, np.uint32) for column in self.columns]
        self._locks = [threading.Lock() for _ in self.columns]
        self._shifts = np.array([[int(c.can_miss)] for c in self.columns for _ in range(c.length)], np.int32)

    def first_pass(self) -> ClickTally:
        total, slots = self.log.config.num_inputs, len(self._shifts)
        num_chunks = -(-total // CHUNK_INPUTS)
        tallies = [ClickTally() for _ in range(min(num_threads(), num_chunks))]
        with (
            task("synthetic log", total) as progress,
            _create(self._folder / "ids.npy", np.int32, (total, slots)) as ids,
            _create(self._folder / "dense.npy", np.float32, (total, len(self.log.dense_names))) as dense,
            _create(self._folder / "labels.npy", np.uint8, (total,)) as labels,
        ):
            files = (ids, dense, labels)

            def work(start: int, stop: int) -> None:
                # Neighbouring chunks by turns, so that the files grow from their beginning to their end.
                for part in range(start, stop):
                    for index in range(part, num_chunks, len(tallies)):
                        self._write(index, files, tallies[part], progress)

            run_ranges(work, len(tallies))
        for other in tallies[1:]:
            tallies[0].merge(other)
        return tallies[0]

    def _write(self, index: int, files: tuple[BinaryIO, ...], tally: ClickTally, progress: Task) -> None:
        start = index * CHUNK_INPUTS
        size = min(CHUNK_INPUTS, self.log.config.num_inputs - start)
        chunk: SyntheticChunk = self.log.chunk(index)
        by_slot = chunk.ids.T[:, :size] + self._shifts
        dense = np.empty((size, chunk.counts.shape[1]), np.float32)
        for column, counts in enumerate(chunk.counts.T):
            dense[:, column] = _DENSE.take(counts[:size] - MISSING_COUNT)
        arrays: tuple[npt.NDArray[Any], ...] = (by_slot.T, dense, chunk.labels[:size])
        for file, rows in zip(files, arrays, strict=True):
            write_rows_at(file.fileno(), start, rows)
        tally.add(chunk.labels[:size], chunk.probabilities[:size])
        training = min(max(self._train_stop - start, 0), size)
        slot = 0
        for column, facts in enumerate(self.columns):
            values = by_slot[slot : slot + facts.length, :training].reshape(-1)
            slot += facts.length
            with self._locks[column]:
                add_counts(values, self.counts[column])
        progress.advance(size)


def num_ids(column: ColumnFacts) -> int:
    """Ids that can occur in a column, the missing value included."""
    return column.num_values + column.can_miss


def add_counts(ids: npt.NDArray[np.int32], counts: npt.NDArray[np.uint32]) -> None:
    """Add how often each id occurs; -1 (no lookup) counts at the end of `counts`."""
    # A Python 1 would be cast anew for every element: twelve times slower.
    np.add.at(counts, ids, np.uint32(1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Final:
    """Final ids of one column: `places` int32 by id of the first pass, one too large, 0 where never seen; counts."""

    schema: FeatureSchema
    counts: npt.NDArray[np.int64]
    places: npt.NDArray[np.int32]


def number_values(column: ColumnFacts, counts: npt.NDArray[np.uint32], ids: Ids) -> Final:
    """Number the ids that the training split shows by their accesses; the others share the reserved id behind them."""
    counts = counts[:-1]
    # Zeros, not the reserved id: pages of values that never occur then cost nothing.
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
    return Final(schema=schema, counts=np.append(counts, np.uint32(0)).astype(np.int64), places=places)


def renumber(path: Path, finals: Sequence[Final]) -> None:
    """Replace the ids in the file by the final ones, chunk by chunk, in place."""
    old = np.load(path, mmap_mode="r")
    of_slot = [final for final in finals for _ in range(final.schema.length)]
    with task("synthetic log: numbering by popularity", len(old)) as progress, path.open("r+b") as file:

        def work(start: int, stop: int) -> None:
            for index in range(start, stop):
                rows = np.array(old[index * CHUNK_INPUTS : (index + 1) * CHUNK_INPUTS])
                for slot, final in enumerate(of_slot):
                    ids = np.ascontiguousarray(rows[:, slot])
                    places = final.places.take(ids, mode="clip")
                    places -= 1
                    places[places < 0] = final.schema.unknown_id
                    if final.schema.length > 1:
                        places[ids < 0] = -1
                    rows[:, slot] = places
                write_rows_at(file.fileno(), index * CHUNK_INPUTS, rows)
                progress.advance(len(rows))

        run_ranges(work, -(-len(old) // CHUNK_INPUTS))


def _create(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> BinaryIO:
    file = path.open("wb")
    file.write(npy_header(dtype, shape))
    file.flush()
    return file
