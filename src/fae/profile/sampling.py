"""Which inputs are read: seeded samples without replacement, and blocks of inputs in log order.

Profile draws its sample here, calibrate its held-out inputs and probe batches. Every set of the requested size is
equally likely, and what is drawn depends on the seed alone. Blocks are read, checked and worked on by all threads;
results come in log order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from fae.artifacts.access_profile import AccessProfile
from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.log_contents import InputCheck
from fae.core.threads import run_jobs

T = TypeVar("T")

BLOCK_INPUTS = 16_384
"""Inputs that a thread reads at once: few enough (1.7 MB at 26 columns) for a core's own cache, and for all threads to
have some of a sample of 200,000."""

CACHE_BYTES = 2**30
"""A scattered sample up to this size is copied into memory once: calibrate reads it several times."""

_MOST_MARKS = 32
"""Numbers are put in order by marking them among all that could be drawn, where those are at most this many times as
many: the marks, one byte each, then take no more than four copies of the numbers."""


def sample_without_replacement(random: np.random.Generator, population: int, size: int) -> npt.NDArray[np.int64]:
    """Draw `size` distinct numbers of ``[0, population)``, ascending; every such set is equally likely.

    Memory grows with `size` (at most 32 bytes for each, or, above half of the population, one byte per number that
    could be drawn), not with the population as for a permutation.

    Examples
    --------
    >>> sample_without_replacement(np.random.default_rng(1), 5, 5).tolist()
    [0, 1, 2, 3, 4]
    """
    if not 0 <= size <= population:
        raise ValueError(f"cannot draw {size} of {population}")
    if size > population // 2:
        kept = np.ones(population, bool)
        kept[_draw(random, population, population - size)] = False
        return np.flatnonzero(kept).astype(np.int64)
    return _draw(random, population, size)


def _draw(random: np.random.Generator, population: int, size: int) -> npt.NDArray[np.int64]:
    drawn = np.empty(0, np.int64)
    while drawn.size < size:
        missing = size - drawn.size
        more = random.integers(0, population, missing + missing // 4 + 16, dtype=np.int64)
        drawn = _distinct(np.concatenate([drawn, more]), population)
    # Too many now. The set is uniform among sets of its size, and stays so if members chosen uniformly are removed.
    extra = drawn.size - size
    if extra == 0:
        return drawn
    kept: npt.NDArray[np.int64] = np.delete(drawn, random.choice(drawn.size, extra, replace=False))
    return kept


def _distinct(numbers: npt.NDArray[np.int64], population: int) -> npt.NDArray[np.int64]:
    """The different numbers, ascending, as `numpy.unique` lists them, which takes 20 times as long (numpy 2.4)."""
    if population > _MOST_MARKS * numbers.size:
        return np.unique(numbers)
    is_drawn = np.zeros(population, bool)
    is_drawn[numbers] = True
    return np.flatnonzero(is_drawn).astype(np.int64, copy=False)


@dataclass(frozen=True, eq=False)
class SampledInputs:
    """Some inputs of a log, ascending, read block by block.

    Attributes
    ----------
    ids
        int32 ``[num_inputs of the log, S]``, usually a memory map.
    labels
        uint8 ``[num_inputs of the log]``.
    indices
        Which inputs: a ``range`` of step 1, or int64 ascending.
    check
        Refuses ids and labels that no log has, when they are read; None where that is done.
    """

    ids: npt.NDArray[np.int32]
    labels: npt.NDArray[np.uint8]
    indices: range | npt.NDArray[np.int64]
    check: InputCheck | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def block(self, start: int, stop: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
        """Ids, int32 ``[stop - start, S]``, and labels of the selected inputs ``[start, stop)``."""
        all_ids, all_labels = np.asarray(self.ids), np.asarray(self.labels)
        if isinstance(self.indices, range):
            where = slice(self.indices.start + start, self.indices.start + stop)
            ids, labels = np.ascontiguousarray(all_ids[where]), all_labels[where]
        else:  # `take` copies whole inputs; an index array would be followed entry by entry, in four times as long
            of_block = self.indices[start:stop]
            ids, labels = all_ids.take(of_block, axis=0), all_labels.take(of_block, axis=0)
        if self.check is not None:
            self.check.ids(ids, lambda row: int(self.indices[start + row]))
            self.check.labels(labels, lambda row: int(self.indices[start + row]))
        return ids, labels

    def blocks(self) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]]:
        """Ids and labels of all selected inputs, `BLOCK_INPUTS` at a time."""
        for start in range(0, len(self), BLOCK_INPUTS):
            yield self.block(start, min(start + BLOCK_INPUTS, len(self)))

    def map_blocks(self, work: Callable[[int, npt.NDArray[np.int32], npt.NDArray[np.uint8]], T]) -> list[T]:
        """Call ``work(first, ids, labels)`` for every block, on all threads; results in the order of the inputs.

        Parameters
        ----------
        work
            Given the place of the block's first input in the selection, and its ids and labels. It writes nothing that
            another block's call reads or writes.

        Raises
        ------
        ArtifactError
            If ids or labels are checked and are none that a log has: that of the first such block.
        """
        results: dict[int, T] = {}

        def do(start: int) -> None:
            results[start] = work(start, *self.block(start, min(start + BLOCK_INPUTS, len(self))))

        starts = range(0, len(self), BLOCK_INPUTS)
        run_jobs([partial(do, start) for start in starts])
        return [results[start] for start in starts]

    def part(self, start: int, stop: int) -> SampledInputs:
        """The selected inputs ``[start, stop)``."""
        return dataclasses.replace(self, indices=self.indices[start:stop])

    def take(self, positions: npt.NDArray[np.int64]) -> SampledInputs:
        """The selected inputs at these ascending positions of the selection."""
        if isinstance(self.indices, range):
            return SampledInputs(self.ids, self.labels, positions + self.indices.start, self.check)
        return SampledInputs(self.ids, self.labels, self.indices[positions], self.check)

    def evenly(self, count: int) -> SampledInputs:
        """At most `count` of the inputs, at even distances, so that every part of the log keeps its share."""
        if count >= len(self):
            return self
        return self.take(np.arange(count, dtype=np.int64) * len(self) // max(1, count))

    def cached(self, limit_bytes: int = CACHE_BYTES) -> SampledInputs:
        """The same inputs, to be read several times: checked once, and copied if they are scattered over the log.

        Scattered inputs of more than `limit_bytes` stay where they are, and are checked whenever they are read.
        """
        if isinstance(self.indices, range):
            if self.check is not None:
                self.map_blocks(lambda first, ids, labels: None)
            return dataclasses.replace(self, check=None)
        if len(self) * self.ids.shape[1] * 4 > limit_bytes:
            return self
        ids, labels = np.empty((len(self), self.ids.shape[1]), np.int32), np.empty(len(self), np.uint8)

        def copy(first: int, of_block: npt.NDArray[np.int32], labels_of_block: npt.NDArray[np.uint8]) -> None:
            ids[first : first + len(of_block)] = of_block
            labels[first : first + len(of_block)] = labels_of_block

        self.map_blocks(copy)
        return SampledInputs(ids, labels, range(len(self)))


def profiled_inputs(profile: AccessProfile, log: ColumnarLog) -> SampledInputs:
    """The inputs of `log` that the profile counted.

    Raises
    ------
    ArtifactError
        If the profile is of another log's inputs or tables.
    """
    profile.check_match(log)
    return sampled_inputs(log, range(*log.split("train")) if profile.is_exact else np.asarray(profile.indices))


def sampled_inputs(log: ColumnarLog, indices: range | npt.NDArray[np.int64]) -> SampledInputs:
    """These inputs of a log, with ids and labels checked when they are read."""
    return SampledInputs(log.ids, log.labels, indices, InputCheck(log))
