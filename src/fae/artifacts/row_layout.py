"""Row layout: where every row of every table stands, for one hot set.

Tables of one `embedding_dim` form a *group*: one bank, one address space. Within a group the rows are numbered

    [0, H)        hot rows, table behind table, hottest first within a table
    [H, H + C)    cold rows, table behind table, likewise

Invariant: within a table, the hot rows are the ids with ``rank < num_hot``; the row number is strictly increasing in
(hot first, table, rank), so sorting by address and sorting by row number are the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import FeatureSchema, first_slots


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """The tables of one embedding_dim.

    Attributes
    ----------
    tables
        Indices of its features, ascending.
    num_hot_rows, num_cold_rows
        H and C of the group.
    """

    embedding_dim: int
    tables: tuple[int, ...]
    num_hot_rows: int
    num_cold_rows: int


class RowLayout:
    """Tables, their storage order and their hot prefixes, turned into row numbers.

    Parameters
    ----------
    features
        The log's categorical features, F of them.
    embedding_dims
        D of each table.
    num_hot
        Hot rows of each table, a prefix of its storage order.
    ranks
        Per table, int32 ``[num_embeddings]``: storage rank of each vocabulary id, hottest 0; None for the identity.

    Attributes
    ----------
    groups
        `RowGroup` by ascending embedding_dim.
    group_of_table
        int32 ``[F]``.
    hot_base, cold_base
        int64 ``[F]``: row number, within the table's group, of its first hot row and of its first cold row.
    """

    def __init__(
        self,
        features: Sequence[FeatureSchema],
        embedding_dims: Sequence[int],
        num_hot: Sequence[int],
        ranks: Sequence[npt.NDArray[np.int32] | None] | None = None,
    ) -> None:
        self.features = tuple(features)
        self.embedding_dims = tuple(int(dim) for dim in embedding_dims)
        self.num_hot = tuple(int(count) for count in num_hot)
        self.ranks = tuple(ranks) if ranks is not None else (None,) * len(self.features)
        assert len(self.features) == len(self.embedding_dims) == len(self.num_hot) == len(self.ranks)
        self.hot_base = np.zeros(len(self.features), np.int64)
        self.cold_base = np.zeros(len(self.features), np.int64)
        self.group_of_table = np.zeros(len(self.features), np.int32)
        groups = []
        for group_index, dim in enumerate(sorted(set(self.embedding_dims))):
            tables = tuple(table for table, d in enumerate(self.embedding_dims) if d == dim)
            hot = np.array([self.num_hot[table] for table in tables], np.int64)
            cold = np.array([self.features[table].num_embeddings for table in tables], np.int64) - hot
            num_hot_rows, num_cold_rows = int(hot.sum()), int(cold.sum())
            for position, table in enumerate(tables):
                self.hot_base[table] = hot[:position].sum()
                self.cold_base[table] = num_hot_rows + cold[:position].sum()
                self.group_of_table[table] = group_index
            groups.append(
                RowGroup(embedding_dim=dim, tables=tables, num_hot_rows=num_hot_rows, num_cold_rows=num_cold_rows)
            )
        self.groups = tuple(groups)

    @cached_property
    def first_slots(self) -> list[int]:
        """First slot of each feature; S last."""
        return first_slots(self.features)

    @cached_property
    def num_slots(self) -> int:
        """S: lookups an input may have."""
        return self.first_slots[-1]

    @cached_property
    def table_of_slot(self) -> npt.NDArray[np.int32]:
        """int32 ``[S]``."""
        return np.repeat(np.arange(len(self.features), dtype=np.int32), [f.length for f in self.features])

    def group_slots(self, group: int) -> npt.NDArray[np.int64]:
        """int64: the slots whose tables are in `group`, ascending."""
        return np.flatnonzero(self.group_of_table[self.table_of_slot] == group).astype(np.int64)

    def row_numbers(self, table: int) -> npt.NDArray[np.int64]:
        """int64 ``[num_embeddings]``: the row number within its group of each vocabulary id of `table`."""
        size, rank, hot = self.features[table].num_embeddings, self.ranks[table], self.num_hot[table]
        order = np.arange(size, dtype=np.int64) if rank is None else rank.astype(np.int64)
        shift = np.where(order < hot, self.hot_base[table], self.cold_base[table] - hot)
        rows: npt.NDArray[np.int64] = order + shift.astype(np.int64)
        return rows
