"""The random order of the training inputs, for logs of any size: buckets, and a shuffle within each.

Every input draws a bucket from its own position and the seed; then each bucket is shuffled by itself. The order is that
of the buckets. It depends on the log's shape and the seed alone, never on how much memory or how many threads there
are: a log that fits is ordered where it is; one that does not is first sorted by bucket into a spill file, chunk by
chunk, written and read in long runs.

Bytes of an input in memory, for the inputs that are loaded: 8 for the order, 8 for the order within its kind where
there are two, 1 for hotness.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.row_layout import RowLayout
from fae.core.compiled import Int64
from fae.core.progress import Task
from fae.core.seeds import derive_seed, generator
from fae.core.threads import num_threads, run_jobs, run_ranges
from fae.pack.classify import InputCounts, classify
from fae.pack.log_reader import LogInputs, input_bytes, log_inputs
from fae.pack.order_kernels import count_buckets, count_hot, place_by_bucket, split_kinds
from fae.pack.spill import Spill

BUCKET_BYTES = 32 * 2**20
"""Bytes of the log that a bucket should have. It decides the order, so it is part of the format version."""

SORT_INPUTS = 16384
"""Fewest inputs that are worth a thread of their own to sort."""


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

    def sort(self, start: int, stop: int) -> tuple[Int64, Int64]:
        """Positions ``[0, stop - start)`` by bucket, and where each bucket begins, int64 ``[num_buckets + 1]``.

        Inputs of a bucket stay in log order. Each thread counts and places a range of the inputs, behind those of the
        ranges before it.
        """
        count = stop - start
        num_ranges = max(1, min(num_threads(), count // SORT_INPUTS))
        bounds = [start + count * number // num_ranges for number in range(num_ranges + 1)]
        positions, counts = np.empty(count, np.int64), np.zeros((num_ranges, self.num_buckets), np.int64)

        def draw(first_range: int, last_range: int) -> None:
            for number in range(first_range, last_range):
                count_buckets(bounds[number], bounds[number + 1], self._key, counts[number])

        run_ranges(draw, num_ranges)
        begins = np.concatenate([[0], np.cumsum(counts.sum(axis=0))]).astype(np.int64)
        places = begins[:-1] + np.cumsum(counts, axis=0) - counts

        def place(first_range: int, last_range: int) -> None:
            for number in range(first_range, last_range):
                place_by_bucket(bounds[number], bounds[number + 1], start, self._key, places[number], positions)

        run_ranges(place, num_ranges)
        return positions, begins

    def shuffle(self, positions: Int64, bucket: int) -> None:
        """Shuffle the positions of one bucket's inputs, in place; they come in log order."""
        generator(self._seed, "pack", "shuffle", bucket).shuffle(positions)


class TrainingPart(NamedTuple):
    """Some of the training inputs.

    Attributes
    ----------
    inputs
        The inputs.
    hot, cold
        int64: positions of the hot inputs, and of the others, each in the random order.
    is_last
        Whether no other part follows.
    """

    inputs: LogInputs
    hot: Int64
    cold: Int64
    is_last: bool


