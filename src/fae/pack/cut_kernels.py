"""The compiled loops of pack that decide where a batch ends: full, or before the cold row that no longer fits.

Cutting is the one step that has to take inputs one after the other, so the lookups of cold rows are listed beforehand,
by several threads: the cut then reads these lists alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fae.artifacts.addressing import Addressing
from fae.core.compiled import Int64, njit

Int32 = npt.NDArray[np.int32]


class SeenRows(NamedTuple):
    """An open-addressing set of cold rows (by flat row number), emptied by raising a stamp, not by clearing memory.

    Entry i holds ``keys[i]`` where ``stamps[i]`` is the current stamp, and is free where it is an older one.
    """

    keys: Int64
    stamps: Int64


def make_seen_rows(capacity: int) -> SeenRows:
    """A set for up to `capacity` rows, at most half full."""
    size = 1 << max(4, (2 * capacity).bit_length())
    return SeenRows(np.zeros(size, np.int64), np.zeros(size, np.int64))


class ColdLookups(NamedTuple):
    """The lookups of cold rows of up to N inputs, one input behind the other.

    Attributes
    ----------
    ends
        int64 ``[N]``: where the lookups of each input end.
    rows
        int64: flat row number (by storage rank) of each lookup.
    groups
        int32: its group.
    """

    ends: Int64
    rows: Int64
    groups: Int32


def make_cold_lookups(num_inputs: int, num_slots: int) -> ColdLookups:
    """Room for the lookups of that many inputs; memory is taken where it is written to."""
    num_lookups = num_inputs * num_slots
    return ColdLookups(np.empty(num_inputs, np.int64), np.empty(num_lookups, np.int64), np.empty(num_lookups, np.int32))


@njit(cache=True, nogil=True)
def list_cold_lookups(ranks: Int32, num_inputs: int, addressing: Addressing, lookups: ColdLookups) -> None:
    """Fill `lookups` from the storage ranks of inputs, int32 ``[>= num_inputs, S]``, -1 in unused slots."""
    count = 0
    for i in range(num_inputs):
        for s in range(ranks.shape[1]):
            rank = np.int64(ranks[i, s])
            if rank >= addressing.slot_num_hot[s]:  # neither hot nor -1
                lookups.rows[count] = addressing.slots.slot_first_row[s] + rank
                lookups.groups[count] = addressing.slot_group[s]
                count += 1
        lookups.ends[i] = count


class OpenBatch(NamedTuple):
    """The batch that is being filled.

    Attributes
    ----------
    begin
        int64 ``[1]``: its first input, counted from the beginning of the stream.
    stamp
        int64 ``[1]``: its number in `SeenRows`; raised by every batch.
    counts
        int64 ``[G]``: its unique cold rows.
    """

    begin: Int64
    stamp: Int64
    counts: Int64


def make_open_batch(num_groups: int) -> OpenBatch:
    """A batch before the first input."""
    return OpenBatch(np.zeros(1, np.int64), np.ones(1, np.int64), np.zeros(num_groups, np.int64))


@njit(cache=True, nogil=True)
def cut_batches(
    first: int,
    num_inputs: int,
    lookups: ColdLookups,
    batch_size: int,
    staging_rows: Int64,
    seen: SeenRows,
    batch: OpenBatch,
    bounds: Int64,
) -> int:
    """Put inputs into the open batch, close it where it is full or the next input does not fit, open the next one.

    Parameters
    ----------
    first
        Place of the first of these inputs in the stream; those before it have been put into batches.
    lookups
        Their lookups of cold rows.
    staging_rows
        int64 ``[G]``: most unique cold rows of a batch; one input alone must fit.
    bounds
        int64 ``[>= num_inputs]``, filled: the places at which batches were closed.

    Returns
    -------
    How many batches were closed.
    """
    mask = seen.keys.size - 1
    begin, stamp, counts = batch.begin[0], batch.stamp[0], batch.counts
    closed, i = 0, 0
    while i < num_inputs:
        fits = True
        for lookup in range(lookups.ends[i - 1] if i > 0 else 0, lookups.ends[i]):
            key = lookups.rows[lookup]
            # 31 bits times 32 bits: a product that never leaves int64, compiled or not.
            place = ((((key ^ (key >> 31)) & 0x7FFFFFFF) * 0x9E3779B1) >> 24) & mask
            while seen.stamps[place] == stamp and seen.keys[place] != key:
                place = (place + 1) & mask
            if seen.stamps[place] != stamp:
                seen.stamps[place] = stamp
                seen.keys[place] = key
                group = lookups.groups[lookup]
                counts[group] += 1
                if counts[group] > staging_rows[group]:
                    fits = False
                    break
        if fits:
            i += 1
        if not fits or first + i - begin == batch_size:
            bounds[closed] = first + i
            closed += 1
            begin = first + i
            stamp += 1
            counts[:] = 0
    batch.begin[0], batch.stamp[0] = begin, stamp
    return closed
