"""Cases of values: what is one value, what is none, what a label is, and how lists are written."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from case_folders import Case, column_values, copy_case, list_values, vocabulary
from fae.artifacts.columnar_log import ColumnarLog
from fae.core.errors import LogError
from fae.ingest.scored.raw_inputs import RawInputs

from commands import fae, fault, write_recipe

LABELS = [i % 2 for i in range(40)]


def with_column(case: Case, settings: str) -> Case:
    """Add settings to the list column of a case's recipe."""
    recipe = case.folder / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('"max_length" = 3', f'"max_length" = 3, {settings}'))
    return case


def parquet_log(folder: Path, **columns: Any) -> Path:
    """A Parquet log of a label and the columns ``a.parquet``; a tuple gives ``a`` and ``b`` a column each."""
    for index, name in enumerate(("a", "b")):
        found = {key: value[index] if isinstance(value, tuple) else value for key, value in columns.items()}
        size = len(next(iter(found.values())))
        table = {"y": pa.array([i % 2 for i in range(size)]), **found}
        pq.write_table(pa.table(table), folder / f"{name}.parquet", store_schema=True)
    log = {
        "train": "*.parquet", "format": "parquet", "label": "y", "categorical": [*columns], "dense": [],
        "test_fraction": 0, "validation_fraction": 0,
    }  # fmt: skip
    return write_recipe(folder, log=log)


def ingested(recipe: Path) -> ColumnarLog:
    done = fae("ingest", recipe, "--out", recipe.parent / "out")
    assert done.status == 0, done.stderr
    return ColumnarLog(recipe.parent / "out" / "log")


def refused(recipe: Path, *expected: str) -> str:
    return fault(fae("ingest", recipe, "--out", recipe.parent / "out"), *expected)


def test_bracketed_lists(tmp_path: Path) -> None:
    case = copy_case("bracketed-lists", tmp_path)
    fault(case.fae("ingest"), "a.tsv, line 2: the list column 'tags' is '[]'", "set brackets = true")
    log = with_column(case, "brackets = true").ingest()
    assert list_values(log, "tags")[:4] == [[], ["0"], ["0", "1"], ["0", "1", "2"]]
    assert vocabulary(log, "tags") == ["0", "1", "2", None]


def test_padding_of_lists(tmp_path: Path) -> None:
    case = with_column(copy_case("list-padding-zeros", tmp_path), 'padding = "0"')
    log = case.ingest()
    lines = (case.folder / "a.csv").read_text().splitlines()[1:]
    expected = [[item for item in line.split(",")[2].split("|") if item != "0"] for line in lines]
    known = set(vocabulary(log, "h"))
    assert "0" not in known
    assert list_values(log, "h") == [[i if i in known else None for i in items[-3:]] for items in expected]


def test_weights_of_items(tmp_path: Path) -> None:
    log = with_column(copy_case("list-item-weights", tmp_path), 'weight_separator = ":"').ingest()
    assert sorted(vocabulary(log, "tags")[:-1]) == ["i0", "i1", "i2", "i3"]
    assert list_values(log, "tags")[0] == ["i0", "i0"]


def test_null_words(tmp_path: Path) -> None:
    case = copy_case("null-words", tmp_path)
    fault(case.fae("ingest"), "a.csv, line 2: ", "[log] missing")
    log = case.ingest('log.missing=["\\\\N"]')
    assert log.dense[:2, 0].tolist() == [0.0, 0.5]
    assert column_values(log, "user")[:2] == ["", "u1"]
    assert log.manifest.summary["missing_share"]["user"] == 8 / 29


def test_labels_in_words(tmp_path: Path) -> None:
    case = copy_case("label-in-words", tmp_path)
    fault(case.fae("ingest"), "a.csv, line 2: the label 'y' is 'noclick', expected 0 or 1", "label_map")
    log = case.ingest("log.label_map={click = 1, noclick = 0}")
    assert log.labels.tolist() == LABELS
    text = (case.folder / "a.csv").read_text().replace("\nclick,u1,", "\nclicks,u1,", 1)
    (case.folder / "a.csv").write_text(text)
    fault(
        case.fae("ingest", "--set", "log.label_map={click = 1, noclick = 0}"),
        "a.csv, line 3: the label 'y' is 'clicks'",
    )


@pytest.mark.parametrize(
    ("labels", "setting", "expected"),
    [
        (["1", "-1", "1"], 'label_map={"1" = 1, "-1" = 0}', [1, 0, 1]),
        (["yes", "", "no"], 'label_map={yes = 1, no = 0, "" = 0}', [1, 0, 0]),
        (["5", "3", "3.5"], "label_threshold=3.5", [1, 0, 1]),
    ],
)
def test_labels_of_other_kinds(tmp_path: Path, labels: list[str], setting: str, expected: list[int]) -> None:
    case = copy_case("label-in-words", tmp_path)
    (case.folder / "a.csv").write_text("y,user,item,price\n" + "".join(f"{label},u,i,1\n" for label in labels * 10))
    assert case.ingest(f"log.{setting}").labels.tolist() == expected * 10


