"""Layout of an input buffer: a block of int32 words that holds all that a GPU needs to know of one batch.

`fill_buffers` copies packed batches into pinned buffers as `InputLayout.table` says; one copy takes each to the device,
where every kernel of the step reads it through `InputViews`. Parts of variable size come after those of fixed size, and
the header says where. So a batch is one copy of exactly its own bytes, and one captured graph serves all batches.

`fae.kernels.input_views` lists the words of the header. Offsets in it (3, 4 and 5 of a group) count words from the
beginning of the buffer. Offset 6 counts int64 and points into the list that says where cold rows are, in the input
buffer or in other memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.artifacts.batch_arrays import BatchArrays, BatchSizes, SharedArrays
from fae.artifacts.packed import BatchSet
from fae.artifacts.stored.order_planes import plane_types
from fae.core.compiled import njit
from fae.kernels.input_views import InputViews, group_field
from fae.streaming.counters import copy_bytes, publish, reach

_ALIGN = 32  # words: pieces begin on a multiple of 128 bytes
# Torch computes with few unsigned types; the kernel takes all but bytes for signed ones, too.
_PLANE_TYPES: dict[type[np.generic], torch.dtype] = {np.uint8: torch.uint8, np.uint16: torch.int16}


def _aligned(words: Any) -> Any:
    return -(-words // _ALIGN) * _ALIGN


class InputLayout:
    """Where each part of a batch is in an input buffer, for batches of one shape.

    Parameters
    ----------
    with_cold_lists
        Whether input buffers hold the batch's lists of cold rows (every row is on the device); else staging slots have
        the lists, or rows have owners and slices have their places.
    with_weights
        Whether inputs have weights, which follow the labels.
    of_slices
        Whether batches are slices.
    rounds_dense
        Whether dense features are sent in bfloat16, as a model that rounds them before it uses them gets them.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        num_slots: int,
        num_dense: int,
        num_groups: int,
        with_cold_lists: bool,
        with_weights: bool = False,
        of_slices: bool = False,
        rounds_dense: bool = False,
    ) -> None:
        self.batch_size, self.num_slots, self.num_dense, self.num_groups = batch_size, num_slots, num_dense, num_groups
        self.with_cold_lists, self.with_weights, self.of_slices = with_cold_lists, with_weights, of_slices
        self._dense = _aligned(group_field(num_groups))
        self.rounds_dense = rounds_dense
        self._labels = _aligned(self._dense + -(-batch_size * num_dense * (2 if rounds_dense else 4) // 4))
        self._weights = _aligned(self._labels + batch_size)
        # Addresses of batches for evaluation, the order of others: addresses are derived from it on the device. Where
        # the order is in planes, lists begin behind these, and the buffer has room for whole lookups all the same.
        self._lookups = _aligned(self._weights + batch_size) if with_weights else self._weights
        self._lists = _aligned(self._lookups + batch_size * num_slots)
        self._planes = [self._lookups]
        for kind in plane_types(batch_size * num_slots).values():
            self._planes.append(_aligned(self._planes[-1] + -(-batch_size * num_slots * np.dtype(kind).itemsize // 4)))

    def num_words(self, batches: BatchSizes) -> int:
        """Words that the largest of these batches may need."""
        words = int(self._lists)
        for segments, long_rows in batches.most_segments:
            words += 2 * _aligned(segments) + _aligned(2 * long_rows)
        for rows, counts, further, places in batches.most_shared:
            words += _aligned(rows) + _aligned(-(-rows // 4)) + _aligned(counts) + _aligned(2 * further)
            words += _aligned(places)
        if self.with_cold_lists:
            words += sum(_aligned(2 * rows) for rows in batches.most_cold_rows)
        return words

    def views(self, words: Tensor) -> InputViews:
        """Cut an int32 buffer of at least `num_words` words into its parts."""
        size, slots, dense = self.batch_size, self.num_slots, self.num_dense
        dense_type = torch.bfloat16 if self.rounds_dense else torch.float32
        lookups = words[self._lookups : self._lookups + size * slots]
        planes = tuple(
            words[begin:].view(_PLANE_TYPES[kind])[: size * slots]
            for begin, kind in zip(self._planes[:-1], plane_types(size * slots).values(), strict=True)
        )
        return InputViews(
            words=words,
            longs=words[: len(words) // 2 * 2].view(torch.int64),
            addresses=lookups.view(size, slots),
            dense=words[self._dense : self._labels].view(dense_type)[: size * dense].view(size, dense),
            labels=words[self._labels : self._labels + size].view(torch.float32),
            order=lookups,
            planes=planes,
            weights=words[self._weights : self._weights + size].view(torch.float32) if self.with_weights else None,
            whole_weight=words[4:6].view(torch.float64) if self.with_weights and self.of_slices else None,
        )

    def table(
        self,
        batches: BatchSet,
        order: npt.NDArray[np.int64],
        *,
        slots: npt.NDArray[np.int64],
        slot_rows: Sequence[int],
        rates: npt.NDArray[np.float32],
        kept_shares: npt.NDArray[np.float32] | None = None,
    ) -> InputTable:
        """What to copy where, for each batch of `order`.

        Parameters
        ----------
        slots
            int64 ``[n]``: staging slot of each batch, -1 for none.
        slot_rows
            For each group, the rows of a slot. A cold address is shifted by the slots before the batch's own.
        rates
            float32 ``[n]``: learning rate of the rows in this step.
        kept_shares
            float32 ``[n]``: what weight decay leaves of a row in this step; None where there is no decay.
        """
        arrays = batches.arrays
        pieces = _Pieces(order)
        headers = np.zeros((len(order), group_field(self.num_groups)), np.int32)
        shared = arrays.shared
        headers[:, 0] = arrays.num_inputs[order]
        headers[:, 3] = headers[:, 0] if shared is None else shared.num_inputs[order]
        if shared is not None and shared.total_weights is not None:
            headers[:, 4:6] = shared.total_weights[order].view(np.int32).reshape(-1, 2)
        headers[:, 1] = rates.view(np.int32)
        if kept_shares is not None:
            headers[:, 2] = kept_shares.view(np.int32)
        pieces.add_fixed(arrays.rounded_dense if self.rounds_dense else arrays.dense, self._dense)
        pieces.add_fixed(arrays.labels, self._labels)
        if self.with_weights:
            assert arrays.weights is not None
            pieces.add_fixed(arrays.weights, self._weights)
        ends = np.full(len(order), self._add_lookups(pieces, arrays), np.int64)
        for group in range(self.num_groups):
            field = group_field(group)
            headers[:, field] = np.maximum(slots, 0) * slot_rows[group]
            headers[:, field + 7] = np.diff(arrays.cold_offsets[:, group])[order]
            for place, lists in enumerate(_segment_lists(batches, group, order)):
                headers[:, field + 3 + place] = ends
                counts = pieces.add_lists(lists, ends)
                if place != 1:
                    headers[:, field + 1 + place // 2] = counts // (1 + place // 2)
                ends = _aligned(ends + counts)
            if shared is not None:
                ends = _add_shared(pieces, headers, field, shared, group, order, ends)
            headers[:, field + 6] = ends // 2 if self.with_cold_lists else headers[:, field]
            if self.with_cold_lists:
                offsets = arrays.cold_offsets[:, group]
                counts = pieces.add_lists([(arrays.cold_rows[group], offsets[order], offsets[order + 1])], ends)
                ends = _aligned(ends + counts)
        return InputTable(headers=headers, pieces=pieces.table(), words=ends, sources=pieces.sources)

    def _add_lookups(self, pieces: _Pieces, arrays: BatchArrays) -> int:
        """Add addresses or the order; returns the word from which on lists are."""
        if arrays.order is None:
            assert arrays.addresses is not None
            pieces.add_fixed(arrays.addresses, self._lookups)
        elif not arrays.order.are_planes:
            pieces.add_fixed(arrays.order.parts[0], self._lookups)
        else:
            for part, place in zip(arrays.order.parts, self._planes[:-1], strict=True):
                pieces.add_fixed(part, place)
            return int(self._planes[-1])
        return int(self._lists)


@dataclass(frozen=True, kw_only=True)
class InputTable:
    """Where the bytes of n batches are and where they go.

    Attributes
    ----------
    headers
        int32 ``[n, words of a header]``.
    pieces
        int64 ``[n, pieces, 3]``: address in host memory, place in the input buffer (bytes), number of bytes.
    words
        int64 ``[n]``: words of the input buffer that the device needs.
    sources
        The arrays that the addresses point into.
    """

    headers: npt.NDArray[np.int32]
    pieces: npt.NDArray[np.int64]
    words: npt.NDArray[np.int64]
    sources: list[npt.NDArray[Any]]


Stretches = tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""An array and, for each batch, which numbers of it are the batch's: begin and end."""


class _Pieces:
    """Columns of `InputTable.pieces`."""

    def __init__(self, order: npt.NDArray[np.int64]) -> None:
        self._order = order
        self._columns: list[tuple[npt.NDArray[np.int64], ...]] = []
        self.sources: list[npt.NDArray[Any]] = []

    def add_fixed(self, array: npt.NDArray[Any], place: int) -> None:
        """Copy each batch's entry of an array ``[N, ...]`` to a fixed place (in words); each entry is contiguous."""
        assert not len(array) or array[0].flags.c_contiguous
        self.sources.append(_whole(array))
        size = array[:1].nbytes if len(array) else 0
        sources = array.ctypes.data + self._order * array.strides[0]
        self._columns.append((sources, np.full_like(sources, 4 * place), np.full_like(sources, size)))

    def add_lists(self, parts: list[Stretches], places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Copy each batch's stretch of the one array that has any for it; returns the words of the stretches."""
        sources, sizes = np.zeros_like(places), np.zeros_like(places)
        for array, begins, ends in parts:
            assert array.flags.c_contiguous
            self.sources.append(array)
            sources = np.where(ends > begins, array.ctypes.data + array.itemsize * begins, sources)
            sizes += array.itemsize * (ends - begins)
        self._columns.append((sources, 4 * places, sizes))
        return -(-sizes // 4)

    def table(self) -> npt.NDArray[np.int64]:
        return np.ascontiguousarray(np.array(self._columns, np.int64).transpose(2, 0, 1))


def _segment_lists(batches: BatchSet, group: int, order: npt.NDArray[np.int64]) -> list[list[Stretches]]:
    """Starts and addresses of the segments, and long rows, of a group: for hot batches and for the others."""
    arrays, num_hot = batches.arrays, batches.num_hot_batches
    lists: list[list[Stretches]] = [[], [], []]
    if arrays.segments is None:
        return lists
    hot_segments = arrays.hot_segments
    number_of_hot = num_hot if hot_segments is not None else 0
    is_hot = order < number_of_hot
    for part, chosen, first in ((hot_segments, is_hot, 0), (arrays.segments, ~is_hot, number_of_hot)):
        if part is None:
            continue
        index = np.where(chosen, order - first, 0)
        step = chosen.astype(np.int64)  # 0, so an empty stretch, for batches of the other kind
        offsets, long_offsets = part.offsets[:, group], 2 * part.long_offsets[:, group]
        for place, (array, of) in enumerate(
            ((part.starts, offsets), (part.addresses, offsets), (part.long_rows, long_offsets))
        ):
            lists[place].append((array[group], of[index], of[index + step]))
    return lists


def _add_shared(
    pieces: _Pieces,
    headers: npt.NDArray[np.int32],
    field: int,
    shared: SharedArrays,
    group: int,
    order: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Add what ranks share of a group, from the words `ends` on; returns where it ends."""
    if shared.place_offsets is not None:
        offsets = shared.place_offsets[:, group]
        headers[:, field + 15], headers[:, field + 16] = (offsets[order + 1] - offsets[order]), ends
        ends = _aligned(ends + pieces.add_lists([(shared.places[group], offsets[order], offsets[order + 1])], ends))
    if shared.offsets is None:  # not of the training split
        return ends
    assert shared.count_offsets is not None
    assert shared.further_offsets is not None
    assert shared.own_hot_rows is not None
    lists = (
        (shared.further[group], 2 * shared.further_offsets[:, group], 9),
        (shared.rows[group], shared.offsets[:, group], 11),
        (shared.bits[group], shared.offsets[:, group], 12),
        (shared.counts[group], shared.counts[group].shape[1] * shared.count_offsets[:, group], 13),
    )
    headers[:, field + 8] = np.diff(shared.further_offsets[:, group])[order]
    headers[:, field + 10] = np.diff(shared.offsets[:, group])[order]
    headers[:, field + 14] = shared.own_hot_rows[order, group]
    for array, offsets, word in lists:
        headers[:, field + word] = ends
        ends = _aligned(ends + pieces.add_lists([(array, offsets[order], offsets[order + 1])], ends))
    return ends


def _whole(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array, or the one that it is a part of every entry of."""
    if array.flags.c_contiguous:
        return array
    assert isinstance(array.base, np.ndarray)
    assert array.base.flags.c_contiguous
    return array.base


@njit(cache=True, nogil=True)
def fill_buffers(counters, own, freed, first, step, headers, pieces, buffers):
    """Copy the batches first, first + step, ... into pinned `buffers` (addresses).

    The counter `freed` says how many batches no longer need their buffer; batch p waits until it is ``p - depth + 1``.
    """
    depth = len(buffers)
    for position in range(first, len(headers), step):
        if not reach(counters, freed, position - depth + 1):
            return
        buffer = buffers[position % depth]
        copy_bytes(buffer, headers[position].ctypes.data, 4 * headers.shape[1])
        for piece in range(pieces.shape[1]):
            copy_bytes(buffer + pieces[position, piece, 1], pieces[position, piece, 0], pieces[position, piece, 2])
        publish(counters, own, position + 1)
