"""Addressing: which slot looks up which table, and where each table's rows lie, as flat arrays for compiled loops.

An input has S lookup *slots*, feature behind feature. Two ways to number rows are used before training:

* *flat row numbers* count the rows of all tables one behind the other, by vocabulary id or by storage rank: what
  counting and choosing hot rows work with (`SlotMap`; needs no hot set);
* *row numbers* count within a group of tables of one embedding_dim, hot rows first: what packing works with
  (`Addressing`; see `fae.artifacts.row_layout`).

Both are named tuples of int64 arrays: numba takes them as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import FeatureSchema, first_slots

Int64 = npt.NDArray[np.int64]


class SlotMap(NamedTuple):
    """Slots and flat rows of F tables. All arrays are int64.

    Attributes
    ----------
    table_first_slot
        ``[F + 1]``: table t has the slots ``[table_first_slot[t], table_first_slot[t + 1])``; S is the last entry.
    table_first_row
        ``[F + 1]``: flat row number of the first row of each table; the number of all rows is the last entry.
    slot_table
        ``[S]``: table of each slot.
    slot_first_row
        ``[S]``: flat row number of the first row of each slot's table.
    """

    table_first_slot: Int64
    table_first_row: Int64
    slot_table: Int64
    slot_first_row: Int64

    @property
    def num_slots(self) -> int:
        """S: most lookups that an input has."""
        return int(self.table_first_slot[-1])

    @property
    def num_rows(self) -> int:
        """Rows of all tables."""
        return int(self.table_first_row[-1])


def map_slots(features: Sequence[FeatureSchema]) -> SlotMap:
    """Slots and flat rows of the tables of these features.

    >>> plain, listed = FeatureSchema(name="a", num_embeddings=5), FeatureSchema(name="b", num_embeddings=3, length=2)
    >>> slots = map_slots([plain, listed])
    >>> slots.slot_table.tolist(), slots.slot_first_row.tolist(), slots.table_first_row.tolist()
    ([0, 1, 1], [0, 5, 5], [0, 5, 8])
    """
    first_rows = np.cumsum([0, *(feature.num_embeddings for feature in features)]).astype(np.int64)
    lengths = np.array([feature.length for feature in features], np.int64)
    return SlotMap(
        table_first_slot=np.array(first_slots(features), np.int64),
        table_first_row=first_rows,
        slot_table=np.repeat(np.arange(len(features), dtype=np.int64), lengths),
        slot_first_row=np.repeat(first_rows[:-1], lengths),
    )


class Addressing(NamedTuple):
    """Where every row of every table lies under one hot set, F tables in G groups. All arrays are int64.

    A lookup of storage rank r in table t is hot where ``r < table_num_hot[t]``. Its row number, within the group, is
    ``table_hot_base[t] + r`` if it is hot and ``table_cold_base[t] + r - table_num_hot[t]`` if not.

    Attributes
    ----------
    slots
        The `SlotMap` of the features.
    table_num_hot, table_hot_base, table_cold_base
        ``[F]``: hot rows of each table, row number of its first hot row and of its first cold row.
    table_group, slot_group
        ``[F]`` and ``[S]``: group of each table, and of each slot's table.
    slot_num_hot
        ``[S]``: hot rows of each slot's table.
    group_num_hot_rows
        ``[G]``: H, hot rows of each group; addresses from H on are cold rows.
    group_slots, group_first_slot
        ``[S]``, slots group by group, and ``[G + 1]``: where each group's slots begin in that list.
    group_tables, group_first_table
        ``[F]``, tables group by group, and ``[G + 1]``: where each group's tables begin in that list.
    """

    slots: SlotMap
    table_num_hot: Int64
    table_hot_base: Int64
    table_cold_base: Int64
    table_group: Int64
    slot_group: Int64
    slot_num_hot: Int64
    group_num_hot_rows: Int64
    group_slots: Int64
    group_first_slot: Int64
    group_tables: Int64
    group_first_table: Int64


def group_by_dim(embedding_dims: Sequence[int]) -> Int64:
    """int64 ``[F]``: group of each table: the place of its embedding_dim among the different ones, ascending.

    >>> group_by_dim([16, 4, 16]).tolist()
    [1, 0, 1]
    """
    return np.unique(np.asarray(embedding_dims, np.int64), return_inverse=True)[1].astype(np.int64).reshape(-1)
