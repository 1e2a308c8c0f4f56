"""Row layout: where every row of every table lies, for one hot set.

Tables of one `embedding_dim` form a *group*: one bank, one address space. Within a group the rows are numbered

    [0, H)        hot rows, table behind table, hottest first within a table
    [H, H + C)    cold rows, table behind table, likewise

The hot rows of a table are the ids with ``rank < num_hot``. Row numbers rise strictly with (hot first, table, rank), so
that sorting lookups by address and sorting them by row number give the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fae.artifacts.addressing import Addressing, SlotMap, group_by_dim, map_slots
from fae.artifacts.columnar_log import FeatureSchema, feature_tables, model_features


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """The tables of one embedding_dim.

    Attributes
    ----------
    tables
        Indices of its tables, ascending.
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
        The log's tables, F of them.
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
        self.group_of_table = group_by_dim(self.embedding_dims).astype(np.int32)
        groups = []
        for dim in sorted(set(self.embedding_dims)):
            tables = tuple(table for table, d in enumerate(self.embedding_dims) if d == dim)
            hot = np.array([self.num_hot[table] for table in tables], np.int64)
            cold = np.array([self.features[table].num_embeddings for table in tables], np.int64) - hot
            num_hot_rows, num_cold_rows = int(hot.sum()), int(cold.sum())
            for position, table in enumerate(tables):
                self.hot_base[table] = hot[:position].sum()
                self.cold_base[table] = num_hot_rows + cold[:position].sum()
            groups.append(
                RowGroup(embedding_dim=dim, tables=tables, num_hot_rows=num_hot_rows, num_cold_rows=num_cold_rows)
            )
        self.groups = tuple(groups)

    @cached_property
    def model_features(self) -> tuple[FeatureSchema, ...]:
        """What a model receives, in slot order: more than `features` where columns share a table."""
        return model_features(self.features)

    @property
    def feature_dims(self) -> list[int]:
        """D of each of the `model_features`."""
        return [self.embedding_dims[table] for table in feature_tables(self.features)]

    @property
    def group_features(self) -> list[list[int]]:
        """Indices of the `model_features` of each group, ascending."""
        tables = feature_tables(self.features)
        groups = self.group_of_table[tables].tolist()
        return [[i for i, own in enumerate(groups) if own == group] for group in range(len(self.groups))]

    @cached_property
    def addressing(self) -> Addressing:
        """The layout as flat arrays."""
        slots, table_group = map_slots(self.features), self.group_of_table.astype(np.int64)
        slot_group, num_hot = table_group[slots.slot_table], np.array(self.num_hot, np.int64)
        group_ends = np.arange(len(self.groups) + 1)
        group_slots = np.argsort(slot_group, kind="stable").astype(np.int64)
        group_tables = np.argsort(table_group, kind="stable").astype(np.int64)
        return Addressing(
            slots=slots,
            table_num_hot=num_hot,
            table_hot_base=self.hot_base,
            table_cold_base=self.cold_base,
            table_group=table_group,
            slot_group=slot_group,
            slot_num_hot=num_hot[slots.slot_table],
            group_num_hot_rows=np.array([group.num_hot_rows for group in self.groups], np.int64),
            group_slots=group_slots,
            group_first_slot=np.searchsorted(slot_group[group_slots], group_ends).astype(np.int64),
            group_tables=group_tables,
            group_first_table=np.searchsorted(table_group[group_tables], group_ends).astype(np.int64),
        )

    @property
    def slots(self) -> SlotMap:
        """Which slot looks up which table."""
        return self.addressing.slots

    @cached_property
    def num_slots(self) -> int:
        """S: most lookups that an input has."""
        return self.slots.num_slots

    @property
    def table_of_slot(self) -> npt.NDArray[np.int64]:
        """int64 ``[S]``: table of each slot."""
        return self.slots.slot_table

    def group_slots(self, group: int) -> npt.NDArray[np.int64]:
        """int64: the slots whose tables are in `group`, ascending."""
        first = self.addressing.group_first_slot
        return self.addressing.group_slots[first[group] : first[group + 1]]

    def row_numbers(self, table: int) -> npt.NDArray[np.int64]:
        """int64 ``[num_embeddings]``: the row number within its group of each vocabulary id of `table`."""
        size, rank, hot = self.features[table].num_embeddings, self.ranks[table], self.num_hot[table]
        order = np.arange(size, dtype=np.int64) if rank is None else rank.astype(np.int64)
        shift = np.where(order < hot, self.hot_base[table], self.cold_base[table] - hot)
        rows: npt.NDArray[np.int64] = order + shift.astype(np.int64)
        return rows
