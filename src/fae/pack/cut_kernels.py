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

_PART_BYTES = 16384  # of the ranks that are worked on at a time


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


class ColdScratch(NamedTuple):
    """What one thread needs to find the lookups of cold rows in a part of P inputs.

    Attributes
    ----------
    limits, slots, owners
        int32 ``[P * S]``, of each lookup: the hot rows of its slot's table, its slot, its input.
    marks
        uint64: a byte a lookup, 1 where it is of a cold row.
    places
        int32: the lookups that are.
    counts
        int64 ``[P]``: how many each input has.
    """

    limits: Int32
    slots: Int32
    owners: Int32
    marks: npt.NDArray[np.uint64]
    places: Int32
    counts: Int64


@njit(nogil=True)
def make_cold_scratch(num_hot: Int64) -> ColdScratch:
    """Room for a part of inputs whose ranks stay in a core's first-level cache; `num_hot` is that of each slot."""
    num_slots = num_hot.size
    num_inputs = max(1, _PART_BYTES // (4 * num_slots))
    size = num_inputs * num_slots
    limits, slots, owners = np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size, np.int32)
    for place in range(size):
        owners[place], slots[place] = place // num_slots, place % num_slots
        limits[place] = num_hot[slots[place]]
    marks, places = np.empty((size + 7) // 8, np.uint64), np.empty(size + 8, np.int32)
    return ColdScratch(limits, slots, owners, marks, places, np.empty(num_inputs, np.int64))


@njit(nogil=True)
def find_cold(ranks: Int32, num_inputs: int, scratch: ColdScratch) -> int:
    """Find the lookups of cold rows of a part: those neither hot nor -1.

    Parameters
    ----------
    ranks
        int32 ``[num_inputs * S]``.

    Returns
    -------
    How many; the first ones of ``scratch.places`` are they, and ``scratch.counts`` has them by input.
    """
    marks, places, counts = scratch.marks.view(np.uint8), scratch.places, scratch.counts
    for place in range(ranks.size):
        marks[place] = np.uint8(ranks[place] >= scratch.limits[place])
    for place in range(ranks.size, 8 * ((ranks.size + 7) // 8)):
        marks[place] = 0
    found = 0
    for word in range((ranks.size + 7) // 8):
        if scratch.marks[word] != 0:
            for place in range(8 * word, 8 * word + 8):
                places[found] = place
                found += marks[place]
    counts[:num_inputs] = 0
    for number in range(found):
        counts[scratch.owners[places[number]]] += 1
    return found


@njit(nogil=True)
def list_cold_lookups(
    ranks: Int32, start: int, stop: int, addressing: Addressing, scratch: ColdScratch, lookups: ColdLookups
) -> None:
    """Continue `lookups` with those of the inputs ``[start, stop)``, from their storage ranks.

    Parameters
    ----------
    ranks
        int32 ``[>= stop, S]``, -1 in unused slots; of no more inputs than `scratch` has room for.
    """
    num_slots = ranks.shape[1]
    own = ranks.reshape(-1)[start * num_slots : stop * num_slots]
    found = find_cold(own, stop - start, scratch)
    count = lookups.ends[start - 1] if start > 0 else 0
    for number in range(found):
        place = scratch.places[number]
        slot = scratch.slots[place]
        lookups.rows[count + number] = addressing.slots.slot_first_row[slot] + own[place]
        lookups.groups[count + number] = addressing.slot_group[slot]
    for i in range(start, stop):
        count += scratch.counts[i - start]
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
