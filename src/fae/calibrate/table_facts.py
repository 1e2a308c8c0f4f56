"""What calibrate needs to know of every table: size, bytes of a row, accesses in the training split, popularity order.

Calibrate builds it once; both selections read it. The counts in `popular_counts` never rise along a table, so a row
that was never accessed comes after every row that was.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from fae.artifacts.addressing import group_by_dim, map_slots
from fae.artifacts.columnar_log import FeatureSchema
from fae.core.compiled import Int64
from fae.core.optimizers import row_bytes
from fae.core.threads import run_jobs
from fae.profile.row_sums import sum_rows


def num_at_least(descending: Int64, count: int) -> int:
    """Count the entries of a descending array that are `count` or more, by binary search (works on a memory map).

    >>> num_at_least(np.array([9, 5, 5, 1]), 5)
    3
    """
    return descending.size - int(np.asarray(descending)[::-1].searchsorted(count))


class Tables:
    """The tables of a log, F of them, their rows numbered one behind the other (*flat row numbers*).

    Parameters
    ----------
    counts
        int64 ``[sum of num_embeddings]``: accesses in the training split (`ColumnarLog.counts`).
    embedding_dims
        D of each table.
    optimizer
        Optimizer of the rows; its state is part of a row's bytes.

    Attributes
    ----------
    slots
        `SlotMap`: slots and first flat row number of each table.
    sizes, row_bytes, num_accessed
        int64 ``[F]``: rows; bytes of one row with its state; rows with at least one access.
    lengths
        int64 ``[F]``: slots of each table.
    offsets
        int64 ``[F + 1]``: first flat row number of each table.
    group_of_table
        int64 ``[F]``: index of its embedding_dim among the different ones, ascending, as in `RowLayout`.
    group_row_bytes
        int64 ``[groups]``: bytes of one row of each group.
    """

    def __init__(
        self, features: Sequence[FeatureSchema], counts: Int64, embedding_dims: Sequence[int], optimizer: str
    ) -> None:
        if len(embedding_dims) != len(features):
            raise ValueError(f"{len(embedding_dims)} embedding_dims for {len(features)} tables")
        self.features = tuple(features)
        self.embedding_dims = tuple(int(dim) for dim in embedding_dims)
        self.counts = np.asarray(counts)
        self.slots = map_slots(features)
        self.offsets = self.slots.table_first_row
        self.sizes = np.diff(self.offsets)
        self.row_bytes = np.array([row_bytes(optimizer, dim) for dim in embedding_dims], np.int64)
        self.group_of_table = group_by_dim(embedding_dims)
        self.group_row_bytes = np.array([row_bytes(optimizer, dim) for dim in sorted(set(embedding_dims))], np.int64)
        self.lengths = np.diff(self.slots.table_first_slot)
        self._sorted_counts: dict[int, Int64] = {}
        self._orders: list[Int64 | None] = [None] * len(features)
        largest_first = np.argsort(-self.sizes, kind="stable").tolist()
        run_jobs([partial(self._find_order, table) for table in largest_first])
        self.num_accessed = np.array([num_at_least(self.popular_counts(t), 1) for t in range(len(features))], np.int64)

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def accesses(self) -> list[int]:
        """Accesses of each table in the training split."""
        return sum_rows(lambda _, first, last: int(self.counts[first:last].sum()), self.offsets)

    @cached_property
    def total_bytes(self) -> int:
        """Bytes of every row of every table."""
        return self.bytes(self.sizes)

    def bytes(self, num_rows: Int64) -> int:
        """Bytes of `num_rows` rows of each table, int64 ``[F]``."""
        return int((num_rows * self.row_bytes).sum())

    def of_table(self, flat: npt.NDArray[np.int64], table: int) -> Int64:
        """The part of a flat array that belongs to a table."""
        return flat[self.offsets[table] : self.offsets[table + 1]]

    def order(self, table: int) -> Int64 | None:
        """int64 ``[num_embeddings]``: the table's ids by popularity in the training split; None for the identity."""
        return self._orders[table]

    def by_popularity(self, flat: npt.NDArray[np.int64], table: int) -> Int64:
        """The table's part of a flat array, put into popularity order."""
        of_table, order = self.of_table(flat, table), self._orders[table]
        return of_table if order is None else of_table[order]

    def popular_counts(self, table: int) -> Int64:
        """int64 ``[num_embeddings]``: accesses in the training split, most accessed row first."""
        if self._orders[table] is None:
            return self.of_table(self.counts, table)
        if table not in self._sorted_counts:
            self._sorted_counts[table] = self.by_popularity(self.counts, table)
        return self._sorted_counts[table]

    def popularity_ranks(self) -> npt.NDArray[np.int32] | None:
        """int32, flat: storage rank of every id where popularity is the order; None if it is the identity for all."""
        if all(order is None for order in self._orders):
            return None
        ranks = np.empty(int(self.offsets[-1]), np.int32)

        def rank(table: int) -> None:
            of_table, order = ranks[self.offsets[table] : self.offsets[table + 1]], self._orders[table]
            of_table[slice(None) if order is None else order] = np.arange(of_table.size, dtype=np.int32)

        run_jobs([partial(rank, table) for table in range(len(self))])
        return ranks

    def cold_rows(self, num_hot: Int64) -> Int64:
        """int64 ``[groups]``: rows of each group that are not hot."""
        return np.bincount(
            self.group_of_table, weights=self.sizes - num_hot, minlength=len(self.group_row_bytes)
        ).astype(np.int64)

    def _find_order(self, table: int) -> None:
        counts = self.of_table(self.counts, table)
        if not np.all(counts[1:] <= counts[:-1]):
            self._orders[table] = np.argsort(-counts, kind="stable").astype(np.int64)
