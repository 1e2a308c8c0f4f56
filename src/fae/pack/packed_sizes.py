"""What pack would write, without writing it: batches, the largest of them, bytes of every file."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.batch_arrays import BatchArrays
from fae.artifacts.columnar_log import SPLITS, ColumnarLog
from fae.core.npy import HEADER_BYTES
from fae.core.progress import task
from fae.pack.pack import Packer, check_match, default_memory
from fae.pack.writer import OpenFile, SplitWriter

if TYPE_CHECKING:
    from fae.artifacts.hot_set import HotSet


@dataclass(frozen=True, kw_only=True)
class SplitSizes:
    """The sizes of one split's batches, as `fae.artifacts.batch_arrays.BatchSizes` names them.

    Attributes
    ----------
    num_bytes
        Bytes of its files.
    """

    num_batches: int
    num_dense: int
    is_weighted: bool
    most_segments: tuple[tuple[int, int], ...]
    most_cold_rows: tuple[int, ...]
    num_bytes: int
    most_shared: tuple[tuple[int, int, int, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class PackedSizes:
    """What pack would make.

    Attributes
    ----------
    splits
        `SplitSizes` of the training, validation and test split.
    summary
        What pack finds of the training split, as in its summary: hot inputs, coverage, batches, padding.
    """

    splits: tuple[SplitSizes, ...]
    summary: dict[str, Any]

    @property
    def num_bytes(self) -> int:
        """Bytes of all arrays on the disk."""
        return sum(split.num_bytes for split in self.splits)


def measure_packed(
    log: ColumnarLog, hot_set: HotSet | Any, folder: Path, *, seed: int, memory_bytes: int | None = None
) -> PackedSizes:
    """Form the batches as pack does, and count them instead of writing them.

    Parameters
    ----------
    hot_set
        A hot set, or what pack reads of one: ``layout``, ``batch_size``, ``staging_rows``, ``mixed``.
    folder
        An empty folder for the inputs of a training split that is larger than `memory_bytes`.

    Raises
    ------
    ArtifactError
        As `fae.pack.pack.pack`.
    """
    check_match(log, hot_set)
    counters: list[SplitCounter] = []

    class Counter(SplitCounter):
        def __init__(self, folder: Path, **sizes: Any) -> None:
            super().__init__(folder, **sizes)
            counters.append(self)

    packer = Packer(log, hot_set, folder, writer=Counter)
    with task("plan: forming batches", 2 * log.split("train")[1] + packer.num_evaluated) as progress:
        summary = packer.train(seed, default_memory() if memory_bytes is None else memory_bytes, progress)
        for name in SPLITS[1:]:
            packer.evaluation(name, progress)
    return PackedSizes(splits=tuple(counter.sizes() for counter in counters), summary=summary)


class _CountingFile:
    """Counts the rows of a ``.npy`` file that nobody writes."""

    def __init__(self, _: Path, dtype: type[np.generic], row_shape: tuple[int, ...]) -> None:
        self._row_bytes, self._num_rows = np.dtype(dtype).itemsize * math.prod(row_shape), 0
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        return HEADER_BYTES + self._row_bytes * self._num_rows

    def write(self, first: int, rows: npt.NDArray[Any], *, wait: bool = True) -> bool:
        del wait
        with self._lock:
            self._num_rows = max(self._num_rows, first + len(rows))
        return True

    def close(self) -> None:
        """Nothing is open."""

    def abandon(self) -> None:
        """Nothing is open."""


class SplitCounter(SplitWriter):
    """Takes the batches of one split as a writer does, and counts; parameters as `SplitWriter`."""

    def __init__(self, folder: Path, **sizes: Any) -> None:
        self._counted: list[_CountingFile] = []
        self._counting = threading.Lock()
        super().__init__(folder, **sizes)
        self._num_dense, self._is_weighted = sizes["num_dense"], sizes["with_weights"]
        self._with_order, self._num_batches = sizes["with_order"], 0
        self._most = np.zeros((3, sizes["num_groups"]), np.int64)

    def _begin(self, folder: Path) -> OpenFile:
        def open_file(*parts: Any) -> _CountingFile:
            self._counted.append(_CountingFile(*parts))
            return self._counted[-1]

        return open_file

    def write(self, kind: str, group: int, first: int, arrays: BatchArrays) -> None:
        """Count a group of batches."""
        super().write(kind, group, first, arrays)
        segments = arrays.segments
        assert segments is not None
        found = np.stack([*segments.most, np.diff(arrays.cold_offsets, axis=0).max(axis=0, initial=0)])
        with self._counting:
            self._num_batches += len(arrays.num_inputs)
            self._most = np.maximum(self._most, found)

    def sizes(self) -> SplitSizes:
        """What was counted."""
        segments, long_rows, cold_rows = self._most.tolist()
        return SplitSizes(
            num_batches=self._num_batches,
            num_dense=self._num_dense,
            is_weighted=self._is_weighted,
            most_segments=tuple(zip(segments, long_rows, strict=True)) if self._with_order else (),
            most_cold_rows=tuple(cold_rows),
            num_bytes=sum(file.num_bytes for file in self._counted),
        )
