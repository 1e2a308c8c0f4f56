"""Sums over the rows of every table, on all threads: the largest table alone may have a third of all rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from fae.core.threads import run_jobs

PIECE_ROWS = 2**19
"""Rows of a job: 4 MiB of counts."""


def sum_rows(of_piece: Callable[[int, int, int], int], table_offsets: npt.NDArray[np.int64]) -> list[int]:
    """Sum whole numbers over pieces of each table.

    Parameters
    ----------
    of_piece
        ``of_piece(table, first, last)`` is the number for the flat rows ``[first, last)`` of a table.
    table_offsets
        int64 ``[F + 1]``: first flat row number of each table.

    Returns
    -------
    list of int
        The sum of each table, exact.

    Examples
    --------
    >>> sum_rows(lambda table, first, last: last - first, np.array([0, 3, 3, 1_000_000]))
    [3, 0, 999997]
    """
    pieces = [
        (table, first, min(first + PIECE_ROWS, int(table_offsets[table + 1])))
        for table in range(len(table_offsets) - 1)
        for first in range(int(table_offsets[table]), int(table_offsets[table + 1]), PIECE_ROWS)
    ]
    results = [0] * len(pieces)

    def do(index: int) -> None:
        results[index] = of_piece(*pieces[index])

    run_jobs([partial(do, index) for index in range(len(pieces))])
    sums = [0] * (len(table_offsets) - 1)
    for (table, _, _), result in zip(pieces, results, strict=True):
        sums[table] += result
    return sums
