"""The compiled loops over a block of inputs: count accesses, and tell hot inputs from cold ones.

Threads count different rows, or classify different inputs, so the results are the same bytes for any number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fae.artifacts.addressing import SlotMap, map_slots
from fae.artifacts.columnar_log import FeatureSchema
from fae.core.compiled import njit, read_only
from fae.core.threads import num_threads, run_jobs, run_ranges
from fae.profile.sampling import BLOCK_INPUTS, SampledInputs

_PIECE_BYTES = 32 * 2**20
"""Ids that are read before they are counted: all threads read them, then all count, so a piece is many blocks."""

_EVERYTHING = 1 << 62


@njit(cache=True, nogil=True)
def count_kernel(
    ids: Any, slot_first_row: Any, counts: Any, first_slot: int, last_slot: int, part: int, mask: int
) -> None:
    """Add one to ``counts[slot_first_row[s] + ids[b, s]]`` for the slots ``[first_slot, last_slot)``; -1 is skipped.

    Only rows are counted whose number, divided by 8, is `part` in the bits of `mask`: eight counts are a cache line.
    """
    for b in range(ids.shape[0]):
        for s in range(first_slot, last_slot):
            row = ids[b, s]
            if row >= 0 and (row >> 3) & mask == part:
                counts[slot_first_row[s] + row] += 1


class SlotShare(NamedTuple):
    """Slots that one thread follows: ``[first, last)``, and which rows of their tables (see `count_kernel`)."""

    first: int
    last: int
    part: int = 0
    mask: int = 0


def share_slots(first_slots: Sequence[int], threads: int) -> list[list[SlotShare]]:
    """Share the slots of tables out to threads, so that no two threads meet in one row.

    A table with many slots, such as a history of clicks, is shared by rows: each of its threads reads all its slots.

    Parameters
    ----------
    first_slots
        First slot of each table; the last entry is the number of slots.

    Returns
    -------
    list
        For each thread that has something to do, its shares.

    Examples
    --------
    >>> share_slots([0, 1, 2, 3, 4], 2)
    [[SlotShare(first=0, last=2, part=0, mask=0)], [SlotShare(first=2, last=4, part=0, mask=0)]]
    >>> [[tuple(share) for share in of_thread] for of_thread in share_slots([0, 7, 8], 2)]
    [[(0, 7, 0, 1)], [(0, 7, 1, 1), (7, 8, 0, 0)]]
    """
    num_slots, before = first_slots[-1], 0.0
    shares: list[tuple[int, SlotShare]] = []
    for first, last in pairwise(first_slots):
        parts = 1
        while threads > 1 and 2 * threads * (last - first) > 3 * parts * num_slots:  # above 1.5 times a fair share
            parts *= 2
        for part in range(parts):
            weight = (last - first) / parts
            thread = min(threads - 1, int(threads * (before + weight / 2) / num_slots))
            shares.append((thread, SlotShare(first, last, part, parts - 1)))
            before += weight
    return [_joined([share for _, share in of_thread]) for _, of_thread in groupby(shares, lambda each: each[0])]


def _joined(shares: list[SlotShare]) -> list[SlotShare]:
    """The same shares, those of whole tables that are neighbours as one."""
    joined: list[SlotShare] = []
    for share in shares:
        if joined and not joined[-1].mask and not share.mask:
            joined[-1] = SlotShare(joined[-1].first, share.last)
        else:
            joined.append(share)
    return joined


def add_accesses(
    ids: npt.NDArray[np.int32],
    slot_first_row: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    first_slots: Sequence[int],
) -> None:
    """Add accesses to `counts`, on all threads.

    Parameters
    ----------
    ids
        int32 ``[b, S]``, -1 where there is no lookup.
    slot_first_row
        int64 ``[S]``: where the counts of each slot's table begin.
    counts
        int64: one for each row of all tables.
    first_slots
        First slot of each table; the last entry is S. No two tables share counts.
    """

    def count(shares: list[SlotShare]) -> None:
        for first in range(0, len(ids), BLOCK_INPUTS):
            for share in shares:
                count_kernel(
                    read_only(ids[first : first + BLOCK_INPUTS]), slot_first_row, counts, share.first, share.last,
                    share.part, share.mask,
                )  # fmt: skip

    run_jobs([partial(count, shares) for shares in share_slots(first_slots, num_threads())])


@njit(cache=True, nogil=True)
def classify_kernel(
    ids: Any, slot_first_row: Any, ranks: Any, slot_num_hot: Any, lookups: Any, hot_lookups: Any, start: int, stop: int
) -> None:
    """Count the lookups and the hot lookups of the inputs ``[start, stop)``; an empty `ranks` is the identity."""
    by_rank = ranks.size > 0
    for b in range(start, stop):
        num_lookups = 0
        num_hot = 0
        for s in range(ids.shape[1]):
            row = ids[b, s]
            if row >= 0:
                num_lookups += 1
                rank = ranks[slot_first_row[s] + row] if by_rank else row
                if rank < slot_num_hot[s]:
                    num_hot += 1
        lookups[b] = num_lookups
        hot_lookups[b] = num_hot


def count_accesses(
    inputs: SampledInputs, features: Sequence[FeatureSchema], advance: Any = None
) -> npt.NDArray[np.int64]:
    """Count the accesses of every row by these inputs.

    Parameters
    ----------
    advance
        Called with the number of inputs after each block, for progress.

    Returns
    -------
    numpy.ndarray
        int64 ``[sum of num_embeddings]``, table by table.
    """
    slots = map_slots(features)
    first_slots = slots.table_first_slot.tolist()
    counts = np.zeros(slots.num_rows, np.int64)
    step = max(BLOCK_INPUTS, _PIECE_BYTES // (4 * max(1, slots.num_slots)))
    for start in range(0, len(inputs), step):
        stop = min(start + step, len(inputs))
        ids, _ = inputs.part(start, stop).cached(limit_bytes=_EVERYTHING).block(0, stop - start)
        add_accesses(ids, slots.slot_first_row, counts, first_slots)
        if advance is not None:
            advance(len(ids))
    return counts


def count_hot_lookups(
    ids: npt.NDArray[np.int32],
    slots: SlotMap,
    ranks: npt.NDArray[np.int32] | None,
    slot_num_hot: npt.NDArray[np.int64],
    *,
    on_all_threads: bool = True,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Count the lookups and the hot lookups of each input of a block: int32 ``[b]`` each.

    Parameters
    ----------
    ranks
        int32 ``[sum of num_embeddings]``: storage rank of every id, table by table; None for the identity.
    slot_num_hot
        int64 ``[S]``: hot rows of each slot's table.
    on_all_threads
        False in a thread that is one of many which share the inputs.
    """
    flat = np.empty(0, np.int32) if ranks is None else ranks
    lookups, hot_lookups = np.empty(len(ids), np.int32), np.empty(len(ids), np.int32)

    def classify(start: int, stop: int) -> None:
        classify_kernel(read_only(ids), slots.slot_first_row, flat, slot_num_hot, lookups, hot_lookups, start, stop)

    if on_all_threads:
        run_ranges(classify, len(ids), min_range=1024)
    else:
        classify(0, len(ids))
    return lookups, hot_lookups
