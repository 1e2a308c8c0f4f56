"""The chain of hot sets behind ``selection = "peeling"``.

Place in the flow: `fae.popularity.peeling` orders the rows, this turns the order into growing hot sets and into a
storage order; `fae.popularity.search` picks from it. Invariant: within each table a hot set is a prefix of the storage
order. Row widths may differ: rows are taken from the hot end while the bytes last.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fae.popularity.chain import PopularityTail
from fae.popularity.peeling import Peeled
from fae.popularity.tables import IntArray, Tables


class PeelingChain:
    """Growing hot sets by removal order: small tables first, then what was removed last, then what was not seen.

    Parameters
    ----------
    small
        The tables that were free, smallest first.
    """

    def __init__(self, tables: Tables, peeled: Peeled, small: tuple[int, ...]) -> None:
        self.tables, self.peeled, self.small = tables, peeled, small
        self._table = (np.searchsorted(tables.offsets, peeled.rows, side="right") - 1).astype(np.int32)
        self._ends = np.cumsum(tables.row_bytes[self._table])
        self._seen = np.bincount(self._table, minlength=len(tables)).astype(np.int64)
        self._is_seen = np.zeros(int(tables.offsets[-1]), bool)
        self._is_seen[peeled.rows] = True
        rest = []
        for table in range(len(tables)):
            if table in small:
                rest.append(np.empty(0, np.int64))
            else:
                unseen = ~_by_popularity(tables, self._is_seen, table)
                rest.append(tables.popular_counts(table)[unseen])
        self._tail = PopularityTail(tables, rest)

    @property
    def row_bytes(self) -> IntArray:
        """int64 ``[V]``: bytes of each peeled row."""
        return self.tables.row_bytes[self._table]

    def ranks(self) -> npt.NDArray[np.int32]:
        """int32, flat: storage rank of every id of every table; rows not seen follow by popularity."""
        tables = self.tables
        ranks = np.empty(int(tables.offsets[-1]), np.int32)
        by_table = np.argsort(self._table, kind="stable")
        first = np.concatenate([[0], np.cumsum(self._seen)])
        for table in range(len(tables)):
            seen = self.peeled.rows[by_table[first[table] : first[table + 1]]]
            ranks[seen] = np.arange(seen.size, dtype=np.int32)
            unseen = np.flatnonzero(~_by_popularity(tables, self._is_seen, table))
            order = tables.order(table)
            ids = unseen if order is None else order[unseen]
            ranks[tables.offsets[table] + ids] = np.arange(seen.size, tables.sizes[table], dtype=np.int32)
        return ranks

    def largest(self, num_bytes: int) -> IntArray:
        """int64 ``[F]``: hot rows of each table in the largest hot set of at most so many bytes."""
        num_hot = np.zeros(len(self.tables), np.int64)
        for table in self.small:
            table_bytes = int(self.tables.sizes[table] * self.tables.row_bytes[table])
            if table_bytes > num_bytes:
                return num_hot
            num_hot[table] = self.tables.sizes[table]
            num_bytes -= table_bytes
        taken = int(np.searchsorted(self._ends, num_bytes, side="right"))
        num_hot += np.bincount(self._table[:taken], minlength=len(self.tables))
        if taken == self._ends.size:
            num_hot += self._tail.largest(num_bytes - (int(self._ends[-1]) if taken else 0))
        return num_hot


def _by_popularity(tables: Tables, flags: npt.NDArray[np.bool_], table: int) -> npt.NDArray[np.bool_]:
    of_table, order = flags[tables.offsets[table] : tables.offsets[table + 1]], tables.order(table)
    return of_table if order is None else of_table[order]
