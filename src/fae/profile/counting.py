"""The compiled loops over a block of inputs: count accesses, and tell hot inputs from cold ones.

Threads work on different tables (counting) or different inputs (classifying), so the results are the same bytes for any
number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.addressing import SlotMap, map_slots
from fae.artifacts.columnar_log import FeatureSchema
from fae.core.compiled import njit
from fae.core.threads import run_ranges
from fae.profile.sampling import SampledInputs


@njit(cache=True, nogil=True)
def count_kernel(ids: Any, slot_first_row: Any, counts: Any, first_slot: int, last_slot: int) -> None:
    """Add one to ``counts[slot_first_row[s] + ids[b, s]]`` for the slots ``[first_slot, last_slot)``; -1 is skipped."""
    for b in range(ids.shape[0]):
        for s in range(first_slot, last_slot):
            row = ids[b, s]
            if row >= 0:
                counts[slot_first_row[s] + row] += 1


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
    for ids, _ in inputs.blocks():

        def count(first: int, last: int, ids: npt.NDArray[np.int32] = ids) -> None:
            count_kernel(ids, slots.slot_first_row, counts, first_slots[first], first_slots[last])

        run_ranges(count, len(features))
        if advance is not None:
            advance(len(ids))
    return counts


def count_hot_lookups(
    ids: npt.NDArray[np.int32],
    slots: SlotMap,
    ranks: npt.NDArray[np.int32] | None,
    slot_num_hot: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Count the lookups and the hot lookups of each input of a block: int32 ``[b]`` each.

    Parameters
    ----------
    ranks
        int32 ``[sum of num_embeddings]``: storage rank of every id, table by table; None for the identity.
    slot_num_hot
        int64 ``[S]``: hot rows of each slot's table.
    """
    flat = np.empty(0, np.int32) if ranks is None else ranks
    lookups, hot_lookups = np.empty(len(ids), np.int32), np.empty(len(ids), np.int32)

    def classify(start: int, stop: int) -> None:
        classify_kernel(ids, slots.slot_first_row, flat, slot_num_hot, lookups, hot_lookups, start, stop)

    run_ranges(classify, len(ids), min_range=1024)
    return lookups, hot_lookups