def test_negative_values_that_vanish(tmp_path: Path) -> None:
    case = copy_case("negative-dense-vanishes", tmp_path)
    done = case.fae("ingest")
    assert done.status == 0
    assert "the dense column 'price' are negative and became 0" in done.stderr
    kept = case.ingest('log.dense_transform="signed_log1p"').dense[:2, 0]
    assert kept.tolist() == pytest.approx([np.log1p(0.12573), -np.log1p(0.13210)], abs=1e-6)


def test_decimal_ids(tmp_path: Path) -> None:
    log = copy_case("parquet-decimal-ids", tmp_path).ingest()
    assert sorted(vocabulary(log, "c")[:-1]) == ["0", "1", "2", "3"]
    assert None not in column_values(log, "c")


def test_boolean_and_whole_numbers(tmp_path: Path) -> None:
    fault(
        copy_case("parquet-bool-and-int", tmp_path).fae("ingest"),
        "2.parquet: the column 'c' is of type int8", "1.parquet of type bool",
    )  # fmt: skip


def test_float32_ids(tmp_path: Path) -> None:
    case = copy_case("parquet-float32-ids", tmp_path)
    fault(case.fae("ingest"), "a.parquet, input ", "column 'c'", "whole numbers above 16777216")


def test_labels_of_parquet(tmp_path: Path) -> None:
    log = copy_case("parquet-decimal-label", tmp_path).ingest()
    assert log.labels.tolist() == [i % 2 for i in range(len(log.labels))]
    fault(copy_case("parquet-label-struct", tmp_path).fae("ingest"), "a.parquet", "the label 'y' is of type struct")


def test_lists_of_lists(tmp_path: Path) -> None:
    line = fault(copy_case("nested-list-advice", tmp_path).fae("ingest"), "a.parquet", "lists of lists are not read")
    assert "max_length" not in line


def test_hive_folders(tmp_path: Path) -> None:
    log = copy_case("hive-folders", tmp_path).ingest()
    assert {"1", "2"} == set(vocabulary(log, "day")) - {None}


@pytest.mark.parametrize("value", ["0x1F", "-0", "+1", "\uff11", "1 "])
def test_encoded_values_are_digits(tmp_path: Path, value: str) -> None:
    recipe = write_recipe(
        tmp_path, log={"train": "a.csv", "label": "y", "categorical": [{"name": "a", "encoded": True}], "dense": []}
    )
    for other in ("4", "99999999999999999999"):
        values = [value if i == 5 else other if i == 9 else str(i % 5) for i in range(40)]
        text = "y,a\n" + "".join(f"{i % 2},{each}\n" for i, each in enumerate(values))
        (tmp_path / "a.csv").write_text(text)
        refused(recipe, "a.csv, line 7: the encoded column 'a' is ")


@pytest.mark.parametrize("label", ["\uff11", "+1", "1e0", "01", "-0", "1."])
def test_labels_are_what_is_listed(tmp_path: Path, label: str) -> None:
    recipe = write_recipe(tmp_path, log={"train": "a.csv", "label": "y", "categorical": ["a"], "dense": []})
    (tmp_path / "a.csv").write_text("y,a\n1,x\n 0\t,x\nTrue,x\n0.0,x\n" + f"{label},x\n")
    refused(recipe, "a.csv, line 6: the label 'y' is ")


def test_text_of_parquet_is_utf8(tmp_path: Path) -> None:
    offsets = pa.py_buffer(np.array([0, 1, 2, 4], np.int32))
    text = pa.StringArray.from_buffers(3, offsets, pa.py_buffer(b"ab\xc3\x28"))
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), text)
    for name, column in (("text", text), ("bytes", text.cast(pa.binary())), ("lists", lists)):
        (tmp_path / name).mkdir()
        recipe = parquet_log(tmp_path / name, c=column)
        if name == "lists":
            recipe.write_text(recipe.read_text().replace('["c"]', '[{name = "c", max_length = 2}]'))
        refused(recipe, "a.parquet, input 3: ", "column 'c' is not UTF-8")


