"""From counts over the training split to final ids.

Place in the flow: ingest's second pass, one table at a time. Invariants: among the values that keep an id of their own,
ids follow their counts downwards, ties in order of first appearance; rare values, and those that the training split
never shows, share the reserved id; every access of the training split is counted once. In a log that continues another
the first two hold for new values alone (`fae.ingest.continued_ids`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fae.ingest.scratch import Scratch
from fae.ingest.vocabulary import Int64, compiled

_COMMON = 1 << 16
"""Counts up to this are sorted by counting, in one pass without extra memory; the few above it by comparison."""
_STEP = 1 << 20


@compiled
def count_ids(ids: npt.NDArray[np.int32], first_slot: int, length: int, counts: Int64) -> int:
    """Count the provisional ids of one feature in ``ids [n, S]``; return how many inputs have none at all.

    `counts` has two entries more than there are values: id -2 (missing) and id -1 (no lookup) count at its end.
    """
    empty = 0
    for row in range(ids.shape[0]):
        if ids[row, first_slot] == -1:
            empty += 1
        for slot in range(first_slot, first_slot + length):
            counts[ids[row, slot]] += 1
    return empty


@compiled
def rank_common(counts: Int64, minimum: int, first: int, places: Int64, final: npt.NDArray[np.int32]) -> int:
    """Give ids from `first` on to values with ``minimum <= count < places.size``, by count downwards (stable).

    `places` is working memory, all zero. Values with a smaller count get -1. Returns the number of ids given in all.
    """
    limit = places.size
    for value in range(counts.size):
        if minimum <= counts[value] < limit:
            places[counts[value]] += 1
    free = first
    for count in range(limit - 1, -1, -1):
        num_values = places[count]
        places[count] = free
        free += num_values
    for value in range(counts.size):
        count = counts[value]
        if count < minimum:
            final[value] = -1
        elif count < limit:
            final[value] = places[count]
            places[count] += 1
    return free


@dataclass(frozen=True, kw_only=True)
class Numbering:
    """Final ids of one table.

    Attributes
    ----------
    final
        int32 ``[num_values + 2]``: final id of each provisional id; the last two entries answer for the ids -2
        (missing: the reserved id) and -1 (no lookup: -1), so that it can be indexed with them.
    num_embeddings, unknown_id
        As in `FeatureSchema`.
    counts
        int64 ``[num_embeddings]``: accesses in the training split.
    """

    final: npt.NDArray[np.int32]
    num_embeddings: int
    unknown_id: int
    counts: Int64


def _rank(counts: Int64, minimum: int, final: npt.NDArray[np.int32], common: int = _COMMON) -> int:
    """Number values with `minimum` accesses or more from 0 on, most accessed first, the others -1; return how many."""
    large = np.flatnonzero(counts >= max(common, minimum))
    final[large[np.argsort(-counts[large], kind="stable")]] = np.arange(len(large), dtype=np.int32)
    return int(rank_common(counts, minimum, len(large), np.zeros(common, np.int64), final))


def number_by_popularity(
    counts: Int64, minimum: int, scratch: Scratch, *, missing: int = 0, common: int = _COMMON
) -> Numbering:
    """Final ids in order of popularity, with the reserved id where its count puts it (after its equals).

    Parameters
    ----------
    counts
        int64 ``[num_values]`` by provisional id.
    minimum
        Values with fewer accesses share the reserved id.
    missing
        Accesses of the reserved id beside theirs.
    """
    num_values = len(counts)
    final = scratch.array(num_values + 2, np.int32)
    kept = _rank(counts, minimum, final[:num_values], common)
    rare_count, ahead = missing, 0
    for start in range(0, num_values, _STEP):
        part = counts[start : start + _STEP]
        rare_count += int(part[part < minimum].sum())
    for start in range(0, num_values, _STEP):
        part = counts[start : start + _STEP]
        ahead += int(((part >= minimum) & (part >= rare_count)).sum())
    unknown_id = ahead
    result = scratch.array(kept + 1, np.int64)
    result[unknown_id] = rare_count
    for start in range(0, num_values, _STEP):
        ids = final[start : min(start + _STEP, num_values)]
        rare = ids < 0
        ids[ids >= unknown_id] += 1
        ids[rare] = unknown_id
        result[ids[~rare]] = counts[start : start + _STEP][~rare]
    final[num_values:] = (unknown_id, -1)
    return Numbering(final=final, num_embeddings=kept + 1, unknown_id=unknown_id, counts=result)


def number_appended(counts: Int64, minimum: int, scratch: Scratch, *, known: int, unknown_id: int) -> Numbering:
    """Ids of a log that continues another: known values keep theirs, new ones follow behind, in order of popularity.

    Parameters
    ----------
    counts
        int64 ``[num_values]`` by provisional id.
    minimum
        *New* values with fewer accesses share the reserved id; known ones have earned theirs.
    known
        Provisional ids below it are the parent's values, in the order of their ids there.
    unknown_id
        The reserved id there and here, at most `known`.
    """
    num_values = len(counts)
    final = scratch.array(num_values + 2, np.int32)
    num_new = _rank(counts[known:], minimum, final[known:num_values])
    result = scratch.array(known + 1 + num_new, np.int64)
    result[unknown_id] = 0
    for start in range(0, num_values, _STEP):
        stop = min(start + _STEP, num_values)
        ids, places = final[start:stop], np.arange(start, stop)
        rare, old = (places >= known) & (ids < 0), places < known
        ids[~old] += known + 1
        ids[old] = places[old] + (places[old] >= unknown_id)
        ids[rare] = unknown_id
        result[ids[~rare]] = counts[start:stop][~rare]
        result[unknown_id] += int(counts[start:stop][rare].sum())
    final[num_values:] = (unknown_id, -1)
    return Numbering(final=final, num_embeddings=len(result), unknown_id=unknown_id, counts=result)


def number_encoded(
    counts: Int64,
    minimum: int,
    scratch: Scratch,
    *,
    missing: int = 0,
    own: npt.NDArray[np.bool_] | None = None,
) -> Numbering:
    """Ids as they are, for the numbers below ``len(counts)``; rare and missing ones share a reserved id above them.

    `own`, bool of any length up to ``len(counts)``, says which numbers have an id of their own however rare they are:
    those that a parent knows.
    """
    num_values = len(counts)
    final = scratch.array(num_values + 2, np.int32)
    result = scratch.array(num_values + 1, np.int64)
    rare_count = missing
    for start in range(0, num_values, _STEP):
        part = counts[start : start + _STEP]
        rare = part < minimum
        if own is not None:
            earned = own[start : start + len(part)]
            rare[: len(earned)] &= ~earned
        numbers = np.arange(start, start + len(part), dtype=np.int32)
        final[start : start + len(part)] = np.where(rare, np.int32(num_values), numbers)
        result[start : start + len(part)] = np.where(rare, 0, part)
        rare_count += int(part[rare].sum())
    result[num_values] = rare_count
    final[num_values:] = (num_values, -1)
    return Numbering(final=final, num_embeddings=num_values + 1, unknown_id=num_values, counts=result)
