"""Which cold rows of a batch another batch in flight already lists. Pure loops over sorted lists."""

from __future__ import annotations

from numba import njit


@njit(cache=True, nogil=True)
def find_forwards(rows, earlier, first_row, source):
    """Mark the rows that an earlier batch lists too, unless a later one already took the mark.

    Parameters
    ----------
    rows, earlier
        Ascending unique row numbers of the batch and of the earlier one.
    first_row
        First staging row of the earlier batch's slot.
    source
        int32, as long as `rows`: staging row to forward from, -1 for none; written in place. Call for the latest
        earlier batch first.

    Examples
    --------
    >>> import numpy as np
    >>> source = np.full(3, -1, np.int32)
    >>> find_forwards(np.array([4, 7, 9]), np.array([7, 8, 9]), 100, source)
    >>> source.tolist()
    [-1, 100, 102]
    """
    i, j = 0, 0
    while i < rows.size and j < earlier.size:
        row, other = rows[i], earlier[j]
        marked = source[i]
        # No branch: which list is behind cannot be foreseen, and a wrong guess costs more than the step.
        source[i] = first_row + j if (row == other) & (marked < 0) else marked
        i += row <= other
        j += other <= row


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
