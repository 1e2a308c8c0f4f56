"""From vocabulary ids to storage ranks, and from ranks to hot and cold inputs: the first step of pack.

Invariant: an input is hot if and only if every lookup of it has ``rank < num_hot`` of its table; -1 (an unused slot)
is no lookup. Ranks stay int32 and are computed table by table in place: a table of all row numbers would be 8 bytes a
row beside tables of hundreds of millions of rows. Does not form batches.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from fae.artifacts.row_layout import RowLayout
from fae.core.threads import run_ranges

_BLOCK_INPUTS = 8192  # inputs copied at a time by `classify`: their ids stay in a core's second-level cache


@njit(cache=True, nogil=True)
def _apply_ranks(
    ids: npt.NDArray[np.int32], first_slot: int, last_slot: int, ranks: npt.NDArray[np.int32], start: int, stop: int
) -> None:
    for i in range(start, stop):
        for s in range(first_slot, last_slot):
            if ids[i, s] >= 0:
                ids[i, s] = ranks[ids[i, s]]


@njit(cache=True, nogil=True)
def _classify(
    ranks: npt.NDArray[np.int32], num_hot: npt.NDArray[np.int64], hot: npt.NDArray[np.bool_]
) -> tuple[int, int]:
    lookups, hot_lookups = 0, 0
    for i in range(ranks.shape[0]):
        used, warm = 0, 0
        for s in range(ranks.shape[1]):
            rank = ranks[i, s]
            if rank >= 0:
                used += 1
                if rank < num_hot[s]:
                    warm += 1
        hot[i] = used == warm
        lookups += used
        hot_lookups += warm
    return lookups, hot_lookups


class LookupCounts(NamedTuple):
    """Lookups (unused slots left out) and how many of them the hot set serves."""

    lookups: int
    hot_lookups: int


def slot_values(layout: RowLayout, per_table: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """One value per table, ``[F]``, turned into one per slot, int64 ``[S]``."""
    values: npt.NDArray[np.int64] = np.asarray(per_table, np.int64)[layout.table_of_slot]
    return values


def to_ranks(ids: npt.NDArray[np.int32], layout: RowLayout, start: int = 0, stop: int | None = None) -> None:
    """Replace vocabulary ids by storage ranks, in place.

    Parameters
    ----------
    ids
        int32 ``[n, S]``, writable; -1 stays -1.
    start, stop
        Inputs to work on; all of them where left out.
    """
    for table, ranks in enumerate(layout.ranks):
        if ranks is not None:
            first, last = layout.first_slots[table], layout.first_slots[table + 1]
            # A plain view of what may be a memory map: compiled loops take it with less ado.
            _apply_ranks(ids, first, last, np.asarray(ranks), start, len(ids) if stop is None else stop)


def translate_inputs(ids: npt.NDArray[np.int32], layout: RowLayout) -> npt.NDArray[np.int64]:
    """Row numbers of inputs' lookups, each within its slot's group.

    Parameters
    ----------
    ids
        int32 ``[n, S]`` vocabulary ids, -1 in unused slots.

    Returns
    -------
    int64 ``[n, S]``, -1 in unused slots.
    """
    ranks = np.array(ids, np.int32, order="C")
    to_ranks(ranks, layout)
    num_hot = slot_values(layout, layout.num_hot)
    hot_rows = ranks + slot_values(layout, layout.hot_base)
    cold_rows = ranks + (slot_values(layout, layout.cold_base) - num_hot)
    rows: npt.NDArray[np.int64] = np.where(ranks < 0, -1, np.where(ranks < num_hot, hot_rows, cold_rows))
    return rows


def classify(ids: npt.NDArray[np.int32], layout: RowLayout) -> tuple[npt.NDArray[np.bool_], LookupCounts]:
    """Tell hot inputs from cold ones.

    Parameters
    ----------
    ids
        int32 ``[n, S]`` vocabulary ids, -1 in unused slots; may be a read-only memory map.

    Returns
    -------
    hot
        bool ``[n]``.
    counts
        Of all their lookups.
    """
    hot = np.zeros(len(ids), np.bool_)
    num_hot = slot_values(layout, layout.num_hot)
    counts: list[tuple[int, int]] = []  # appended by several threads: only their sum is used

    def work(start: int, stop: int) -> None:
        for first in range(start, stop, _BLOCK_INPUTS):
            last = min(first + _BLOCK_INPUTS, stop)
            ranks = np.array(ids[first:last], np.int32, order="C")
            to_ranks(ranks, layout)
            counts.append(_classify(ranks, num_hot, hot[first:last]))

    run_ranges(work, len(ids), min_range=_BLOCK_INPUTS)
    return hot, LookupCounts(sum(used for used, _ in counts), sum(warm for _, warm in counts))
