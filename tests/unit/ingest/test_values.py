"""Categorical values of every Arrow type become text, list items or whole numbers."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from fae.core.errors import LogError
from fae.ingest.column_config import ColumnConfig
from fae.ingest.value_types.printed_lists import PrintedLists
from fae.ingest.value_types.type_classes import TypeGuard, type_class
from fae.ingest.values import as_text, list_items, whole_numbers

TWO, THREE = ColumnConfig(name="c", max_length=2), ColumnConfig(name="c", max_length=3)


def nowhere(row: int) -> str:
    return f"row {row}"


def text(array: Any, missing: Sequence[str] = ()) -> list[str]:
    result: list[str] = as_text(array, "c", nowhere, missing).to_pylist()
    return result


def lists(array: Any, missing: Sequence[str] = (), **settings: Any) -> list[list[str]]:
    items = list_items(array, ColumnConfig(name="c", **{"max_length": 9, **settings}), nowhere, missing)
    found: list[list[str]] = [[] for _ in range(len(array))]
    for value, row in zip(items.values.to_pylist(), items.rows.tolist(), strict=True):
        found[row].append(value)
    return found


def test_as_text_of_every_kind() -> None:
    assert text(pa.array([7, None], pa.uint64())) == ["7", ""]
    assert text(pa.array([2**64 - 1], pa.uint64())) == ["18446744073709551615"]
    assert text(pa.array([7.0, None, -2.0, -0.0])) == ["7", "", "-2", "0"]
    assert text(pa.array([True, None])) == ["true", ""]
    assert text(pa.array([None, None])) == ["", ""]
    assert text(pa.array(["x", None]).dictionary_encode()) == ["x", ""]
    assert text(pa.array(["a", "b"], pa.large_string())[1:]) == ["b"]
    assert text(pa.array(["a", "b"], pa.string_view())[1:]) == ["b"]
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(1)):
        assert text(pa.array([b"x", None], kind)) == ["x", ""]
    assert text(pc.run_end_encode(pa.array([5, 5]))) == ["5", "5"]
    assert text(pa.array([uuid.UUID(int=5).bytes, None], pa.uuid())) == ["00000000-0000-0000-0000-000000000005", ""]


@pytest.mark.parametrize(
    "kind",
    [pa.decimal32(7, 2), pa.decimal64(15, 0), pa.decimal128(38, 30), pa.decimal256(76, 70), pa.decimal128(5, -2)],
)
def test_decimals_that_are_whole(kind: Any) -> None:
    number = Decimal(300 if kind.scale < 0 else 3)
    assert text(pa.array([number, Decimal(0), None], kind)) == [str(number), "0", ""]


def test_times_of_every_unit() -> None:
    for unit in ("ms", "us", "ns"):
        point = datetime.datetime(2026, 1, 5, 10, 0, 1, 120_000)
        assert text(pa.array([point, None], pa.timestamp(unit))) == ["2026-01-05 10:00:01.12", ""]
        assert text(pa.array([datetime.timedelta(seconds=-90, milliseconds=500)], pa.duration(unit))) == ["-89.5"]
    assert text(pa.array([0], pa.timestamp("s"))) == ["1970-01-01 00:00:00"]
    assert text(pa.array([0], pa.timestamp("ns", "Europe/Berlin"))) == ["1970-01-01 00:00:00Z"]
    assert text(pa.array([86_400_000], pa.date64())) == text(pa.array([1], pa.date32())) == ["1970-01-02"]
    assert text(pa.array([1000], pa.time32("ms"))) == text(pa.array([10**9], pa.time64("ns"))) == ["00:00:01"]


REFUSED = {
    "fraction": (pa.array([1.0, 2.5]), "row 1: the categorical column 'c' is 2.5"),
    "decimal": (pa.array([Decimal("1.00"), Decimal("1.50")]), "row 1: the categorical column 'c' is 1.50"),
    "nan": (pa.array([1.0, float("nan")]), "row 1: the categorical column 'c' is nan"),
    "float16": (pa.array(np.array([2048, 2050], np.float16)), "row 1: .* whole numbers above 2048 apart"),
    "float32": (pa.array(np.array([2**24, -(2**24) - 2], np.float32)), "row 1: .* above 16777216 apart"),
    "float64": (pa.array(np.array([2.0**53, 2.0**53 + 2])), "row 1: .* above 9007199254740992 apart"),
    "bytes": (pa.array([b"a", b"\xff"]), r"row 1: column 'c' is not UTF-8 \('\\xff'\)"),
    "no such year": (pa.array([0, 10**15], pa.timestamp("s")), "row 1: column 'c' of type timestamp"),
    "list": (pa.array([[1]]), "is of type list.*; expected one value; set its max_length"),
    "list of lists": (pa.array([[[1]]]), "lists of lists are not read"),
    "struct": (pa.array([{"a": 1}]), "structs are not read"),
    "map": (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())), "maps are not read, nor are weights"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_text_of_its_own(name: str) -> None:
    array, message = REFUSED[name]
    with pytest.raises(LogError, match=message):
        text(array)


def test_words_for_missing() -> None:
    assert text(pa.array(["\\N", "n", None]), ["\\N"]) == ["", "n", ""]
    assert text(pa.array([-1, 1]), ["-1"]) == ["", "1"]
    assert text(pa.array([float("nan"), 1.0]), ["NaN"]) == ["", "1"]
    assert lists(pa.array(["a|\\N|b", "\\N", "N/A"]), ["\\N", "N/A"]) == [["a", "b"], [], []]
    assert lists(pa.array(["a/b", "N/A"]), ["N/A"], separator="/") == [["a", "b"], []]
    assert lists(pa.array(["[1, NULL]", "NULL"]), ["NULL"], brackets=True) == [["1"], []]


def test_list_items_keep_the_last_ones() -> None:
    array = pa.array([["a", None, "b", "", "c"], None, [], ["d"]])[0:4]
    items = list_items(array, TWO, nowhere)
    assert (items.values.to_pylist(), items.rows.tolist(), items.slots.tolist()) == (
        ["b", "c", "d"], [0, 0, 3], [0, 1, 0],
    )  # fmt: skip
    fixed = list_items(pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2)), THREE, nowhere)
    assert fixed.values.to_pylist() == ["1", "2", "3", "4"]
    assert list_items(pa.array([5, None]), TWO, nowhere).values.to_pylist() == ["5"]
    assert lists(pa.array([[1, 2], None], pa.list_view(pa.int8()))) == [["1", "2"], []]
    assert lists(pa.array([datetime.date(2026, 1, 5)]), separator="-") == [["2026-01-05"]]
    with pytest.raises(LogError, match="row 1: "):
        list_items(pa.array([[1.0], [2.5]]), TWO, nowhere)
    with pytest.raises(LogError, match=r"row 0: column 'c' is of type list<.*; in its lists structs are not read"):
        list_items(pa.array([], pa.list_(pa.struct([("a", pa.int8())]))), TWO, nowhere)


def test_padding_and_weights_are_left_out_before_the_last_items_are_kept() -> None:
    assert lists(pa.array(["3|5|0|0|0", "0|0", ""]), padding="0", max_length=2) == [["3", "5"], [], []]
    assert lists(pa.array([[3, 5, 0], [0]]), padding="0") == [["3", "5"], []]
    weighted = pa.array(["a:0.5|b:-1e-3", "c|d:", "e:f:2", ":1", "0:1|g:nan"])
    expected = [["a", "b"], ["c", "d"], ["e:f"], [], ["g"]]
    assert lists(weighted, weight_separator=":", padding="0") == expected
    with pytest.raises(LogError, match="row 1: the item 'a:b' of 'c' has no number behind its last ':'"):
        lists(pa.array(["a:1", "a:b"]), weight_separator=":")


PRINTED = {
    "[]": [], "": [], " [ ] ": [], "()": [], "[0]": ["0"], "[0, 1]": ["0", "1"], "(0, 1)": ["0", "1"], "(0,)": ["0"],
    "{1,2}": ["1", "2"], "[1 2]": ["1", "2"], "[ 1  2\n 3]": ["1", "2", "3"], "['a', 'b c']": ["a", "b c"],
    '["x","y"]': ["x", "y"], "['a' 'b']": ["a", "b"], '["it\'s", \'"\']': ["it's", '"'], "['', 'q']": ["q"],
    "['a, b', '[c]']": ["a, b", "[c]"], "[-1.5, b-c]": ["-1.5", "b-c"],
}  # fmt: skip
ESCAPED = {r"['a\'b', 'c\\d']": ["a'b", "c\\d"], r'["\u00e9\"", "x"]': ['é"', "x"], r"['\x1f', 'y']": ["\x1f", "y"]}


def test_printed_lists() -> None:
    assert lists(pa.array([*PRINTED]), brackets=True) == [*PRINTED.values()]
    # A list with an escape changes the way in which its chunk is read, and nothing else.
    both = {**PRINTED, **ESCAPED}
    assert lists(pa.array([*both]), brackets=True) == [*both.values()]
    assert lists(pa.array(["[a;b c]", '["q;r"; s]']), brackets=True, separator=";") == [["a", "b c"], ["q;r", "s"]]


@pytest.mark.parametrize(
    "value", ["5", "[1", "[1)", "[1]]", "[a b, c]", "[[1], [2]]", "{'a': 1}", "None", "[1,,2]", "['a]", "[0 1 ... 9]"]
)
def test_what_is_no_printed_list(value: str) -> None:
    with pytest.raises(LogError, match="row 1: the list column 'c' is "):
        lists(pa.array(["[1]", value]), brackets=True)


def test_printed_lists_are_noticed_in_the_first_lists_alone() -> None:
    def judge(*chunks: list[str]) -> None:
        seen = PrintedLists(TWO)
        for chunk in chunks:
            seen.add(pa.array(chunk, pa.string()), nowhere)
        seen.finish()

    judge([], ["a|b"] * 10, ["[a b]"] * 100)
    judge(["[UNK]", "[CLS]"], ["[a]|[b c]"])
    judge(["a"] * 1000, ["[a, b]"] * 100_000)
    for values in (["[]", "[1]"], ["[1 2]"], ["(1, 2)", ""], ["{1,2}"], ["[1, 2]"] * 2000):
        with pytest.raises(LogError, match="set brackets = true"):
            judge(values)


def test_whole_numbers_beside_what_int64_holds() -> None:
    assert whole_numbers(pa.array(["3", "", "007", "0" * 30 + "5"]), "c", nowhere).tolist() == [3, -2, 7, 5]
    assert whole_numbers(pa.array(["x", "3", "4"])[1:], "c", nowhere).tolist() == [3, 4]
    assert whole_numbers(pa.array([], pa.string()), "c", nowhere).tolist() == []
    for value in ("0x1F", "-0", "+1", "\uff11", " 1", "1.0", "99999999999999999999"):
        for beside in ("1", "99999999999999999999"):
            with pytest.raises(LogError, match="row 1: the encoded column"):
                whole_numbers(pa.array(["1", value, beside]), "c", nowhere)


def test_types_with_the_same_texts() -> None:
    numbers = (pa.int8(), pa.float16(), pa.decimal128(5, 2), pa.list_(pa.uint64()), pa.dictionary(pa.int8(), pa.int8()))
    assert {type_class(kind) for kind in numbers} == {"numbers"}
    guard = TypeGuard({"a": "a", "b": "b"})
    first = {"a": pa.string(), "b": pa.null(), "c": pa.bool_()}
    guard.add(Path("1"), first)
    guard.add(Path("2"), {"a": pa.int8(), "b": pa.date32(), "c": pa.int8()})
    guard.add(Path("3"), first)
    with pytest.raises(LogError, match=r"4: the column 'a' is of type bool, and in 2 of type int8"):
        guard.add(Path("4"), {"a": pa.bool_()})
    assert guard.classes == {"a": "numbers", "b": "dates"}
    known = TypeGuard({"a": "a", "d": "a"}, known=guard.classes, known_log=Path("log"))
    with pytest.raises(LogError, match=r"5: the column 'd' is of type bool, and in the log log it holds numbers"):
        known.add(Path("5"), {"d": pa.bool_()})
    shared = TypeGuard({"d": "a", "a": "a"})
    line = r"'a' is of type bool, and 'd', with which it shares a table, in 6 of type int8"
    with pytest.raises(LogError, match=line):
        shared.add(Path("6"), {"d": pa.int8(), "a": pa.bool_()})
