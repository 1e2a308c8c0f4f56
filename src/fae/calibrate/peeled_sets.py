"""The nested hot sets behind ``selection = "peeling"``.

`fae.calibrate.peeling` orders the rows; this turns the order into growing hot sets and into a storage order, and
`fae.calibrate.budget_search` picks from it. Within each table a hot set is a prefix of the storage order. Row widths
may differ: rows are taken from the hot end while the bytes last.
"""

from __future__ import annotations

from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from fae.calibrate.nested_sets import PopularityTail
from fae.calibrate.peeling import Peeled
from fae.calibrate.table_facts import Tables
from fae.core.compiled import Int64
from fae.core.threads import run_jobs


class PeeledSets:
    """Growing hot sets by removal order: small tables first, then rows removed last, then rows that were not seen.

    Parameters
    ----------
    small
        The tables that were hot as a whole in the peeling, smallest first.
    """

    def __init__(self, tables: Tables, peeled: Peeled, small: tuple[int, ...]) -> None:
        self.tables, self.peeled, self.small = tables, peeled, small
        self._ends = np.cumsum(self.row_bytes)
        self._num_seen = np.bincount(peeled.table, minlength=len(tables)).astype(np.int64)
        seen = np.zeros(int(tables.offsets[-1]), bool)
        seen[peeled.rows] = True
        # Per table, the places in popularity order of the rows that were accessed but not seen. Rows that were never
        # accessed come after them all.
        self._unseen: list[Int64] = [np.empty(0, np.int64)] * len(tables)

        def list_unseen(table: int) -> None:
            of_table, order = seen[tables.offsets[table] : tables.offsets[table + 1]], tables.order(table)
            in_order = of_table if order is None else of_table[order]
            self._unseen[table] = np.flatnonzero(~in_order[: tables.num_accessed[table]]).astype(np.int64)

        run_jobs([partial(list_unseen, table) for table in range(len(tables))])

    @cached_property
    def row_bytes(self) -> Int64:
        """int64 ``[V]``: bytes of each peeled row."""
        return self.tables.row_bytes[self.peeled.table]

    @cached_property
    def _tail(self) -> PopularityTail:
        counts = [np.empty(0, np.int64)] * len(self.tables)

        def take(table: int) -> None:
            counts[table] = self.tables.popular_counts(table)[self._unseen[table]]

        run_jobs([partial(take, table) for table in range(len(self.tables)) if table not in self.small])
        return PopularityTail(self.tables, counts)

    def ranks(self) -> npt.NDArray[np.int32]:
        """int32, flat: storage rank of every id of every table; rows that were not seen follow by popularity."""
        tables = self.tables
        ranks = np.empty(int(tables.offsets[-1]), np.int32)
        by_table = np.argsort(self.peeled.table, kind="stable")
        first = np.concatenate([[0], np.cumsum(self._num_seen)])

        def rank(table: int) -> None:
            unseen, seen = self._unseen[table], self.peeled.rows[by_table[first[table] : first[table + 1]]]
            ranks[seen] = np.arange(seen.size, dtype=np.int32)
            of_table, order = ranks[tables.offsets[table] : tables.offsets[table + 1]], tables.order(table)
            accessed = int(tables.num_accessed[table])
            of_table[unseen if order is None else order[unseen]] = np.arange(seen.size, accessed, dtype=np.int32)
            never = slice(accessed, None) if order is None else order[accessed:]
            of_table[never] = np.arange(accessed, of_table.size, dtype=np.int32)

        run_jobs([partial(rank, table) for table in range(len(tables))])
        return ranks

    def largest(self, num_bytes: int) -> Int64:
        """int64 ``[F]``: hot rows of each table in the largest hot set of at most `num_bytes` bytes."""
        num_hot = np.zeros(len(self.tables), np.int64)
        for table in self.small:
            table_bytes = int(self.tables.sizes[table] * self.tables.row_bytes[table])
            if table_bytes > num_bytes:
                return num_hot
            num_hot[table] = self.tables.sizes[table]
            num_bytes -= table_bytes
        taken = int(np.searchsorted(self._ends, num_bytes, side="right"))
        num_hot += np.bincount(self.peeled.table[:taken], minlength=len(self.tables))
        if taken == self._ends.size:
            num_hot += self._tail.largest(num_bytes - (int(self._ends[-1]) if taken else 0))
        return num_hot
