"""Batches out of inputs in a given order: gather, translate, cut, compose, a chunk of batches at a time.

Pack decides which inputs and in which order; `Composer` turns them into packed batches in preallocated buffers, and
`fae.pack.writer` puts these into files. Where batches end depends on the inputs, their order and the staging rows
alone, not on chunks or threads, because batches are cut greedily: each takes inputs until it is full or the next one
would bring it above the staging rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.batch_arrays import BatchArrays, SegmentArrays
from fae.artifacts.row_layout import RowLayout
from fae.core.compiled import Int64
from fae.core.errors import RecipeError
from fae.core.threads import num_threads, run_ranges
from fae.pack.classify import to_ranks
from fae.pack.cut_kernels import find_bounds, make_seen_rows
from fae.pack.log_reader import LogInputs
from fae.pack.sort_kernels import SortScratch, compose_batch, make_composed_lists, make_sort_scratch

CHUNK_BYTES = 32 * 2**20
"""Bytes of a chunk's buffers: about the last-level cache of the machine that pack was tuned on."""


@dataclass(frozen=True, kw_only=True)
class BatchChunk:
    """Composed batches, as views of the composer's buffers: valid until the next chunk.

    Attributes
    ----------
    arrays
        The batches, as in a split; `order` and `segments` are never None here.
    num_taken
        Inputs that went into them.
    num_closed_early
        Batches that are not full because the next input's cold rows would not have fitted.
    """

    arrays: BatchArrays
    num_taken: int
    num_closed_early: int


class Composer:
    """Composes batches of one layout, in buffers that it keeps.

    Parameters
    ----------
    batch_size
        B.
    staging_rows
        Most unique cold rows of a batch, per group; None for no limit.
    max_batches
        Batches of a chunk; by default as many as the buffers' usual size allows.
    """

    def __init__(
        self,
        layout: RowLayout,
        num_dense: int,
        batch_size: int,
        staging_rows: Sequence[int] | None,
        max_batches: int | None = None,
    ) -> None:
        num_slots, num_groups = layout.num_slots, len(layout.groups)
        check_address_space(layout, batch_size)
        self.layout, self.batch_size = layout, batch_size
        most = [
            min(batch_size * len(layout.group_slots(g)), group.num_cold_rows) for g, group in enumerate(layout.groups)
        ]
        limits = most if staging_rows is None else [min(*pair) for pair in zip(most, staging_rows, strict=True)]
        self._limits = None if limits == most else np.array(limits, np.int64)
        # One more than the limit is put into the set before a batch is found to be too large.
        self._seen = make_seen_rows(0 if self._limits is None else sum(limits) + 1)
        self._stamp = 1
        self._spare: list[SortScratch] = []  # threads take one and put it back
        if max_batches is None:
            batch_bytes = batch_size * (20 * num_slots + 4 * num_dense + 12) + 8 * sum(limits)
            usual, most_batches = CHUNK_BYTES // batch_bytes, 8 * CHUNK_BYTES // batch_bytes
            max_batches = max(1, usual, min(2 * num_threads(), most_batches))
        self.max_batches = max_batches
        self._likely = max_batches * batch_size  # inputs worth gathering: fewer where batches are closed early
        self._ranks = np.zeros((max_batches * batch_size, num_slots), np.int32)
        self._lists = make_composed_lists(max_batches, batch_size * num_slots, num_groups, sum(limits))
        self._dense = np.zeros((max_batches, batch_size, num_dense), np.float32)
        self._labels = np.zeros((max_batches, batch_size), np.float32)
        self._inputs = np.zeros((max_batches, batch_size), np.int64)
        self._weights: npt.NDArray[np.float32] | None = None  # made for the first inputs that have weights

    def next_chunk(self, inputs: LogInputs, positions: Int64, *, last: bool, cold: bool = True) -> BatchChunk:
        """Compose the batches at the head of `positions`, at most `max_batches`.

        Parameters
        ----------
        positions
            int64: which of `inputs`, in order. Only its head is read.
        last
            Whether a batch may be left unfilled at the end of `positions`; else those inputs are not taken.
        cold
            False where every input is hot: batches then end where they are full.
        """
        count = min(len(positions), self.max_batches * self.batch_size)
        if cold:
            count = min(count, max(self.batch_size, self._likely))
        self._gather(inputs, positions[:count])
        bounds, closed_early = self._cut(count, count == len(positions) and last, cold)
        if cold:
            self._likely = 2 * int(bounds[-1])
        return self._compose(inputs, positions, bounds, closed_early)

    def compose_groups(self, inputs: LogInputs, positions: Int64, bounds: Int64) -> BatchChunk:
        """Compose batches with these bounds, at most `max_batches`, no matter how many cold rows they have."""
        self._gather(inputs, positions)
        return self._compose(inputs, positions, bounds, 0)

    def _gather(self, inputs: LogInputs, positions: Int64) -> None:
        def work(start: int, stop: int) -> None:
            # mode="clip" on purpose, see `take_rows`; here the ranges also translate what they have just read.
            np.take(inputs.ids, positions[start:stop], axis=0, out=self._ranks[start:stop], mode="clip")
            to_ranks(self._ranks, self.layout, start, stop)

        run_ranges(work, len(positions), min_range=256)

    def _cut(self, count: int, last: bool, cold: bool) -> tuple[Int64, int]:
        if self._limits is None or not cold:
            bounds = np.arange(0, count + 1, self.batch_size)
        else:
            room = np.zeros(self.max_batches + 1, np.int64)
            closed, self._stamp = find_bounds(
                self._ranks, count, self.batch_size, self.layout.addressing, self._limits, self._seen, self._stamp, room
            )
            bounds = room[: closed + 1]
        closed_early = int(np.count_nonzero(np.diff(bounds) < self.batch_size))
        if last and bounds[-1] < count and len(bounds) <= self.max_batches:
            bounds = np.append(bounds, count)
        return bounds, closed_early

    def _compose(self, inputs: LogInputs, positions: Int64, bounds: Int64, closed_early: int) -> BatchChunk:
        num_batches, addressing, lists = len(bounds) - 1, self.layout.addressing, self._lists
        if inputs.weights is not None and self._weights is None:
            self._weights = np.zeros((self.max_batches, self.batch_size), np.float32)
        weights = None if inputs.weights is None else self._weights

        def work(start: int, stop: int) -> None:
            scratch = self._spare.pop() if self._spare else make_sort_scratch(self.layout, self.batch_size)
            for batch in range(start, stop):
                begin, end = int(bounds[batch]), int(bounds[batch + 1])
                size, chosen = end - begin, positions[begin:end]
                compose_batch(self._ranks[begin:end], addressing, scratch, self.batch_size, lists, batch)
                np.take(inputs.dense, chosen, axis=0, out=self._dense[batch, :size], mode="clip")
                self._labels[batch, :size] = inputs.labels[chosen]
                np.take(inputs.index, chosen, out=self._inputs[batch, :size], mode="clip")
                self._dense[batch, size:] = 0
                self._labels[batch, size:] = 0
                self._inputs[batch, size:] = -1
                if weights is not None and inputs.weights is not None:
                    weights[batch, :size] = inputs.weights[chosen]
                    weights[batch, size:] = 0
            self._spare.append(scratch)

        run_ranges(work, num_batches)
        cold_rows, cold_offsets = _joined(lists.cold_rows, lists.cold_bounds, num_batches)
        starts, offsets = _joined(lists.segment_starts, lists.segment_bounds, num_batches)
        addresses, _ = _joined(lists.segment_addresses, lists.segment_bounds, num_batches)
        long_rows, long_offsets = _joined(lists.long_rows, lists.long_bounds, num_batches)
        arrays = BatchArrays(
            addresses=lists.addresses[:num_batches].reshape(num_batches, self.batch_size, self.layout.num_slots),
            order=lists.order[:num_batches],
            dense=self._dense[:num_batches],
            labels=self._labels[:num_batches],
            num_inputs=np.diff(bounds).astype(np.int32),
            inputs=self._inputs[:num_batches],
            cold_rows=cold_rows,
            cold_offsets=cold_offsets,
            weights=None if weights is None else weights[:num_batches],
            segments=SegmentArrays(
                starts=starts, addresses=addresses, offsets=offsets, long_rows=long_rows, long_offsets=long_offsets
            ),
        )
        return BatchChunk(arrays=arrays, num_taken=int(bounds[-1]), num_closed_early=closed_early)


