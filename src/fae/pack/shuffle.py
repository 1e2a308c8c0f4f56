"""The random order of the training inputs, for logs of any size: buckets, and a shuffle within each.

Every input draws a bucket from its own position and the seed; then each bucket is shuffled by itself. The order is that
of the buckets. It depends on the log's shape and the seed alone, never on how much memory there is: a log that fits is
ordered where it is; one that does not is first sorted by bucket into a spill file, chunk by chunk, written and read in
long runs.

Bytes of an input in memory: 8 for its position, 8 for the order, 1 for hotness, for the inputs that are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.row_layout import RowLayout
from fae.core.progress import Task
from fae.core.seeds import derive_seed, generator
from fae.core.threads import run_ranges
from fae.pack.classify import LookupCounts, classify
from fae.pack.log_reader import LogInputs, input_bytes, log_inputs, take_rows

BUCKET_BYTES = 32 * 2**20
"""Bytes of the log that a bucket should have. It decides the order, so it is part of the format version."""


class BucketOrder:
    """Which bucket an input is in, and the order within a bucket.

    Parameters
    ----------
    num_inputs
        Inputs of the training split.
    bytes_per_input
        Bytes of an input in the columnar log.
    """

    def __init__(self, num_inputs: int, bytes_per_input: int, seed: int) -> None:
        self.num_buckets = max(1, -(-num_inputs * bytes_per_input // BUCKET_BYTES))
        self._seed = seed
        self._key = np.uint64(derive_seed(seed, "pack", "bucket"))

    def buckets(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """int64 ``[stop - start]``: bucket of each input, by its position in the split."""
        # The finalizer of SplitMix64: a counter in, 64 well-mixed bits out. Array arithmetic wraps silently.
        bits = np.arange(start, stop, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + self._key
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits = (bits ^ (bits >> np.uint64(31))) >> np.uint64(32)
        return ((bits * np.uint64(self.num_buckets)) >> np.uint64(32)).astype(np.int64)

    def sort(self, start: int, stop: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Positions ``[0, stop - start)`` by bucket, and where each bucket begins, int64 ``[num_buckets + 1]``."""
        buckets = self.buckets(start, stop)
        begins = np.concatenate([[0], np.cumsum(np.bincount(buckets, minlength=self.num_buckets))]).astype(np.int64)
        # Sorting 16-bit keys stably is a radix sort.
        keys = buckets.astype(np.uint16) if self.num_buckets <= 2**16 else buckets
        return np.argsort(keys, kind="stable"), begins

    def shuffle(self, positions: npt.NDArray[np.int64], bucket: int) -> None:
        """Shuffle the positions of one bucket's inputs, in place; they come in log order."""
        generator(self._seed, "pack", "shuffle", bucket).shuffle(positions)


