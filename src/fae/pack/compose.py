"""Batches out of inputs in a given order: gather, translate, sort, a group of consecutive batches at a time.

One thread composes a group, in buffers that nobody else uses meanwhile; `fae.pack.batching` cuts inputs into batches,
hands out groups to threads, and `fae.pack.writer` puts them into files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.batch_arrays import BatchArrays, SegmentArrays
from fae.artifacts.row_layout import RowLayout
from fae.artifacts.stored.order_planes import OrderArrays, order_bytes
from fae.core.compiled import Int64
from fae.core.errors import RecipeError
from fae.core.threads import run_ranges
from fae.pack.cut_kernels import ColdLookups
from fae.pack.input_kernels import gather_columns, read_block, read_ranks
from fae.pack.log_reader import LogInputs
from fae.pack.rank_tables import RankTables
from fae.pack.sort_kernels import (
    compose_batches,
    join_lists,
    make_composed_lists,
)
from fae.pack.table_sort import SortScratch, make_sort_scratch

GROUP_BYTES = 6 * 2**20
"""Bytes of a group's buffers, more where a single batch needs more: few enough that a core's cache has most of them
when they are written, and enough that the steps between compiled loops do not count."""


class GroupBuffers:
    """Room for a group of composed batches, filled again and again.

    Parameters
    ----------
    num_batches
        Most batches of a group.
    most_cold_rows
        Most unique cold rows of a batch.
    with_addresses
        Whether addresses are composed too.
    """

    def __init__(
        self, layout: RowLayout, num_batches: int, batch_size: int, num_dense: int, most_cold_rows: int, *,
        with_addresses: bool,
    ) -> None:  # fmt: skip
        num_slots = layout.num_slots
        self.ranks = np.empty((num_batches * batch_size, num_slots), np.int32)
        self.lists = make_composed_lists(
            num_batches, batch_size * num_slots, len(layout.groups), most_cold_rows, with_addresses=with_addresses
        )
        # A split that stores addresses stores no order.
        self.order = (
            OrderArrays((self.lists.order,))
            if with_addresses
            else OrderArrays.empty(num_batches, batch_size * num_slots)
        )
        self.dense = np.empty((num_batches, batch_size, num_dense), np.float32)
        self.labels = np.empty((num_batches, batch_size), np.float32)
        self.inputs = np.empty((num_batches, batch_size), np.int64)
        self.weights = np.empty((num_batches, batch_size), np.float32)


class Composer:
    """Composes groups of batches of one layout; several threads may use it at once.

    Parameters
    ----------
    batch_size
        B.
    staging_rows
        Most unique cold rows of a batch, per group of tables; None for no limit.
    with_addresses
        Whether addresses are composed, for a split that stores them; those of others follow from their order.

    Attributes
    ----------
    limits
        int64 ``[G]``: the staging rows; None where no batch can have more.
    group_batches
        Batches of a group.
    group_bytes
        Bytes of a group's buffers.
    """

    def __init__(
        self, layout: RowLayout, num_dense: int, batch_size: int, staging_rows: Sequence[int] | None, *,
        with_addresses: bool = False,
    ) -> None:  # fmt: skip
        check_address_space(layout, batch_size)
        self.layout, self.batch_size, self._num_dense = layout, batch_size, num_dense
        self._with_addresses = with_addresses
        most = [
            min(batch_size * len(layout.group_slots(g)), group.num_cold_rows) for g, group in enumerate(layout.groups)
        ]
        limits = most if staging_rows is None else [min(*pair) for pair in zip(most, staging_rows, strict=True)]
        self.limits = None if limits == most else np.array(limits, np.int64)
        self._most_cold_rows = sum(limits)
        num_lookups = batch_size * layout.num_slots
        # Ranks, order, starts and addresses of segments; and what is stored of the order, or in its place.
        lookups = 16 * num_lookups + (4 * num_lookups if with_addresses else order_bytes(num_lookups))
        batch_bytes = lookups + batch_size * (4 * num_dense + 16) + 8 * sum(limits)
        self.group_batches = max(1, GROUP_BYTES // batch_bytes)
        self.group_bytes = self.group_batches * batch_bytes
        self._tables = RankTables(layout)
        self._spare: list[SortScratch] = []  # threads take one and put it back

    def make_buffers(self, num_batches: int | None = None) -> GroupBuffers:
        """Room for a group, or for that many batches."""
        return GroupBuffers(
            self.layout, num_batches or self.group_batches, self.batch_size, self._num_dense, self._most_cold_rows,
            with_addresses=self._with_addresses,
        )  # fmt: skip

    def gather_ranks(self, inputs: LogInputs, positions: Int64, ranks: npt.NDArray[np.int32]) -> None:
        """Fill int32 ``[n, S]`` with the storage ranks of the inputs at n positions, -1 in unused slots."""
        read_ranks(inputs.loop_ids, positions, self._tables.slots, self._tables.addresses, ranks)

    def read_block(
        self, inputs: LogInputs, positions: Int64, ranks: npt.NDArray[np.int32], lookups: ColdLookups
    ) -> None:
        """Do as `gather_ranks`, and list the lookups of cold rows."""
        tables = self._tables
        read_block(inputs.loop_ids, positions, tables.slots, tables.addresses, self.layout.addressing, ranks, lookups)

    def compose(
        self, buffers: GroupBuffers, ranks: npt.NDArray[np.int32], inputs: LogInputs, positions: Int64, bounds: Int64,
        start: int, stop: int,
    ) -> None:  # fmt: skip
        """Compose the batches ``[start, stop)`` of a group. Several threads may compose different ones.

        Parameters
        ----------
        ranks
            int32 ``[n, S]``: those of the group's inputs.
        positions
            int64: which of `inputs`, for the whole group.
        bounds
            int64: batch n has ``positions[bounds[n] : bounds[n + 1]]``.
        """
        scratch = self._spare.pop() if self._spare else make_sort_scratch(self.layout, self.batch_size)
        compose_batches(ranks, bounds, start, stop, self.layout.addressing, scratch, self.batch_size, buffers.lists)
        self._spare.append(scratch)
        if buffers.order.are_planes:
            OrderArrays.split(buffers.lists.order[start:stop], buffers.order[start:stop])
        gather_columns(
            inputs.loop_columns, inputs.first, positions, bounds, start, stop,
            buffers.dense, buffers.labels, buffers.inputs, buffers.weights,
        )  # fmt: skip

    def batch_arrays(self, buffers: GroupBuffers, bounds: Int64, *, weighted: bool) -> BatchArrays:
        """The batches of a group as they are in a split, as views of the buffers and copies of the lists."""
        num_batches, lists = len(bounds) - 1, buffers.lists
        cold_rows, cold_offsets = _joined(lists.cold_rows, lists.cold_bounds, num_batches)
        starts, offsets = _joined(lists.segment_starts, lists.segment_bounds, num_batches)
        addresses, _ = _joined(lists.segment_addresses, lists.segment_bounds, num_batches)
        # A row of more than one segment is a pair of int32, moved as one int64.
        pairs = lists.long_rows.view(np.int64).reshape(lists.long_rows.shape[:2])
        long_rows, long_offsets = _joined(pairs, lists.long_bounds, num_batches)
        shape = (num_batches, self.batch_size, self.layout.num_slots)
        return BatchArrays(
            addresses=lists.addresses[:num_batches].reshape(shape) if self._with_addresses else None,
            order=buffers.order[:num_batches],
            dense=buffers.dense[:num_batches],
            labels=buffers.labels[:num_batches],
            num_inputs=np.diff(bounds).astype(np.int32),
            inputs=buffers.inputs[:num_batches],
            cold_rows=cold_rows,
            cold_offsets=cold_offsets,
            weights=buffers.weights[:num_batches] if weighted else None,
            group_places=self.batch_size * self.layout.addressing.group_first_slot,
            segments=SegmentArrays(
                starts=starts,
                addresses=addresses,
                offsets=offsets,
                long_rows=tuple(rows.view(np.int32).reshape(-1, 2) for rows in long_rows),
                long_offsets=long_offsets,
            ),
        )

    def compose_groups(self, inputs: LogInputs, positions: Int64, bounds: Int64) -> BatchArrays:
        """Compose batches with these bounds on all threads, no matter how many cold rows they have."""
        num_batches = len(bounds) - 1
        buffers = self.make_buffers(max(1, num_batches))

        def work(start: int, stop: int) -> None:
            begin, end = bounds[[start, stop]].tolist()
            self.gather_ranks(inputs, positions[begin:end], buffers.ranks[begin:end])
            self.compose(buffers, buffers.ranks, inputs, positions, bounds, start, stop)

        run_ranges(work, num_batches)
        return self.batch_arrays(buffers, bounds, weighted=inputs.weights is not None)


def _joined(lists: npt.NDArray[Any], bounds: Int64, num_batches: int) -> tuple[tuple[npt.NDArray[Any], ...], Int64]:
    """The batches' lists of each group, one behind the other, and int64 ``[batches + 1, G]``, where each begins."""
    num_groups = bounds.shape[1] - 1
    offsets = np.zeros((num_batches + 1, num_groups), np.int64)
    np.cumsum(np.diff(bounds[:num_batches], axis=1), axis=0, out=offsets[1:])
    if num_batches == 1:
        begins = bounds[0].tolist()
        return tuple(lists[0, begins[g] : begins[g + 1]] for g in range(num_groups)), offsets
    joined = []
    for group in range(num_groups):
        joined.append(np.empty(offsets[-1, group], lists.dtype))
        join_lists(lists, bounds, group, np.ascontiguousarray(offsets[:-1, group]), joined[-1])
    return tuple(joined), offsets


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