class ShuffledInputs:
    """The training split in random order, in as many parts as memory requires.

    Parameters
    ----------
    mixed
        Whether all inputs count as cold when parts are handed out.
    folder
        Where a spill may be written; it is removed when the last part has been read.
    memory_bytes
        Bytes of inputs that may be held at once; the log itself where it is not larger.

    Attributes
    ----------
    num_inputs
        Inputs of the split. This and the following are known before the first part.
    counts
        What was counted of them.
    """

    def __init__(
        self, log: ColumnarLog, layout: RowLayout, seed: int, memory_bytes: int, folder: Path, progress: Task,
        *, mixed: bool,
    ) -> None:  # fmt: skip
        self._log, self._layout, self._progress, self._mixed = log, layout, progress, mixed
        self._start, stop = log.split("train")
        self.num_inputs = stop - self._start
        input_size = input_bytes(layout.num_slots, len(log.dense_names))
        self._order = BucketOrder(self.num_inputs, input_size, seed)
        self.counts = InputCounts(0, 0, 0, 0, 0)
        self._part_inputs = max(1, memory_bytes // (2 * input_size))
        self._carried: tuple[LogInputs, int] | None = None
        self._all: tuple[LogInputs, npt.NDArray[np.bool_]] | None = None
        self._spill = Spill(folder)
        if self.num_inputs * input_size <= memory_bytes:
            self._all = self._classified(0, self.num_inputs)
        else:
            try:
                for start in range(0, self.num_inputs, self._part_inputs):
                    stop = min(start + self._part_inputs, self.num_inputs)
                    self._spill.append(*self._classified(start, stop), *self._order.sort(start, stop))
            except BaseException:
                self._spill.abandon()
                raise
            self._spill.close()

    def _classified(self, start: int, stop: int) -> tuple[LogInputs, npt.NDArray[np.bool_]]:
        inputs = log_inputs(self._log, self._start + start, self._start + stop)
        hot, counts = classify(inputs.ids, inputs.labels, self._layout)
        self.counts = InputCounts(*(sum(pair) for pair in zip(self.counts, counts, strict=True)))
        self._progress.advance(stop - start, "classified")
        return inputs, hot

    def carry(self, inputs: LogInputs, num_hot: int) -> None:
        """Put inputs before those of the next part: the first `num_hot` before its hot ones, the others before its cold
        ones."""
        self._carried = (inputs, num_hot)

    def parts(self) -> Iterator[TrainingPart]:
        """Load the parts, one after the other."""
        if self._all is not None:
            inputs, hot = self._all
            positions, begins = self._order.sort(0, self.num_inputs)
            run_jobs([
                partial(self._order.shuffle, positions[begins[bucket] : begins[bucket + 1]], bucket)
                for bucket in range(len(begins) - 1)
            ])  # fmt: skip
            yield TrainingPart(inputs, *self._by_kind(positions, begins, hot), True)
            return
        sizes = self._spill.sizes
        first = 0
        while first < len(sizes):
            last = first + 1
            while last < len(sizes) and sizes[first : last + 1].sum() <= self._part_inputs:
                last += 1
            yield self._read_part(first, last, last == len(sizes))
            first = last
        self._spill.remove()

    def _read_part(self, first: int, last: int, is_last: bool) -> TrainingPart:
        carried, num_hot = self._carried or (None, 0)
        room = len(carried) if carried is not None else 0
        inputs, hot, places, lengths = self._spill.read(first, last, room)
        if carried is not None:
            for name, column in vars(carried).items():
                if isinstance(column, np.ndarray):
                    getattr(inputs, name)[:room] = column
        begins = np.concatenate([[0], np.cumsum(lengths.sum(axis=1))]).astype(np.int64)
        positions = np.empty(begins[-1], np.int64)

        def order(bucket: int) -> None:
            # Chunk behind chunk is log order: what the bucket has where the whole split is sorted at once.
            own = positions[begins[bucket] : begins[bucket + 1]]
            before = np.cumsum(lengths[bucket]) - lengths[bucket]
            own[...] = np.repeat(places[bucket] - before, lengths[bucket]) + np.arange(len(own))
            self._order.shuffle(own, first + bucket)

        run_jobs([partial(order, bucket) for bucket in range(len(begins) - 1)])
        of_hot, of_cold = self._by_kind(positions, begins, hot)
        kept = np.arange(room)
        return TrainingPart(
            inputs, np.concatenate([kept[:num_hot], of_hot]), np.concatenate([kept[num_hot:], of_cold]), is_last
        )

    def _by_kind(self, positions: Int64, begins: Int64, hot: npt.NDArray[np.bool_]) -> tuple[Int64, Int64]:
        """Positions of hot and of cold inputs, each in the order of `positions`; bucket by bucket on all threads."""
        if self._mixed:
            return positions[:0], positions
        own = [positions[begins[bucket] : begins[bucket + 1]] for bucket in range(len(begins) - 1)]
        num_hot = np.zeros(len(begins), np.int64)

        def count(bucket: int) -> None:
            num_hot[bucket + 1] = count_hot(own[bucket], hot)

        run_jobs([partial(count, bucket) for bucket in range(len(own))])
        first_hot = np.cumsum(num_hot)
        first_cold = begins - first_hot
        of_hot, of_cold = np.empty(first_hot[-1], np.int64), np.empty(first_cold[-1], np.int64)

        def split(bucket: int) -> None:
            split_kinds(own[bucket], hot, of_hot[first_hot[bucket] :], of_cold[first_cold[bucket] :])

        run_jobs([partial(split, bucket) for bucket in range(len(own))])
        return of_hot, of_cold