SECOND = datetime.datetime(2026, 1, 5, 10, 0, 1)
ONE_VALUE = {
    "timestamps": (*(pa.array([SECOND], pa.timestamp(unit)) for unit in ("s", "ns")), "2026-01-05 10:00:01"),
    "zones": (
        pa.array([SECOND], pa.timestamp("us", "UTC")), pa.array([SECOND], pa.timestamp("ms", "Asia/Tokyo")),
        "2026-01-05 10:00:01Z",
    ),
    "dates": (pa.array([SECOND.date()], pa.date32()), pa.array([SECOND.date()], pa.date64()), "2026-01-05"),
    "times": (pa.array([1500], pa.time32("ms")), pa.array([1_500_000_000], pa.time64("ns")), "00:00:01.5"),
    "durations": (pa.array([1500], pa.duration("ms")), pa.array([1_500_000], pa.duration("us")), "1.5"),
    "numbers": (pa.array([7], pa.uint64()), pa.array([7.0], pa.float16()), "7"),
    "zero": (pa.array([-0.0]), pa.array([0], pa.int8()), "0"),
    "text": (pa.array(["é"], pa.large_string()), pa.array(["é".encode()], pa.binary(2)), "é"),
    "dictionary": (pa.array(["x"]).dictionary_encode(), pa.array(["x"]), "x"),
    "text and booleans": (pa.array(["true"]), pa.array([True]), "true"),
    "nothing": (pa.array([None]), pa.array([None], pa.int64()), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_VALUE)
def test_one_value_of_two_types(tmp_path: Path, name: str) -> None:
    first, second, text = ONE_VALUE[name]
    log = ingested(parquet_log(tmp_path, c=(first, second)))
    assert vocabulary(log, "c") == [text, None]


TWO_CLASSES = {
    "date and time": (pa.array([SECOND.date()]), pa.array([SECOND])),
    "zone and none": (pa.array([SECOND]), pa.array([SECOND], pa.timestamp("us", "UTC"))),
    "number and date": (pa.array([1]), pa.array([SECOND.date()])),
    "boolean and decimal": (pa.array([True]), pa.array([1]).cast(pa.decimal128(21, 2))),
    "lists": (pa.array([[True]]), pa.array([1])),
}


@pytest.mark.parametrize("name", TWO_CLASSES)
def test_types_that_cannot_agree(tmp_path: Path, name: str) -> None:
    first, second = TWO_CLASSES[name]
    refused(
        parquet_log(tmp_path, c=(first, second)),
        f"b.parquet: the column 'c' is of type {second.type}",
        f"a.parquet of type {first.type}".replace("item", "element"),
    )  # fmt: skip


def test_files_to_score_agree_with_the_log(tmp_path: Path) -> None:
    log = ingested(parquet_log(tmp_path, c=pa.array([0, 1])))
    assert log.manifest.summary["value_types"] == {"c": "numbers"}
    (tmp_path / "later").mkdir()
    parquet_log(tmp_path / "later", c=pa.array([False, True]))
    inputs = RawInputs(log, [str(tmp_path / "later" / "a.parquet")])
    with pytest.raises(LogError, match=r"'c' is of type bool, and in the log .* it holds numbers"):
        next(inputs.stream([]))


def test_numbers_that_come_as_text(tmp_path: Path) -> None:
    recipe = parquet_log(tmp_path, c=pa.array(["1", "NULL", " 2 "]), x=pa.array(["1", "NULL", " 2 "]))
    table = recipe.read_text().replace('["c", "x"]', '["c"]').replace("dense = []", 'dense = ["x"]')
    recipe.write_text(table)
    refused(recipe, "a.parquet, input 2: the dense column 'x' is 'NULL'", "[log] missing")
    recipe.write_text(table.replace("[log]\n", '[log]\nmissing = ["NULL"]\ndense_transform = "none"\n'))
    log = ingested(recipe)
    assert log.dense[:3, 0].tolist() == [1.0, 0.0, 2.0]
    assert column_values(log, "c")[:3] == ["1", "", " 2 "]
    pq.write_table(pa.table({"y": [0, 1], "c": ["a", "b"], "x": ["1", "5\xa0"]}), tmp_path / "b.parquet")
    refused(recipe, "b.parquet, input 2: the dense column 'x' is '5\\xa0'")


def test_brackets_are_seen_over_all_files(tmp_path: Path) -> None:
    """What is judged is the beginning of the log, not each chunk: a few bracketed values are values."""
    log = {"train": "*.csv", "label": "y", "categorical": [{"name": "t", "max_length": 2}], "dense": []}
    recipe = write_recipe(tmp_path, log=log)
    plain, printed = ("y,t\n" + f"1,{value}\n0,{value}\n" * 10 for value in ("a|b", "[a b]"))
    for name, text in (("1", plain), ("2", printed)):
        (tmp_path / f"{name}.csv").write_text(text)
    assert "[a b]" in vocabulary(ingested(recipe), "t")
    (tmp_path / "1.csv").write_text(printed)
    refused(recipe, "1.csv, line 2: the list column 't' is '[a b]'", "brackets = true")


def test_a_damaged_page_is_one_line(tmp_path: Path) -> None:
    recipe = parquet_log(tmp_path, c=pa.array([f"value {i}" for i in range(3000)]))
    path = tmp_path / "a.parquet"
    data = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(0).column(1).dictionary_page_offset or 4
    data[start : start + 12] = b"\xff" * 12
    path.write_bytes(data)
    refused(recipe, "a.parquet cannot be read as Parquet")
