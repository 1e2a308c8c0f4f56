"""The arrays of packed batches, one split at a time, and the segments that a GPU sums in parallel, in a fixed order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fae.artifacts.stored.bfloat16 import round_to_bfloat16
from fae.artifacts.stored.order_planes import OrderArrays
from fae.core.compiled import read_only
from fae.core.own_pages import zeros_in_own_pages
from fae.core.threads import run_ranges


@dataclass(frozen=True, kw_only=True)
class Segments:
    """The segments of one group in one batch.

    The lookups of a row are neighbours in the batch's `order`. A segment is up to 32 of them
    (`fae.pack.sort_kernels.SEGMENT_LOOKUPS`), counted from the row's own first lookup, so that where it is cut does not
    depend on other rows (docs/decisions/hot_sets.md, 45).

    Attributes
    ----------
    starts
        int32 ``[n]``: place in `order` of each segment's first lookup; a segment ends where the next begins, the last
        one at the end of the group's part.
    addresses
        int32 ``[n]``: address of each segment's row, ascending.
    long_rows
        int32 ``[m, 2]``: rows of more than one segment, as first segment and number of segments.
    """

    starts: npt.NDArray[np.int32]
    addresses: npt.NDArray[np.int32]
    long_rows: npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class SegmentArrays:
    """The `Segments` of n batches, G groups.

    Attributes
    ----------
    starts, addresses
        Per group, int32: the lists of all batches, one behind the other.
    offsets
        int64 ``[n + 1, G]``: where each batch's segments begin in these lists.
    long_rows, long_offsets
        Per group, int32 ``[*, 2]``: the long rows of all batches; int64 ``[n + 1, G]``: where each batch's begin.
    """

    starts: tuple[npt.NDArray[np.int32], ...]
    addresses: tuple[npt.NDArray[np.int32], ...]
    offsets: npt.NDArray[np.int64]
    long_rows: tuple[npt.NDArray[np.int32], ...]
    long_offsets: npt.NDArray[np.int64]

    def batch(self, index: int) -> tuple[Segments, ...]:
        """Segments of batch `index`, per group."""
        begin, end = self.offsets[index].tolist(), self.offsets[index + 1].tolist()
        long_begin, long_end = self.long_offsets[index].tolist(), self.long_offsets[index + 1].tolist()
        return tuple(
            Segments(
                starts=self.starts[g][begin[g] : end[g]],
                addresses=self.addresses[g][begin[g] : end[g]],
                long_rows=self.long_rows[g][long_begin[g] : long_end[g]],
            )
            for g in range(len(begin))
        )

    @property
    def most(self) -> npt.NDArray[np.int64]:
        """int64 ``[2, G]``: most segments, and most rows of more than one segment, of a batch."""
        return np.stack([np.diff(part, axis=0).max(axis=0, initial=0) for part in (self.offsets, self.long_offsets)])


@dataclass(frozen=True, kw_only=True)
class SharedArrays:
    """What one rank of several needs beside its slices of n batches, G groups: `fae.distributed.rank_batches` makes it.

    Attributes
    ----------
    num_inputs
        int32 ``[n]``: real inputs of the whole batches.
    num_slices
        S.
    total_weights
        float64 ``[n]``: weights of the whole batches; None where the log has none.
    rows, bits
        Per group, int32 and uint8: the rows that any slice of a batch looks up, by ascending address, and a bit for
        each slice that does; the lists of all batches, one behind the other.
    offsets
        int64 ``[n + 1, G]``: where each batch's rows begin.
    counts
        Per group, int32 ``[*, slices]``: for every `fae.kernels.input_views.BLOCK_ROWS` rows of a batch, how many rows
        before them each slice looks up. Where sums are added up by host ``[*, slices + hosts]``: the columns of hosts
        count from the beginning of the part of the list in which the rows are.
    count_offsets
        int64 ``[n + 1, G]``: where each batch's counts begin.
    further
        Per group, int32 ``[*, 2]``: first place and end of the segments of long rows but their first ones.
    further_offsets
        int64 ``[n + 1, G]``: where each batch's further segments begin.
    most_own_rows
        Per group: the most rows that a slice of any rank looks up in a batch, which is the same on all ranks.
    most_part_rows
        Per group: the most rows that any host looks up in a part of the list of a batch; 0 without hosts.
    rows_of_others
        int64 ``[n, G]``: vectors that this rank reads of others in a step, which are the sums of rows that their slices
        look up. Where cold rows are spread, of these the sums of own rows alone, and rows that others own. None outside
        the training split.
    rows_of_hosts
        int64 ``[n, G]``: of these vectors those that come from other hosts, where sums are added up by host; else None.
    own_hot_rows
        int32 ``[n, G]``: hot rows that the slice looks up; None outside the training split.
    places
        Where each cold row has an owner: per group, int32, W p + r for every cold row of a batch, which is row p of
        what rank r of W owns; the lists of all batches, one behind the other.
    place_offsets
        int64 ``[n + 1, G]``: where each batch's places begin.
    """

    num_inputs: npt.NDArray[np.int32]
    num_slices: int
    total_weights: npt.NDArray[np.float64] | None = None
    rows: tuple[npt.NDArray[np.int32], ...] = ()
    bits: tuple[npt.NDArray[np.uint8], ...] = ()
    offsets: npt.NDArray[np.int64] | None = None
    counts: tuple[npt.NDArray[np.int32], ...] = ()
    count_offsets: npt.NDArray[np.int64] | None = None
    further: tuple[npt.NDArray[np.int32], ...] = ()
    further_offsets: npt.NDArray[np.int64] | None = None
    most_own_rows: tuple[int, ...] = ()
    most_part_rows: tuple[int, ...] = ()
    rows_of_others: npt.NDArray[np.int64] | None = None
    rows_of_hosts: npt.NDArray[np.int64] | None = None
    own_hot_rows: npt.NDArray[np.int32] | None = None
    places: tuple[npt.NDArray[np.int32], ...] = ()
    place_offsets: npt.NDArray[np.int64] | None = None

    def weight_of(self, index: int) -> float:
        """Weight of a whole batch: the number of its inputs, where the log has no weights."""
        return float((self.num_inputs if self.total_weights is None else self.total_weights)[index])

    def batch(self, index: int) -> tuple[tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]], ...]:
        """Per group, the `rows` and `bits` of batch `index`; empty outside the training split."""
        if self.offsets is None:
            return ()
        begin, end = self.offsets[index].tolist(), self.offsets[index + 1].tolist()
        return tuple((self.rows[g][begin[g] : end[g]], self.bits[g][begin[g] : end[g]]) for g in range(len(begin)))

    @property
    def most(self) -> tuple[tuple[int, int, int, int], ...]:
        """Per group: most rows, counts, further segments and places of a batch; empty where there are no lists."""
        lists = (self.offsets, self.count_offsets, self.further_offsets, self.place_offsets)
        groups = max((each.shape[1] for each in lists if each is not None), default=0)
        none = np.zeros(groups, np.int64)
        most = [none if each is None else np.diff(each, axis=0).max(axis=0, initial=0) for each in lists]
        slices = [counts.shape[1] for counts in self.counts] or [0] * groups
        return tuple(
            (int(r), int(c) * s, int(f), int(p)) for (r, c, f, p), s in zip(np.stack(most).T, slices, strict=True)
        )


class BatchSizes(Protocol):
    """The sizes of a split's batches that memory depends on: of packed batches, or of batches that are only planned."""

    @property
    def num_batches(self) -> int:
        """Batches of the split."""

    @property
    def num_dense(self) -> int:
        """K: dense features of an input."""

    @property
    def is_weighted(self) -> bool:
        """Whether inputs have weights."""

    @property
    def most_segments(self) -> tuple[tuple[int, int], ...]:
        """Per group: most segments, and most rows of more than one segment, of a batch; empty without segments."""

    @property
    def most_cold_rows(self) -> tuple[int, ...]:
        """Per group: most unique cold rows that a batch has."""

    @property
    def most_shared(self) -> tuple[tuple[int, int, int, int], ...]:
        """As `SharedArrays.most`, of slices; else empty."""


