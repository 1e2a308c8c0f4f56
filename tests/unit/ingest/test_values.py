"""Categorical values of every Arrow type become text, list items or whole numbers."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from fae.core.errors import LogError
from fae.ingest.column_config import ColumnConfig
from fae.ingest.values import as_text, list_items, whole_numbers

TWO, THREE = ColumnConfig(name="c", max_length=2), ColumnConfig(name="c", max_length=3)


def nowhere(row: int) -> str:
    return f"row {row}"


def test_as_text_of_every_kind() -> None:
    def text(array: Any) -> list[str]:
        result: list[str] = as_text(array, "c", nowhere).to_pylist()
        return result

    assert text(pa.array([7, None], pa.uint64())) == ["7", ""]
    assert text(pa.array([7.0, None, -2.0])) == ["7", "", "-2"]
    assert text(pa.array([True, None])) == ["true", ""]
    assert text(pa.array([None, None])) == ["", ""]
    assert text(pa.array(["x", None]).dictionary_encode()) == ["x", ""]
    assert text(pa.array([b"x"], pa.large_binary())) == ["x"]
    assert text(pa.array(["a", "b"], pa.large_string())[1:]) == ["b"]


def test_list_items_keep_the_last_ones() -> None:
    array = pa.array([["a", None, "b", "", "c"], None, [], ["d"]])[0:4]
    items = list_items(array, TWO, nowhere)
    assert (items.values.to_pylist(), items.rows.tolist(), items.slots.tolist()) == (
        ["b", "c", "d"], [0, 0, 3], [0, 1, 0],
    )  # fmt: skip
    fixed = list_items(pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2)), THREE, nowhere)
    assert fixed.values.to_pylist() == ["1", "2", "3", "4"]
    assert list_items(pa.array([5, None]), TWO, nowhere).values.to_pylist() == ["5"]
    with pytest.raises(LogError, match="row 1: "):
        list_items(pa.array([[1.0], [2.5]]), TWO, nowhere)
    with pytest.raises(LogError, match=r"row 0: column .c. is of type list<.*; in its lists structs are not read"):
        list_items(pa.array([], pa.list_(pa.struct([("a", pa.int8())]))), TWO, nowhere)


def test_whole_numbers_beside_what_int64_holds() -> None:
    assert whole_numbers(pa.array(["3", "", "007"]), "c", nowhere).tolist() == [3, -2, 7]
    assert whole_numbers(pa.array([], pa.string()), "c", nowhere).tolist() == []
