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
def list_moves(source, num_hot_rows, first_row, moves):
    """Write down what `find_forwards` marked.

    Parameters
    ----------
    source
        As `find_forwards` left it: staging rows.
    num_hot_rows, first_row
        Row of the bank of staging row 0; of the batch's own first row.
    moves
        int32: how many, one spare, then pairs of a row of the bank to read and one to write; written.

    Examples
    --------
    >>> import numpy as np
    >>> moves = np.zeros(8, np.int32)
    >>> list_moves(np.array([-1, 100, 102], np.int32), 10, 1000, moves)
    >>> moves.tolist()
    [2, 0, 110, 1001, 112, 1002, 0, 0]
    """
    place = 2
    for i in range(source.size):
        if source[i] >= 0:
            moves[place] = source[i] + num_hot_rows
            moves[place + 1] = i + first_row
            place += 2
    moves[0] = (place - 2) // 2