@dataclass(frozen=True, kw_only=True)
class BatchArrays:
    """The arrays of one split, N batches of B inputs, as they are in its files.

    Attributes
    ----------
    addresses, dense, labels
        As in `PackedBatch`, with N in front; `addresses` are None where they follow from the order.
    order
        That of every batch; None outside the training split.
    num_inputs
        int32 ``[N]``.
    inputs
        int64 ``[N, B]``: index in the columnar log of each packed input, -1 in padding.
    cold_rows
        Per group, int64: the lists of all batches, one behind the other.
    cold_offsets
        int64 ``[N + 1, G]``: where each batch's list begins.
    weights
        float32 ``[N, B]``, 0 in padding; None where the log has no weights.
    segments, hot_segments
        Segments of the cold batches (of all, where batches are mixed), and of the hot batches, which come before them;
        None outside the training split.
    group_places
        int64 ``[G + 1]``: where each group's part of a batch's `order` begins; None where addresses are stored.
    shared
        Of slices on one of several ranks, what it shares with the others. Each row then has one entry in `segments`,
        also where it is long, and a long row is its number among them and its first one of the further segments.
    """

    addresses: npt.NDArray[np.int32] | None
    order: OrderArrays | None
    dense: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    num_inputs: npt.NDArray[np.int32]
    inputs: npt.NDArray[np.int64]
    cold_rows: tuple[npt.NDArray[np.int64], ...]
    cold_offsets: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32] | None = None
    segments: SegmentArrays | None = None
    hot_segments: SegmentArrays | None = None
    group_places: npt.NDArray[np.int64] | None = None
    shared: SharedArrays | None = None

    @cached_property
    def rounded_dense(self) -> npt.NDArray[np.uint16]:
        """uint16 ``[N, B, K]``: bits of `dense` in bfloat16, on pages of their own, from which a GPU may copy.

        All are rounded when they are first read, on all threads.
        """
        found = zeros_in_own_pages(np.uint16, *self.dense.shape)

        def work(first: int, last: int) -> None:
            for index in range(first, last):
                round_to_bfloat16(self.dense[index], found[index])

        run_ranges(work, len(found))
        return read_only(found)

    @property
    def shape(self) -> tuple[int, int]:
        """B and S: inputs of a batch, and lookup slots of an input."""
        if self.addresses is not None:
            return self.addresses.shape[1], self.addresses.shape[2]
        assert self.order is not None
        return self.labels.shape[1], self.order.num_lookups // self.labels.shape[1]
