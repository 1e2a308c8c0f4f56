"""The slices of a whole split that one rank trains on a GPU, with the lists of what ranks exchange.

They are cut once, on all threads, before the first batch, into memory that a GPU copies from. What a batch is cut into
is that of `fae.distributed.batch_slices`, which a CPU cuts batch by batch. Dense features, labels and weights are views
of the packed batches.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fae.artifacts.batch_arrays import BatchArrays, SegmentArrays, SharedArrays
from fae.artifacts.packed import BatchSet, PackedBatch
from fae.artifacts.stored.order_planes import OrderArrays, plane_types
from fae.core.compiled import read_only
from fae.core.own_pages import zeros_in_own_pages
from fae.core.threads import run_ranges
from fae.distributed.batch_slices import SharedRows
from fae.distributed.exchange_lists import ExchangeList
from fae.distributed.slice_loops import count_blocks, count_hosts, cut_group, cut_long_rows
from fae.distributed.slice_plan import SlicePlan
from fae.kernels.input_views import BLOCK_ROWS

SEGMENT_LOOKUPS = 32
"""Lookups of a segment, as `fae.pack.sort_kernels` cuts them: what one program sums."""

Owned = Literal["", "share", "batch"]
"""Whether each cold row has an owner, and among which of the rows that it owns a place is a number."""
Lists = dict[str, npt.NDArray[Any]]
_NO_ADDRESSES = np.empty(0, np.int32)
_NO_ROWS = np.empty(0, np.int64)


class RankBatch(PackedBatch):
    """A slice of a batch that `RankBatches` has cut.

    Attributes
    ----------
    number
        Its number among the slices of the batch.
    """

    number = 0

    @cached_property
    def shared_rows(self) -> tuple[SharedRows, ...]:
        """As `fae.distributed.batch_slices.BatchSlice.shared_rows`."""
        shared, ends = self._arrays.shared, self._arrays.group_places
        assert shared is not None
        assert ends is not None
        return tuple(
            SharedRows(
                listed=ExchangeList(rows, bits, shared.num_slices), own_starts=segments.starts,
                own_end=int(ends[group + 1]),
            )
            for group, ((rows, bits), segments) in enumerate(zip(shared.batch(self._index), self.segments, strict=True))
        )  # fmt: skip

    @property
    def rows_of_others(self) -> tuple[int, ...]:
        """Per group, vectors that this rank reads of others in a step (`SharedArrays.rows_of_others`)."""
        shared = self._arrays.shared
        return () if shared is None or shared.rows_of_others is None else tuple(shared.rows_of_others[self._index])

    @property
    def rows_of_hosts(self) -> tuple[int, ...]:
        """Per group, rows of the own part of the list that other hosts look up; empty where ranks read all slices."""
        shared = self._arrays.shared
        return () if shared is None or shared.rows_of_hosts is None else tuple(shared.rows_of_hosts[self._index])


class OwnSlices:
    """All slices of one rank of a split: memory that they share is locked once for the device."""

    def __init__(self) -> None:
        self.arrays: list[BatchArrays] = []


class _Slices(BatchSet):
    def __init__(self, arrays: BatchArrays, number: int, own: OwnSlices) -> None:
        super().__init__(arrays, 0)
        self._number, self._own = number, own
        own.arrays.append(arrays)  # which live until that memory is released

    @property
    def locked_with(self) -> OwnSlices:
        return self._own

    def _open_batch(self, index: int) -> PackedBatch:
        found = super()._open_batch(index)
        batch = RankBatch(
            self.arrays, index, num_inputs=found.num_inputs, has_cold_rows=found.has_cold_rows, num_hot_batches=0
        )
        batch.number = self._number
        return batch


class RankBatches:
    """One slice of each batch of any split, of a rank; each split is cut once, when it is first wanted.

    Parameters
    ----------
    number, num_slices
        The number of the slice, and S, which divides the batch size.
    group_slots
        Slots of each group of tables.
    hot_rows
        H of each group.
    owned
        Empty where every rank has all rows. Else cold row i (H + i of the layout) is one of rank i mod W, which alone
        reads its sums, and others read the row. With ``share`` its place is i / W, with ``batch`` its place among the
        rows of the batch that this rank owns; `cold_rows` of a slice are then those that the rank owns.
    plan
        All slices of the rank; None where this is its only one.
    first
        What cuts the first slice of the same rank, whose lists of the whole batch this one takes; None where it is it.
    """

    def __init__(
        self, number: int, num_slices: int, group_slots: Sequence[int], hot_rows: Sequence[int], *, owned: Owned = "",
        plan: SlicePlan | None = None, first: RankBatches | None = None,
    ) -> None:  # fmt: skip
        self._number, self._num_slices, self._group_slots = number, num_slices, tuple(group_slots)
        self._plan = plan or SlicePlan(num_slices=num_slices, rank=number, world=num_slices)
        self._hot_rows, self._owned, self._first = tuple(hot_rows), owned, first
        self._cut: weakref.WeakKeyDictionary[BatchSet, _Slices] = weakref.WeakKeyDictionary()

    def of(self, batches: BatchSet) -> _Slices:
        """The slices of a split: batches of B / S inputs."""
        if batches not in self._cut:
            first = None if self._first is None else self._first.of(batches)
            own = OwnSlices() if first is None else first.locked_with
            self._cut[batches] = _Slices(self._slices(batches, first), self._number, own)
        return self._cut[batches]

    def _slices(self, batches: BatchSet, first: BatchSet | None) -> BatchArrays:
        arrays = batches.arrays
        size = arrays.labels.shape[1] // self._num_slices
        part = slice(self._number * size, (self._number + 1) * size)
        whole = np.asarray(arrays.num_inputs)
        weights = arrays.weights
        if first is not None:
            assert first.arrays.shared is not None
            shared = first.arrays.shared
            arrays = dataclasses.replace(
                arrays, cold_rows=first.arrays.cold_rows, cold_offsets=first.arrays.cold_offsets
            )  # fmt: skip
        else:
            shared = SharedArrays(
                num_inputs=whole,
                num_slices=self._num_slices,
                total_weights=None if weights is None else weights.sum(axis=1, dtype=np.float64),
            )
            if self._owned:
                arrays, shared = self._with_owners(arrays, shared)
        cut = dataclasses.replace(
            arrays,
            addresses=None if arrays.order is not None or arrays.addresses is None else arrays.addresses[:, part],
            dense=arrays.dense[:, part],
            labels=arrays.labels[:, part],
            inputs=arrays.inputs[:, part],
            weights=None if weights is None else weights[:, part],
            num_inputs=np.clip(whole - part.start, 0, size).astype(np.int32),
            shared=shared,
        )
        return cut if arrays.order is None else self._with_lists(cut, batches, size, is_first=first is None)

    def _with_owners(self, arrays: BatchArrays, shared: SharedArrays) -> tuple[BatchArrays, SharedArrays]:
        """The cold rows that this rank owns in place of all, and the place of each of all of them."""
        offsets, world = np.asarray(arrays.cold_offsets), self._plan.host_ranks
        own_number = self._plan.rank % world
        own_offsets = np.zeros_like(offsets)
        places = [zeros_in_own_pages(np.int32, int(offsets[-1, group])) for group in range(len(self._hot_rows))]
        own: list[list[npt.NDArray[np.int64]]] = [[] for _ in self._hot_rows]
        for group, (rows, hot) in enumerate(zip(arrays.cold_rows, self._hot_rows, strict=True)):
            own[group] = [_NO_ROWS] * (len(offsets) - 1)

            def work(first: int, last: int, group: int = group, rows: Any = rows, hot: int = hot) -> None:
                for index in range(first, last):
                    part = slice(offsets[index, group], offsets[index + 1, group])
                    number = np.asarray(rows[part]) - hot
                    owner, place = number % world, number // world
                    if self._owned == "batch":
                        for rank in range(world):
                            is_of_rank = owner == rank
                            place[is_of_rank] = np.arange(np.count_nonzero(is_of_rank))
                    places[group][part] = world * place + owner
                    own[group][index] = number[owner == own_number] + hot

            run_ranges(work, len(offsets) - 1)
            own_offsets[1:, group] = np.cumsum([len(each) for each in own[group]])
        arrays = dataclasses.replace(
            arrays, cold_rows=tuple(read_only(np.concatenate([_NO_ROWS, *each])) for each in own),
            cold_offsets=own_offsets,
        )  # fmt: skip
        shared = dataclasses.replace(shared, places=tuple(map(read_only, places)), place_offsets=offsets)
        return arrays, shared

    def _with_lists(self, cut: BatchArrays, batches: BatchSet, size: int, *, is_first: bool) -> BatchArrays:
        """Cut the order of every batch, and list the rows of its slices."""
        count, groups = batches.num_batches, len(self._group_slots)
        num_lookups = size * sum(self._group_slots)
        order = OrderArrays(
            tuple(zeros_in_own_pages(kind, count, num_lookups) for kind in plane_types(num_lookups).values())
        )
        found: list[list[Lists]] = [[] for _ in range(count)]
        slice_rows = np.zeros((count, groups, self._num_slices), np.int64)  # that each slice of a batch looks up
        part_rows = np.zeros((count, groups), np.int64)  # the most rows of a host in a part of a batch's list
        own_hot_rows, of_others = np.zeros((count, groups), np.int32), np.zeros((count, groups), np.int64)
        of_hosts = np.zeros((count, groups), np.int64) if self._plan.num_hosts > 1 else None

        def work(first: int, last: int) -> None:
            own_order = np.empty(num_lookups, np.int32)
            for index in range(first, last):
                lists = found[index] = self._cut_batch(batches, index, size, own_order, slice_rows[index])
                OrderArrays.split(own_order[None], order[index : index + 1])
                if not is_first:
                    for each in lists:
                        del each["rows"], each["bits"], each["counts"], each["part_rows"]
                own_hot_rows[index] = [
                    np.searchsorted(each["addresses"], hot) for each, hot in zip(lists, self._hot_rows, strict=True)
                ]
                if not is_first:
                    continue
                part_rows[index] = [each.pop("part_rows").max(initial=0) for each in lists]
                cold_rows = batches.batch(index).cold_rows
                if of_hosts is not None:
                    of_others[index], of_hosts[index] = self._read_of_hosts(lists, cold_rows)
                elif self._owned:
                    of_others[index] = self._read_of_others(lists, cold_rows)

        run_ranges(work, count)

        def joined(name: str) -> tuple[tuple[npt.NDArray[Any], ...], npt.NDArray[np.int64]]:
            offsets = np.zeros((count + 1, groups), np.int64)
            sizes = [[len(lists[name]) for lists in of_batch] for of_batch in found]
            offsets[1:] = np.cumsum(np.array(sizes, np.int64).reshape(count, groups), axis=0)
            parts = []
            for group in range(groups):
                like = found[0][group][name] if count else np.empty((0, self._num_slices), np.int32)
                array = zeros_in_own_pages(like.dtype, int(offsets[-1, group]), *like.shape[1:])
                for index, of_batch in enumerate(found):
                    array[offsets[index, group] : offsets[index + 1, group]] = of_batch[group].pop(name)
                parts.append(read_only(array))
            return tuple(parts), offsets

        (starts, offsets), (addresses, _) = joined("starts"), joined("addresses")
        long_rows, long_offsets = joined("long_rows")
        further, further_offsets = joined("further")
        shared = cut.shared
        assert shared is not None
        if is_first:  # the others have the same lists of whole batches
            rows, row_offsets = joined("rows")
            counts, count_offsets = joined("counts")
            if not self._owned and of_hosts is None:
                of_others = slice_rows.sum(axis=2) - slice_rows[:, :, self._plan.own].sum(axis=2)
            shared = dataclasses.replace(
                shared, rows=rows, bits=joined("bits")[0], offsets=row_offsets, counts=counts,
                count_offsets=count_offsets, rows_of_others=of_others, rows_of_hosts=of_hosts,
                most_own_rows=tuple(slice_rows.max(axis=(0, 2), initial=0).tolist()),
                most_part_rows=tuple(part_rows.max(axis=0, initial=0).tolist()),
            )  # fmt: skip
        return dataclasses.replace(
            cut,
            order=order.read_only(),
            segments=SegmentArrays(
                starts=starts, addresses=addresses, offsets=offsets, long_rows=long_rows, long_offsets=long_offsets
            ),
            hot_segments=None,
            group_places=size * np.cumsum([0, *self._group_slots]),
            shared=dataclasses.replace(
                shared, further=further, further_offsets=further_offsets, own_hot_rows=own_hot_rows
            ),
        )  # fmt: skip

    def _cut_batch(
        self, batches: BatchSet, index: int, size: int, own_order: npt.NDArray[np.int32], totals: npt.NDArray[np.int64]
    ) -> list[Lists]:
        batch = batches.batch(index)
        order, slots, before, found = batch.order, sum(self._group_slots), 0, []
        assert order is not None
        for group, (segments, own_slots) in enumerate(zip(batch.segments, self._group_slots, strict=True)):
            num = len(segments.starts)
            rows, bits = np.empty(num, np.int32), np.empty(num, np.uint8)
            starts, addresses = np.empty(num, np.int32), np.empty(num, np.int32)
            first, last = (self._num_slices * size * each for each in (before, before + own_slots))
            num_rows, num_own = cut_group(
                order, segments.starts, segments.addresses, first, last, self._number, size * slots, size * before,
                _NO_ADDRESSES, own_order, rows, bits, starts, addresses,
            )  # fmt: skip
            before += own_slots
            counts, part_rows = self._counts(bits[:num_rows], totals[group])
            room = size * own_slots // SEGMENT_LOOKUPS + 1
            long_rows, further = np.empty((room, 2), np.int32), np.empty((room, 2), np.int32)
            num_long, num_further = cut_long_rows(starts[:num_own], size * before, SEGMENT_LOOKUPS, long_rows, further)
            lists: Lists = {
                "starts": starts[:num_own], "addresses": addresses[:num_own], "long_rows": long_rows[:num_long],
                "rows": rows[:num_rows], "bits": bits[:num_rows], "counts": counts, "further": further[:num_further],
                "part_rows": part_rows,
            }  # fmt: skip
            found.append({name: array.copy() for name, array in lists.items()})
        return found

    def _counts(
        self, bits: npt.NDArray[np.uint8], totals: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """The counts of each block of the rows of a batch, and in each part of them the rows of each host."""
        plan, blocks = self._plan, -(-len(bits) // BLOCK_ROWS)
        hosts = plan.num_hosts if plan.num_hosts > 1 else 0
        counts = np.zeros((blocks, self._num_slices + hosts), np.int32)
        count_blocks(bits, BLOCK_ROWS, counts, totals)
        part_rows = np.zeros((plan.host_ranks, hosts), np.int64)
        if hosts:
            part_blocks = max(1, -(-blocks // plan.host_ranks))
            count_hosts(bits, plan.host_slices, BLOCK_ROWS, part_blocks, self._num_slices, counts, part_rows)
        return counts, part_rows

    def _read_of_others(self, lists: Sequence[Lists], cold_rows: Sequence[npt.NDArray[np.int64]]) -> list[int]:
        """For each group: sums of hot rows and of own cold ones that others have, and cold rows that they own."""
        found, own = [], np.uint8(sum(1 << number for number in self._plan.own))
        for each, hot, cold in zip(lists, self._hot_rows, cold_rows, strict=True):
            by_own, by_others = _count_bits(each["bits"] & own), _count_bits(each["bits"] & ~own)
            steps = self._steps(each["rows"], hot, cold)
            found.append(int(by_others[steps].sum() + by_own[~steps].sum()))
        return found

    def _steps(self, rows: npt.NDArray[np.int32], hot: int, cold: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which rows of a list this rank steps: hot ones, and cold ones that it owns."""
        found, num_hot, owners = np.ones(len(rows), np.bool_), int(np.searchsorted(rows, hot)), self._plan.host_ranks
        found[num_hot:] = (cold[rows[num_hot:] - hot] - hot) % owners == self._plan.rank % owners
        return found

    def _read_of_hosts(
        self, lists: Sequence[Lists], cold_rows: Sequence[npt.NDArray[np.int64]]
    ) -> tuple[list[int], list[int]]:
        """For each group: all vectors that are read of others, where hosts add sums up, and those of other hosts.

        These are the sums of its part by the other slices of its host and by other hosts, those of hosts in the parts
        of its neighbours, and cold rows that these own.
        """
        plan, found, of_hosts = self._plan, [], []
        masks = [np.uint8((1 << plan.host_slices) - 1 << host * plan.host_slices) for host in range(plan.num_hosts)]
        own = np.uint8(sum(1 << number for number in plan.own))
        for each, hot, cold in zip(lists, self._hot_rows, cold_rows, strict=True):
            bits, size = each["bits"], -(-len(each["counts"]) // plan.host_ranks) * BLOCK_ROWS
            begin = plan.rank % plan.host_ranks * size
            part, is_far = bits[begin : begin + size], np.ones(len(bits), np.bool_)
            is_far[begin : begin + size] = False
            steps = self._steps(each["rows"], hot, cold) if self._owned else np.ones(len(bits), np.bool_)
            near = _count_bits(part & masks[plan.host] & ~own).sum()
            network = sum(np.count_nonzero(part & mask) for number, mask in enumerate(masks) if number != plan.host)
            far = sum(np.count_nonzero(bits[is_far & steps] & mask) for mask in masks)
            found.append(int(near + network + far + _count_bits(bits[~steps] & own).sum()))
            of_hosts.append(int(network))
        return found, of_hosts


def _count_bits(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    counts: npt.NDArray[np.int64] = np.unpackbits(values).reshape(-1, 8).sum(axis=1, dtype=np.int64)
    return counts
