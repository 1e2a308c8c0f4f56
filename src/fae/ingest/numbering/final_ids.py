"""Final ids of one table, from the counts of its provisional ids in the training split.

Values that are frequent enough get ids by falling count, ties in order of first appearance. Rare values, and those
that the training split never shows, share the reserved id. Every access of the training split is counted once. In a
log that continues another, the order by count holds for new values only (`fae.ingest.continued_ids`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fae.core.compiled import Int64, compiled
from fae.core.errors import LogError
from fae.ingest.scratch import Scratch

_COMMON = 1 << 16
"""Counts below this are sorted by counting, in one pass without extra memory; the few others by comparison."""
_STEP = 1 << 20


@compiled
def count_ids(ids: npt.NDArray[np.int32], first_slot: int, length: int, counts: Int64) -> int:
    """Count the provisional ids of one feature in ``ids [n, S]``; return how many inputs have no id.

    `counts` has two entries more than there are values: the last two count id -2 (missing) and id -1 (no lookup).
    Returns -1 if there is an id beyond them.
    """
    empty, known = 0, counts.size - 2
    for row in range(ids.shape[0]):
        if ids[row, first_slot] == -1:
            empty += 1
        for slot in range(first_slot, first_slot + length):
            value = ids[row, slot]
            if value < -2 or value >= known:
                return -1
            counts[value] += 1
    return empty


def damaged_ids(column: str) -> LogError:
    """The error of an id that is in no table. Ingest keeps nothing of a log that ends with it."""
    return LogError(
        f"what ingest has written of the column {column!r} is damaged: ids.npy has an id that its table has not; type "
        "the same command again, which reads the log anew"
    )


@compiled
def rank_common(counts: Int64, minimum: int, first: int, places: Int64, final: npt.NDArray[np.int32]) -> int:
    """Give ids from `first` on to values with ``minimum <= count < places.size``, by falling count (stable).

    `places` is working memory, all zero. Values with a smaller count get -1. Returns the next free id.
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
        int32 ``[num_values + 2]``: final id of each provisional id. The last two entries are those of the ids -2
        (missing: the reserved id) and -1 (no lookup: -1), so that the array can be indexed with them.
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
    """Number the values with at least `minimum` accesses from 0 on, most accessed first; the others get -1.

    Returns how many were numbered.
    """
    large = np.flatnonzero(counts >= max(common, minimum))
    final[large[np.argsort(-counts[large], kind="stable")]] = np.arange(len(large), dtype=np.int32)
    return int(rank_common(counts, minimum, len(large), np.zeros(common, np.int64), final))


def number_by_popularity(
    counts: Int64, minimum: int, scratch: Scratch, *, missing: int = 0, common: int = _COMMON
) -> Numbering:
    """Final ids in order of popularity. The reserved id is placed by its count, after values with the same count.

    Parameters
    ----------
    counts
        int64 ``[num_values]`` by provisional id.
    minimum
        Values with fewer accesses share the reserved id.
    missing
        Accesses of missing values, which count for the reserved id too.
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
    """Final ids in a log that continues another: known values keep theirs, new ones follow in order of popularity.

    Parameters
    ----------
    counts
        int64 ``[num_values]`` by provisional id.
    minimum
        *New* values with fewer accesses share the reserved id; known values keep their ids.
    known
        Number of the parent's values. They have the first provisional ids, in the order of their ids in the parent.
    unknown_id
        The reserved id, the same in both logs; at most `known`.
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
    """Final ids of an encoded column: numbers below ``len(counts)`` stay, the reserved id is ``len(counts)``.

    Rare and missing numbers have the reserved id. `own`, bool of any length up to ``len(counts)``, is True for numbers
    that keep their id however rare they are: those that the parent knows.
    """
    num_values = len(counts)
    final = scratch.array(num_values + 2, np.int32)
    result = scratch.array(num_values + 1, np.int64)
    rare_count = missing
    for start in range(0, num_values, _STEP):
        part = counts[start : start + _STEP]
        rare = part < minimum
        if own is not None:
            kept = own[start : start + len(part)]
            rare[: len(kept)] &= ~kept
        numbers = np.arange(start, start + len(part), dtype=np.int32)
        final[start : start + len(part)] = np.where(rare, np.int32(num_values), numbers)
        result[start : start + len(part)] = np.where(rare, 0, part)
        rare_count += int(part[rare].sum())
    result[num_values] = rare_count
    final[num_values:] = (num_values, -1)
    return Numbering(final=final, num_embeddings=num_values + 1, unknown_id=num_values, counts=result)
