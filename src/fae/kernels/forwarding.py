"""Which cold rows of a batch another batch in flight already lists. Pure function on sorted lists."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit


@njit(cache=True, nogil=True)
def _find_forwards(rows, earlier, base, source):
    i, j = 0, 0
    while i < rows.size and j < earlier.size:
        row, other = rows[i], earlier[j]
        marked = source[i]
        # No branch: which list is behind cannot be foreseen, and a wrong guess costs more than the step.
        source[i] = base + j if (row == other) & (marked < 0) else marked
        i += row <= other
        j += other <= row


def find_forwards(
    rows: npt.NDArray[np.int64], earlier: npt.NDArray[np.int64], base: int, source: npt.NDArray[np.int64]
) -> None:
    """Mark the rows that an earlier batch lists too, unless a later one already took the mark.

    Parameters
    ----------
    rows, earlier
        Ascending unique row numbers of the batch and of the earlier one.
    base
        First staging row of the earlier batch's slot.
    source
        int64, as long as `rows`: staging row to forward from, -1 for none; written in place. Call for the latest
        earlier batch first.

    Examples
    --------
    >>> source = np.full(3, -1)
    >>> find_forwards(np.array([4, 7, 9]), np.array([7, 8, 9]), 100, source)
    >>> source.tolist()
    [-1, 100, 102]
    """
    _find_forwards(rows, earlier, base, source)


@njit(cache=True, nogil=True)
def _list_moves(source, origin_shift, place_shift, origins, places):
    count = 0
    for i in range(source.size):
        if source[i] >= 0:
            origins[count] = source[i] + origin_shift
            places[count] = i + place_shift
            count += 1
    return count


def list_moves(
    source: npt.NDArray[np.int64],
    origin_shift: int,
    place_shift: int,
    origins: npt.NDArray[np.int32],
    places: npt.NDArray[np.int32],
) -> int:
    """Write down what `find_forwards` marked as rows to read and rows to write; returns how many.

    Examples
    --------
    >>> origins, places = np.zeros((2, 3), np.int32)
    >>> list_moves(np.array([-1, 100, 102]), 10, 1000, origins, places), origins.tolist(), places.tolist()
    (2, [110, 112, 0], [1001, 1002, 0])
    """
    return int(_list_moves(source, origin_shift, place_shift, origins, places))
