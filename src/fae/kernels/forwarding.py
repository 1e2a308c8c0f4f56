"""Which cold rows of a batch another batch in flight already lists. Pure function on sorted lists."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit


@njit(cache=True, nogil=True)
def _find_forwards(rows, earlier, base, source):
    j = 0
    for i in range(rows.size):
        while j < earlier.size and earlier[j] < rows[i]:
            j += 1
        if j < earlier.size and earlier[j] == rows[i] and source[i] < 0:
            source[i] = base + j


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
