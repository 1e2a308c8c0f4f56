"""The compiled loops of pack that read inputs: all columns of many inputs in one call, in any order.

Inputs lie at random places of a log that is larger than every cache, so the places of those that come next are
prefetched.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fae.artifacts.addressing import Addressing
from fae.core.compiled import Int64, njit
from fae.core.compiling.prefetch import prefetch
from fae.pack.cut_kernels import ColdLookups, find_cold, list_cold_lookups, make_cold_scratch
from fae.pack.memory_access import copy_numbers
from fae.pack.rank_tables import ids_to_ranks

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]

_AHEAD = 16  # inputs whose places are prefetched
_PART_INPUTS = 128  # whose ranks stay in a core's first-level cache until all of them are found
_LINE = 16  # numbers of four bytes in a cache line


class LoopColumns(NamedTuple):
    """The columns of inputs beside their ids, as compiled loops take them.

    Attributes
    ----------
    dense
        float32 ``[n, K]``.
    labels
        uint8 ``[n]``.
    log_positions
        int64 ``[n]``: position of each in the log; of length 0 where they follow each other.
    weights
        float32 ``[n]``; of length 0 where the log has none.
    """

    dense: Float32
    labels: npt.NDArray[np.uint8]
    log_positions: Int64
    weights: Float32


@njit(nogil=True)
def classify_inputs(
    ids: Int32,
    labels: npt.NDArray[np.uint8],
    slots: Int64,
    addresses: Int64,
    num_hot: Int64,
    hot: npt.NDArray[np.bool_],
    counts: Int64,
) -> None:
    """Tell hot inputs from the others, and count.

    Parameters
    ----------
    ids, labels
        int32 ``[n, S]`` and uint8 ``[n]``.
    slots, addresses
        Of `fae.pack.rank_tables.RankTables`.
    num_hot
        int64 ``[S]``: hot rows of each slot's table.
    hot
        bool ``[n]``, filled.
    counts
        int64 ``[5]``, added to: lookups, hot lookups, hot inputs, labels of 1, those of hot inputs.
    """
    num_inputs, num_slots = ids.shape
    scratch = make_cold_scratch(num_hot)
    part = scratch.counts.size
    ranks = np.empty((part, num_slots), np.int32)
    flat, filled = ids.reshape(-1), ranks.reshape(-1)
    for start in range(0, num_inputs, part):
        count = min(part, num_inputs - start)
        size = count * num_slots
        own, used = flat[start * num_slots : start * num_slots + size], np.int32(0)
        for place in range(size):
            filled[place] = own[place]
            used += np.int32(own[place] >= 0)
        ids_to_ranks(ranks[:count], slots, addresses)
        num_cold = find_cold(filled[:size], count, scratch)
        hot_inputs, clicks, hot_clicks = 0, 0, 0
        for i in range(count):
            is_hot, clicked = scratch.counts[i] == 0, labels[start + i] != 0
            hot[start + i] = is_hot
            hot_inputs += is_hot
            clicks += clicked
            hot_clicks += is_hot & clicked
        for place, number in enumerate((used, used - num_cold, hot_inputs, clicks, hot_clicks)):
            counts[place] += number


@njit(nogil=True)
def gather_ranks(
    ids: Int32, positions: Int64, start: int, stop: int, slots: Int64, addresses: Int64, ranks: Int32
) -> None:
    """Fill ``ranks[start:stop]``, int32 ``[>= stop, S]``, with the storage ranks of the inputs at
    ``positions[start:stop]``; -1 in unused slots. Few enough inputs for a core's first-level cache."""
    num_slots = ids.shape[1]
    flat, filled = ids.reshape(-1), ranks.reshape(-1)
    for i in range(start, stop):
        if i + _AHEAD < positions.size:
            first = positions[i + _AHEAD] * num_slots
            for line in range(0, num_slots, _LINE):
                prefetch(flat, first + line)
            prefetch(flat, first + num_slots - 1)
        position = positions[i]
        copy_numbers(flat, position * num_slots, num_slots, filled, i * num_slots)
    ids_to_ranks(ranks[start:stop], slots, addresses)


@njit(nogil=True)
def read_ranks(ids: Int32, positions: Int64, slots: Int64, addresses: Int64, ranks: Int32) -> None:
    """Fill int32 ``[>= n, S]`` with the storage ranks of the inputs at n positions."""
    for start in range(0, positions.size, _PART_INPUTS):
        gather_ranks(ids, positions, start, min(start + _PART_INPUTS, positions.size), slots, addresses, ranks)


@njit(nogil=True)
def read_block(
    ids: Int32,
    positions: Int64,
    slots: Int64,
    addresses: Int64,
    addressing: Addressing,
    ranks: Int32,
    lookups: ColdLookups,
) -> None:
    """Fill `ranks` as `read_ranks`, and `lookups` with their lookups of cold rows."""
    scratch = make_cold_scratch(addressing.slot_num_hot)
    part = scratch.counts.size
    for start in range(0, positions.size, part):
        stop = min(start + part, positions.size)
        gather_ranks(ids, positions, start, stop, slots, addresses, ranks)
        list_cold_lookups(ranks, start, stop, addressing, scratch, lookups)


@njit(nogil=True)
def gather_columns(
    columns: LoopColumns,
    first_index: int,
    positions: Int64,
    bounds: Int64,
    start: int,
    stop: int,
    dense: Float32,
    labels: Float32,
    index: Int64,
    weights: Float32,
) -> None:
    """Fill the batches ``[start, stop)`` of a group with what is not looked up, and their padding.

    Parameters
    ----------
    first_index
        Position in the log of the first input, where `columns` does not say it.
    positions, bounds
        Batch n has the inputs at ``positions[bounds[n] : bounds[n + 1]]``.
    dense, labels, index, weights
        float32 ``[N, B, K]``, float32 ``[N, B]``, int64 ``[N, B]`` and float32 ``[N, B]``, filled; weights only where
        there are some.
    """
    width, batch_size = dense.shape[2], labels.shape[1]
    flat, filled = columns.dense.reshape(-1), dense.reshape(-1)
    for batch in range(start, stop):
        first, count = bounds[batch], bounds[batch + 1] - bounds[batch]
        for b in range(count):
            if first + b + _AHEAD < positions.size:
                ahead = positions[first + b + _AHEAD]
                if width > 0:
                    prefetch(flat, ahead * width)
                    prefetch(flat, ahead * width + width - 1)
                prefetch(columns.labels, ahead)
            position = positions[first + b]
            copy_numbers(flat, position * width, width, filled, (batch * batch_size + b) * width)
            labels[batch, b] = columns.labels[position]
            index[batch, b] = (
                columns.log_positions[position] if columns.log_positions.size > 0 else first_index + position
            )
        if columns.weights.size > 0:
            for b in range(count):
                weights[batch, b] = columns.weights[positions[first + b]]
            weights[batch, count:] = 0
        for b in range(count, batch_size):
            dense[batch, b, :] = 0
            labels[batch, b] = 0
            index[batch, b] = -1