class ShuffledInputs:
    """The training split in random order, in as many parts as memory requires.

    Parameters
    ----------
    folder
        Where a spill may be written; it is removed when the last part has been read.
    memory_bytes
        Bytes of inputs that may be held at once; the log itself where it is not larger.

    Attributes
    ----------
    num_inputs, num_hot_inputs
        Inputs and hot inputs of the split. These and the following are known before the first part.
    counts
        Lookups and hot lookups of the split.
    num_clicks, hot_clicks
        Labels of 1 among all inputs, and among the hot ones.
    """

    def __init__(
        self, log: ColumnarLog, layout: RowLayout, seed: int, memory_bytes: int, folder: Path, progress: Task
    ) -> None:
        self._log, self._layout, self._folder, self._progress = log, layout, folder, progress
        self._start, stop = log.split("train")
        self.num_inputs = stop - self._start
        self._bytes = input_bytes(layout.num_slots, len(log.dense_names))
        self._order = BucketOrder(self.num_inputs, self._bytes, seed)
        self.num_hot_inputs = self.num_clicks = self.hot_clicks = 0
        self.counts = LookupCounts(0, 0)
        self._part_inputs = max(1, memory_bytes // (2 * self._bytes))
        self._bucket_inputs = max(1, BUCKET_BYTES // self._bytes)
        self._all: LogInputs | None = None
        self._begins: list[npt.NDArray[np.int64]] = []  # per chunk of the spill, where each bucket begins
        if self.num_inputs * self._bytes <= memory_bytes:
            self._all = self._classified(0, self.num_inputs)
        else:
            self._write_spill()

    def _classified(self, start: int, stop: int) -> LogInputs:
        inputs = log_inputs(self._log, self._start + start, self._start + stop)
        hot, counts = classify(inputs.ids, self._layout)
        inputs.hot[:] = hot
        self.num_hot_inputs += int(hot.sum())
        self.num_clicks += int(inputs.labels.sum(dtype=np.int64))
        self.hot_clicks += int(inputs.labels[hot].sum(dtype=np.int64))
        self.counts = LookupCounts(self.counts.lookups + counts.lookups, self.counts.hot_lookups + counts.hot_lookups)
        self._progress.advance(stop - start, "classified")
        return inputs

    def parts(self) -> Iterator[tuple[LogInputs, npt.NDArray[np.int64], bool]]:
        """Yield inputs, their order (int64 positions within the part) and whether the part is the last."""
        if self._all is not None:
            positions, begins = self._order.sort(0, self.num_inputs)
            self._shuffle(positions, begins, 0)
            yield self._all, positions, True
            return
        sizes = np.sum([np.diff(begins) for begins in self._begins], axis=0)
        first = 0
        while first < len(sizes):
            last = first + 1
            while last < len(sizes) and sizes[first : last + 1].sum() <= self._part_inputs:
                last += 1
            yield *self._read_spill(first, last), last == len(sizes)
            first = last
        self._remove_spill()

    def _shuffle(self, positions: npt.NDArray[np.int64], begins: npt.NDArray[np.int64], first_bucket: int) -> None:
        def work(start: int, stop: int) -> None:
            for bucket in range(start, stop):
                self._order.shuffle(positions[begins[bucket] : begins[bucket + 1]], first_bucket + bucket)

        run_ranges(work, len(begins) - 1)

    def _columns(self) -> list[tuple[str, Any, tuple[int, ...]]]:
        num_slots, num_dense = self._layout.num_slots, len(self._log.dense_names)
        return [
            ("ids", np.int32, (num_slots,)), ("dense", np.float32, (num_dense,)), ("labels", np.uint8, ()),
            ("index", np.int64, ()), ("hot", np.bool_, ()),
            *([("weights", np.float32, ())] if self._log.weight is not None else []),
        ]  # fmt: skip

    def _write_spill(self) -> None:
        for chunk, start in enumerate(range(0, self.num_inputs, self._part_inputs)):
            stop = min(start + self._part_inputs, self.num_inputs)
            inputs = self._classified(start, stop)
            positions, begins = self._order.sort(start, stop)
            self._begins.append(begins)
            for name, _, _ in self._columns():
                column = getattr(inputs, name)
                sorted_piece = np.zeros((min(self._bucket_inputs, len(column)), *column.shape[1:]), column.dtype)
                with (self._folder / f"spill_{name}").open("ab" if chunk else "wb") as file:
                    # As many inputs as a bucket has at a time: the sorted copy stays small.
                    for at in range(0, len(positions), self._bucket_inputs):
                        piece = positions[at : at + self._bucket_inputs]
                        take_rows(column, piece, sorted_piece)
                        file.write(sorted_piece[: len(piece)].data)

    def _read_spill(self, first: int, last: int) -> tuple[LogInputs, npt.NDArray[np.int64]]:
        """Load the buckets ``[first, last)``, one run of every chunk, and their order."""
        starts = np.concatenate([[0], np.cumsum([begins[-1] for begins in self._begins])])
        runs = [
            (int(start + begins[first]), int(begins[last] - begins[first]))
            for start, begins in zip(starts[:-1], self._begins, strict=True)
        ]
        total = sum(count for _, count in runs)
        loaded: dict[str, Any] = {}
        for name, kind, shape in self._columns():
            column = np.zeros((total, *shape), kind)
            width = column.itemsize * int(np.prod(shape, dtype=np.int64))
            with (self._folder / f"spill_{name}").open("rb") as file:
                at = 0
                for start, count in runs:
                    file.seek(start * width)
                    if column[at : at + count].nbytes:
                        file.readinto(column[at : at + count].reshape(-1).view(np.uint8).data)
                    at += count
            loaded[name] = column
        # Within each run the inputs are in order of buckets. A stable sort over the runs puts them bucket by bucket,
        # and in log order within a bucket: exactly what sorting the whole split gives.
        buckets = np.concatenate(
            [np.repeat(np.arange(first, last), np.diff(begins[first : last + 1])) for begins in self._begins]
        )
        positions = np.argsort(buckets, kind="stable")
        begins = np.concatenate([[0], np.cumsum(np.bincount(buckets - first, minlength=last - first))])
        self._shuffle(positions, begins, first)
        return LogInputs(**loaded), positions

    def _remove_spill(self) -> None:
        for name, _, _ in self._columns():
            (self._folder / f"spill_{name}").unlink()
