"""A slice of a packed batch, which one rank trains: derived when the batch is loaded, from what is stored of the batch.

A packed batch is a global batch, and slice s of S has its s-th contiguous part of B / S inputs. The order of the
batch is sorted by address and then by lookup, so the order of a slice is the order of the batch without the lookups of
other slices, and the rows that any slice looks up come in ascending order on the way. One pass over the order gives all
that it needs: the addresses of its lookups, their order, and which rows it shares with which slices. A later
version of the packed format may store them.

A batch with few inputs leaves slices without any: they have pads alone, and list no row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fae.artifacts.batch_arrays import Segments
from fae.artifacts.packed import PackedBatch
from fae.core.compiled import read_only
from fae.distributed.exchange_lists import ExchangeList
from fae.distributed.slice_loops import cut_group


@dataclass(frozen=True, kw_only=True)
class SharedRows:
    """The rows of one group of tables in a batch, and those of them that one slice looks up.

    Attributes
    ----------
    listed
        The rows of all slices, by address.
    own_starts
        int32 ``[rows of the slice]``: place in the slice's order of each row's first lookup.
    own_end
        Where the group's part of the slice's order ends.
    """

    listed: ExchangeList
    own_starts: npt.NDArray[np.int32]
    own_end: int


@dataclass(frozen=True, kw_only=True)
class _Cut:
    addresses: npt.NDArray[np.int32]
    order: npt.NDArray[np.int32]
    shared_rows: tuple[SharedRows, ...]


class BatchSlice(PackedBatch):
    """One slice of a batch: a `PackedBatch` of B / S inputs.

    Cold rows are those of the whole batch, which addresses number. Segments, which only a GPU sums by, it has none.

    Parameters
    ----------
    whole
        The batch.
    number, num_slices
        s and S: S divides B.
    group_slots
        Slots of each group of tables.
    world
        Ranks, each with S / W slices; by default W is S.
    order
        That of the batch, where it has been read for several slices.

    Attributes
    ----------
    number
        s.
    num_inputs
        Real inputs of the slice; 0 where the batch ends before it.
    """

    def __init__(
        self, whole: PackedBatch, number: int, num_slices: int, group_slots: Sequence[int], world: int | None = None,
        order: npt.NDArray[np.int32] | None = None,
    ) -> None:  # fmt: skip
        self._whole_order = order
        self._whole, self.number, self._num_slices, self._group_slots = whole, number, num_slices, tuple(group_slots)
        self._world, size = world or num_slices, len(whole.labels) // num_slices
        self._part = slice(number * size, (number + 1) * size)
        self.num_inputs = max(0, min(size, whole.num_inputs - number * size))
        self.has_cold_rows = whole.has_cold_rows

    def __repr__(self) -> str:
        return f"BatchSlice({self.number} of {self._num_slices} of {self._whole!r})"

    @property
    def total_inputs(self) -> int:
        return self._whole.total_inputs

    @cached_property
    def total_weight(self) -> float:
        return self._whole.total_weight

    def read_addresses(
        self, out: npt.NDArray[np.int32] | None = None, order: npt.NDArray[np.int32] | None = None
    ) -> npt.NDArray[np.int32]:
        if self.is_ordered:
            return self._cut.addresses.reshape(-1, sum(self._group_slots))
        return self._whole.addresses[self._part]

    @property
    def is_ordered(self) -> bool:
        return self._whole.is_ordered

    def read_order(self, out: npt.NDArray[np.int32] | None = None) -> npt.NDArray[np.int32] | None:
        return self._cut.order if self.is_ordered else None

    @cached_property
    def shared_rows(self) -> tuple[SharedRows, ...]:
        """For each group, which rows are summed over slices, of a batch of the training split."""
        return self._cut.shared_rows

    @property
    def rows_of_others(self) -> tuple[int, ...]:
        """Per group, rows that other ranks look up, once for each that does; empty outside the training split."""
        if not self.is_ordered:
            return ()
        others = [rank for rank in range(self._world) if rank != self.number * self._world // self._num_slices]
        return tuple(
            sum(len(shared.listed.places_of_rank(rank, self._world)) for rank in others) for shared in self.shared_rows
        )

    @cached_property
    def dense(self) -> npt.NDArray[np.float32]:
        return self._whole.dense[self._part]

    @cached_property
    def labels(self) -> npt.NDArray[np.float32]:
        return self._whole.labels[self._part]

    @cached_property
    def weights(self) -> npt.NDArray[np.float32] | None:
        return None if self._whole.weights is None else self._whole.weights[self._part]

    @cached_property
    def cold_rows(self) -> tuple[npt.NDArray[np.int64], ...]:
        return self._whole.cold_rows

    @cached_property
    def segments(self) -> tuple[Segments, ...]:
        return ()

    @cached_property
    def _cut(self) -> _Cut:
        order, size = self._whole.order if self._whole_order is None else self._whole_order, len(self.labels)
        self._whole_order = None
        assert order is not None
        slots = sum(self._group_slots)
        addresses, own_order = np.empty(size * slots, np.int32), np.empty(size * slots, np.int32)
        shared, before = [], 0
        for segments, own_slots in zip(self._whole.segments, self._group_slots, strict=True):
            most = len(segments.starts)
            rows, bits, starts = np.empty(most, np.int32), np.empty(most, np.uint8), np.empty(most, np.int32)
            num_rows, num_own = cut_group(
                order, segments.starts, segments.addresses, self._num_slices * size * before,
                self._num_slices * size * (before + own_slots), self.number, size * slots, size * before,
                addresses, own_order, rows, bits, starts, np.empty_like(starts),
            )  # fmt: skip
            before += own_slots
            listed = ExchangeList(rows[:num_rows], bits[:num_rows], self._num_slices)
            shared.append(SharedRows(listed=listed, own_starts=starts[:num_own], own_end=size * before))
        # Read-only as those from files are: loops would be compiled again for another type.
        return _Cut(addresses=read_only(addresses), order=read_only(own_order), shared_rows=tuple(shared))