def _joined(lists: npt.NDArray[Any], bounds: Int64, num_batches: int) -> tuple[tuple[npt.NDArray[Any], ...], Int64]:
    """The batches' lists of each group, one behind the other, and int64 ``[batches + 1, G]``, where each begins."""
    num_groups = bounds.shape[1] - 1
    offsets = np.zeros((num_batches + 1, num_groups), np.int64)
    np.cumsum(np.diff(bounds[:num_batches], axis=1), axis=0, out=offsets[1:])
    joined = tuple(
        np.concatenate(
            [
                np.zeros((0, *lists.shape[2:]), lists.dtype),
                *(lists[batch, bounds[batch, g] : bounds[batch, g + 1]] for batch in range(num_batches)),
            ]
        )
        for g in range(num_groups)
    )
    return joined, offsets


def check_address_space(layout: RowLayout, batch_size: int) -> None:
    """Refuse a batch whose lookups or addresses do not fit int32.

    Raises
    ------
    RecipeError
        If so; it names the batch size that would fit, or the budget that is too large.
    """
    limit = 2**31 - 1
    if batch_size * layout.num_slots > limit:
        raise RecipeError(
            f"[train] batch_size = {batch_size} with {layout.num_slots} lookups an input is more than {limit} lookups "
            f"a batch; choose at most {limit // layout.num_slots}"
        )
    for group in layout.groups:
        if group.num_hot_rows + batch_size * layout.num_slots > limit:
            raise RecipeError(
                f"[hot] budget makes {group.num_hot_rows} rows of width {group.embedding_dim} hot, more than int32 "
                f"addresses can name beside a batch; choose a smaller budget"
            )
