"""Nested hot sets: growing, from none to every row; a budget takes the largest that fits.

Both selections are lists of nested hot sets; `fae.calibrate.budget_search` picks from them. Such a list does not depend
on the budget, so the hot sets of growing budgets are nested.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from fae.calibrate.table_facts import Tables, num_at_least
from fae.core.compiled import Int64


class NestedSets(Protocol):
    """Growing hot sets in one storage order, each a part of the next."""

    def largest(self, num_bytes: int) -> Int64:
        """int64 ``[F]``: hot rows of each table in the largest hot set of at most `num_bytes` bytes."""
        ...


class PopularityTail:
    """Rows that the sample did not see but the training split did, most accessed first.

    The sample often sees fewer rows than the budget holds; ingest counted every access, so the next best rows are
    known. Rows without any access are never taken.

    Parameters
    ----------
    counts
        Per table, accesses of those rows in the training split, descending.
    """

    def __init__(self, tables: Tables, counts: Sequence[Int64]) -> None:
        self._tables, self._counts = tables, counts
        self._most = max((int(of_table[0]) for of_table in counts if of_table.size), default=0)
        self._known: dict[int, tuple[Int64, int]] = {}

    def _at_least(self, count: int) -> tuple[Int64, int]:
        """Rows of each table of this count or more, and their bytes; searches for other sizes begin with the same."""
        if count not in self._known:
            num_rows = np.array([num_at_least(of_table, count) for of_table in self._counts], np.int64)
            self._known[count] = num_rows, self._tables.bytes(num_rows)
        return self._known[count]

    def largest(self, num_bytes: int) -> Int64:
        """int64 ``[F]``: rows of each table; all rows of a higher count are taken before one of a lower count."""
        low, high = 1, self._most + 1  # the smallest count whose rows all fit lies in [low, high]
        while low < high:
            middle = (low + high) // 2
            if self._at_least(middle)[1] <= num_bytes:
                high = middle
            else:
                low = middle + 1
        at_least, num_taken_bytes = self._at_least(low)
        taken = at_least.copy()
        if low <= 1:
            return taken
        # Of the rows of the next lower count not all fit. They are equally good, so they are taken table by table.
        room = num_bytes - num_taken_bytes
        for table, wanted in enumerate(self._at_least(low - 1)[0] - taken):
            more = min(int(wanted), room // int(self._tables.row_bytes[table]))
            taken[table] += more
            room -= more * int(self._tables.row_bytes[table])
            if more < wanted:
                break
        return taken


def small_tables(tables: Tables, limit_bytes: int) -> Int64:
    """Tables of at most `limit_bytes` bytes, smallest first (the paper: tables under 1 MB are hot as a whole)."""
    sizes = tables.sizes * tables.row_bytes
    candidates = np.flatnonzero(sizes <= limit_bytes)
    return candidates[np.argsort(sizes[candidates], kind="stable")].astype(np.int64)
