"""The compiled loop of pack that decides where a batch ends: full, or before the cold row that no longer fits."""

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


@njit(cache=True, nogil=True)
def find_bounds(
    ranks: Int32,
    num_inputs: int,
    batch_size: int,
    addressing: Addressing,
    staging_rows: Int64,
    seen: SeenRows,
    stamp: int,
    bounds: Int64,
) -> tuple[int, int]:
    """Cut inputs into batches, each as long as its unique cold rows allow.

    Parameters
    ----------
    ranks
        int32 ``[>= num_inputs, S]``: storage ranks, -1 in unused slots.
    staging_rows
        int64 ``[G]``: most unique cold rows of a batch; one input alone must fit.
    stamp
        Any number that `seen` has not met yet; the next call takes the returned one.
    bounds
        int64 ``[most batches + 1]``, filled: batch i is ``[bounds[i], bounds[i + 1])``.

    Returns
    -------
    Number of batches that are closed (full, or ended by the next input), and the next stamp.
    """
    mask = seen.keys.size - 1
    counts = np.zeros(staging_rows.size, np.int64)
    bounds[0] = 0
    closed, begin, i = 0, 0, 0
    while i < num_inputs and closed < bounds.size - 1:
        fits = True
        for s in range(ranks.shape[1]):
            rank = np.int64(ranks[i, s])
            if rank < addressing.slot_num_hot[s]:  # hot, or -1
                continue
            key = addressing.slots.slot_first_row[s] + rank
            # 31 bits times 32 bits: a product that never leaves int64, compiled or not.
            place = ((((key ^ (key >> 31)) & 0x7FFFFFFF) * 0x9E3779B1) >> 24) & mask
            while seen.stamps[place] == stamp and seen.keys[place] != key:
                place = (place + 1) & mask
            if seen.stamps[place] != stamp:
                seen.stamps[place] = stamp
                seen.keys[place] = key
                group = addressing.slot_group[s]
                counts[group] += 1
                if counts[group] > staging_rows[group]:
                    fits = False
                    break
        if fits:
            i += 1
        if not fits or i - begin == batch_size:
            closed += 1
            bounds[closed] = i
            begin = i
            stamp += 1
            counts[:] = 0
    return closed, stamp + 1
