"""Addressing and row layouts against a plain restatement, table by table and row by row."""

from __future__ import annotations

import numpy as np
import pytest

from fae.artifacts.addressing import group_by_dim, map_slots
from fae.artifacts.columnar_log import FeatureSchema
from fae.artifacts.row_layout import RowLayout

FEATURES = [
    FeatureSchema(name="a", num_embeddings=5),
    FeatureSchema(name="b", num_embeddings=3, length=2),
    FeatureSchema(name="c", num_embeddings=4, length=3),
]


def test_slots_know_their_table_and_its_first_flat_row() -> None:
    slots = map_slots(FEATURES)
    assert slots.table_first_slot.tolist() == [0, 1, 3, 6]
    assert slots.table_first_row.tolist() == [0, 5, 8, 12]
    assert slots.slot_table.tolist() == [0, 1, 1, 2, 2, 2]
    assert slots.slot_first_row.tolist() == [0, 5, 5, 8, 8, 8]
    assert (slots.num_slots, slots.num_rows) == (6, 12)
    assert map_slots([]).num_slots == map_slots([]).num_rows == 0


def test_groups_are_numbered_by_ascending_width() -> None:
    assert group_by_dim([16, 4, 8, 4]).tolist() == [2, 0, 1, 0]
    assert group_by_dim([]).tolist() == []


def test_addressing_lists_slots_and_tables_group_by_group() -> None:
    addressing = RowLayout(FEATURES, [16, 4, 16], [2, 3, 1]).addressing
    assert addressing.table_group.tolist() == [1, 0, 1]
    assert addressing.slot_group.tolist() == [1, 0, 0, 1, 1, 1]
    assert addressing.slot_num_hot.tolist() == [2, 3, 3, 1, 1, 1]
    assert addressing.group_num_hot_rows.tolist() == [3, 3]
    assert addressing.group_slots.tolist() == [1, 2, 0, 3, 4, 5]
    assert addressing.group_first_slot.tolist() == [0, 2, 6]
    assert addressing.group_tables.tolist() == [1, 0, 2]
    assert addressing.group_first_table.tolist() == [0, 1, 3]
    arrays = [*addressing.slots, *addressing[1:]]
    assert {array.dtype for array in arrays} == {np.dtype(np.int64)}


@pytest.mark.parametrize("dims", [[4, 4, 4], [16, 4, 16], [1, 2, 3]])
def test_row_numbers_are_a_permutation_with_hot_rows_first(dims: list[int]) -> None:
    random = np.random.default_rng(1)
    ranks = [None, random.permutation(3).astype(np.int32), random.permutation(4).astype(np.int32)]
    layout = RowLayout(FEATURES, dims, [2, 0, 4], ranks)
    addressing = layout.addressing
    for index, group in enumerate(layout.groups):
        rows = np.concatenate([layout.row_numbers(table) for table in group.tables])
        assert sorted(rows.tolist()) == list(range(group.num_hot_rows + group.num_cold_rows))
        assert layout.group_slots(index).tolist() == np.flatnonzero(addressing.slot_group == index).tolist()
    for table, feature in enumerate(FEATURES):
        order = ranks[table]
        for id_ in range(feature.num_embeddings):
            rank = id_ if order is None else int(order[id_])
            hot = rank < layout.num_hot[table]
            base = addressing.table_hot_base if hot else addressing.table_cold_base
            expected = int(base[table]) + rank - (0 if hot else layout.num_hot[table])
            assert layout.row_numbers(table)[id_] == expected
