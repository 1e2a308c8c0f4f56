"""From vocabulary ids to storage ranks, and from ranks to hot and cold inputs: the first step of pack.

An input is hot if and only if every lookup of it has ``rank < num_hot`` of its table; -1 (an unused slot) is no lookup.
Ranks stay int32 and are computed table by table in place: a table of all row numbers would be 8 bytes a row beside
tables of hundreds of millions of rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fae.artifacts.row_layout import RowLayout
from fae.core.compiled import njit
from fae.core.threads import run_ranges

_BLOCK_INPUTS = 8192  # inputs copied at a time by `classify`: their ids stay in a core's second-level cache


@njit(cache=True, nogil=True)
def apply_ranks(
    ids: npt.NDArray[np.int32], first_slot: int, last_slot: int, ranks: npt.NDArray[np.int32], start: int, stop: int
) -> None:
    """Replace the ids of one table's slots by their ranks, in the inputs ``[start, stop)``."""
    for i in range(start, stop):
        for s in range(first_slot, last_slot):
            if ids[i, s] >= 0:
                ids[i, s] = ranks[ids[i, s]]


@njit(cache=True, nogil=True)
def classify_ranks(
    ranks: npt.NDArray[np.int32], num_hot: npt.NDArray[np.int64], hot: npt.NDArray[np.bool_]
) -> tuple[int, int]:
    """Fill `hot`, bool ``[n]``; returns the number of lookups and of hot lookups."""
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
            first, last = layout.slots.table_first_slot[table : table + 2].tolist()
            # A plain view of what may be a memory map: compiled loops take it faster.
            apply_ranks(ids, first, last, np.asarray(ranks), start, len(ids) if stop is None else stop)


def translate_inputs(ids: npt.NDArray[np.int32], layout: RowLayout) -> npt.NDArray[np.int64]:
    """Find the row number of every lookup, within its slot's group.

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
    addressing, num_hot = layout.addressing, layout.addressing.slot_num_hot
    hot_rows = ranks + addressing.table_hot_base[layout.table_of_slot]
    cold_rows = ranks + (addressing.table_cold_base[layout.table_of_slot] - num_hot)
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
        bool ``[n]``: which inputs are hot.
    counts
        Lookups and hot lookups of all n inputs.
    """
    hot = np.zeros(len(ids), np.bool_)
    num_hot = layout.addressing.slot_num_hot
    counts: list[tuple[int, int]] = []  # appended by several threads: only their sum is used

    def work(start: int, stop: int) -> None:
        for first in range(start, stop, _BLOCK_INPUTS):
            last = min(first + _BLOCK_INPUTS, stop)
            ranks = np.array(ids[first:last], np.int32, order="C")
            to_ranks(ranks, layout)
            counts.append(classify_ranks(ranks, num_hot, hot[first:last]))

    run_ranges(work, len(ids), min_range=_BLOCK_INPUTS)
    return hot, LookupCounts(sum(used for used, _ in counts), sum(warm for _, warm in counts))
