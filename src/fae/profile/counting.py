"""The compiled loops over a block of inputs: count accesses, and tell hot inputs from cold ones.

Place in the flow: profile counts, calibrate classifies. Invariant: threads work on disjoint tables (counting) or
disjoint inputs (classifying), so the results are the same bytes for any number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from fae.artifacts.columnar_log import FeatureSchema, first_slots
from fae.core.threads import run_ranges
from fae.profile.sampling import SampledInputs


@njit(cache=True, nogil=True)
def count_kernel(ids: Any, slot_offsets: Any, counts: Any, first_slot: int, last_slot: int) -> None:
    """Add one to ``counts[slot_offsets[s] + ids[b, s]]`` for the slots ``[first_slot, last_slot)``; -1 is skipped."""
    for b in range(ids.shape[0]):
        for s in range(first_slot, last_slot):
            row = ids[b, s]
            if row >= 0:
                counts[slot_offsets[s] + row] += 1


@njit(cache=True, nogil=True)
def classify_kernel(
    ids: Any, slot_offsets: Any, ranks: Any, num_hot_of_slot: Any, lookups: Any, hot_lookups: Any, start: int, stop: int
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
                rank = ranks[slot_offsets[s] + row] if by_rank else row
                if rank < num_hot_of_slot[s]:
                    num_hot += 1
        lookups[b] = num_lookups
        hot_lookups[b] = num_hot


def slot_offsets(features: Sequence[FeatureSchema]) -> npt.NDArray[np.int64]:
    """int64 ``[S]``: where the table of each slot begins in the flat arrays (`ColumnarLog.counts` and the like)."""
    sizes = [feature.num_embeddings for feature in features]
    begins = np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(np.int64)
    return np.repeat(begins, [feature.length for feature in features])


def count_accesses(
    inputs: SampledInputs, features: Sequence[FeatureSchema], advance: Any = None
) -> npt.NDArray[np.int64]:
    """Accesses of every row by these inputs.

    Parameters
    ----------
    advance
        Called with the number of inputs after each block, for progress.

    Returns
    -------
    numpy.ndarray
        int64 ``[sum of num_embeddings]``, table by table.
    """
    offsets, slots = slot_offsets(features), first_slots(features)
    counts = np.zeros(sum(feature.num_embeddings for feature in features), np.int64)
    for ids, _ in inputs.blocks():

        def count(first: int, last: int, ids: npt.NDArray[np.int32] = ids) -> None:
            count_kernel(ids, offsets, counts, slots[first], slots[last])

        run_ranges(count, len(features))
        if advance is not None:
            advance(len(ids))
    return counts


def count_hot_lookups(
    ids: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    ranks: npt.NDArray[np.int32] | None,
    num_hot_of_slot: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Lookups and hot lookups of each input of a block, int32 ``[b]`` each.

    Parameters
    ----------
    ranks
        int32 ``[sum of num_embeddings]``: storage rank of every id, table by table; None for the identity.
    """
    flat = np.empty(0, np.int32) if ranks is None else ranks
    lookups, hot_lookups = np.empty(len(ids), np.int32), np.empty(len(ids), np.int32)

    def classify(start: int, stop: int) -> None:
        classify_kernel(ids, offsets, flat, num_hot_of_slot, lookups, hot_lookups, start, stop)

    run_ranges(classify, len(ids), min_range=1024)
    return lookups, hot_lookups
