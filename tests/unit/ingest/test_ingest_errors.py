"""Every bad log: one clear line, and nothing left behind."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fae.core.errors import FaeError, LogError, RecipeError
from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest
from fae.ingest.readers import csv as csv_reader

HEADER = b"label,item,price\n"
GOOD = HEADER + b"".join(b"%d,i%d,%d\n" % (i % 2, i % 5, i) for i in range(40))
CRITEO = b"\t".join([b"1", *[b"3"] * 13, *[b"68fd1e64"] * 26]) + b"\n"


def config(**changes: Any) -> LogConfig:
    values: dict[str, Any] = {"train": "log.csv", "categorical": ("item",), "dense": ("price",)}
    return LogConfig(**(values | changes))


def failure(folder: Path, this: LogConfig, kind: type[FaeError] = LogError) -> str:
    """The message of a failing ingest, after checking that it is one line, and that nothing but the log is left."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(kind) as caught:
        ingest(this, folder / "out" / "log", base=folder)
    left = [path for path in folder.rglob("*") if path not in before and path != folder / "out"]
    assert left == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


BAD_TEXT = {
    "short line": (GOOD + b"1,i1\n" + GOOD[17:], "line 42: 2 fields, expected 3"),
    "long line": (GOOD + b"1,i1,2,3\n", "line 42: 4 fields, expected 3"),
    "short line after blank ones": (HEADER + b"\n\n1,i1,2\n\n1,i1\n", "line 6: 2 fields, expected 3"),
    "text where a number belongs": (GOOD + b"1,i1,cheap\n", "line 42: field 3 is 'cheap', expected a number"),
    "underscore in a number": (GOOD + b"1,i1,1_0\n", "line 42: field 3 is '1_0', expected a number"),
    "nan": (GOOD + b"1,i1,nan\n", "line 42: the dense column 'price' is nan"),
    "minus infinity": (GOOD + b"1,i1,-inf\n", "line 42: the dense column 'price' is -inf"),
    "label of 2": (GOOD + b"2,i1,1\n", "line 42: the label 'label' is '2', expected 0 or 1"),
    "label after a quoted line end": (HEADER + b'1,"i\n1",2\nno,i1,1\n', "line 4: the label 'label' is 'no'"),
    "missing label": (GOOD + b",i1,1\n", "line 42: the label 'label' is missing, expected"),
    "not UTF-8": (GOOD + b"1,i\xff\xfe,1\n", "line 42: field 2 is not UTF-8"),
    "open quote": (GOOD + b'1,"i1,1\n' + GOOD[17:], "line 42: a quote begins a value here, and the file ends"),
    "empty": (b"", "is empty (0 bytes)"),
    "blank lines": (b"\n\n\n", "holds no text"),
    "header only": (HEADER, "holds a header and no inputs"),
    "header only, no line end": (HEADER[:-1], "holds a header and no inputs"),
    "column not there": (b"label,itme,price\n1,2,3\n", "there is no column 'item'; did you mean 'itme'?"),
    "column twice": (b"label,item,item,price\n1,2,2,3\n", "the column 'item' is 2 times"),
    "gz under another name": (gzip.compress(GOOD), "rename it to log.csv.gz"),
}


@pytest.mark.parametrize("case", BAD_TEXT)
def test_bad_text(tmp_path: Path, case: str) -> None:
    content, expected = BAD_TEXT[case]
    (tmp_path / "log.csv").write_bytes(content)
    assert expected in failure(tmp_path, config())


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_cut_short_and_not_compressed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"log.csv.{suffix}"
    whole = gzip.compress(GOOD) if suffix == "gz" else pa.compress(GOOD, codec="zstd", asbytes=True)
    for content in (whole[:-5], whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert "cut short or damaged" in failure(tmp_path, config(train=path.name))
    path.write_bytes(GOOD)
    assert f"is not {suffix}, though its name says so; rename it to log.csv" in failure(
        tmp_path, config(train=path.name)
    )


def test_long_line_and_fault_in_a_later_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_reader, "_BLOCK_BYTES", 64)
    (tmp_path / "log.csv").write_bytes(GOOD + b"0,i1,2,\n")
    assert "line 42: 4 fields" in failure(tmp_path, config())
    (tmp_path / "log.csv").write_bytes(GOOD + b"7,i1,2\n")
    assert "line 42: the label" in failure(tmp_path, config())
    (tmp_path / "log.csv").write_bytes(GOOD + b"0,%s,2\n" % (b"x" * 200))
    assert "line 42: it is longer than 64 B" in failure(tmp_path, config())


def test_header_that_never_ends(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b'label,"' + b"x" * 200_000)
    assert "line 1: a quote begins a value here, and the file ends before" in failure(tmp_path, config())


def test_open_quote_in_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_reader, "_BLOCK_BYTES", 1000)
    (tmp_path / "log.csv").write_bytes(GOOD + b'1,"i' + b"x" * 200_000 + b"\n")
    assert "line 42: a quote begins a value here, and 1000 B follow before" in failure(tmp_path, config())


def test_bad_encoded_values(tmp_path: Path) -> None:
    this = config(categorical=(ColumnConfig(name="item", encoded=True),))
    for value in ("-3", "x", "1.5", "9999999999", "99999999999999999999"):
        (tmp_path / "log.csv").write_text(f"label,item,price\n1,2,3\n0,{value},3\n")
        assert f"line 3: the encoded column 'item' is '{value}', expected a whole number" in failure(tmp_path, this)
    (tmp_path / "log.csv").write_text("label,item,price\n" + "1,2000000,3\n0,1,3\n1,2,3\n" * 4)
    assert "'item' has the id 2000000, a table of that many rows for 1" in failure(tmp_path, this)
    this = config(categorical=(ColumnConfig(name="item", encoded=True, max_length=3),))
    (tmp_path / "log.csv").write_text("label,item,price\n1,,3\n0,1|2|x,3\n")
    assert "line 3: the encoded column 'item' is 'x'" in failure(tmp_path, this)


def test_bad_criteo(tmp_path: Path) -> None:
    this = LogConfig(train="log.csv", format="criteo")
    (tmp_path / "log.csv").write_bytes(CRITEO * 3 + CRITEO[2:])
    assert "line 4: 39 fields, expected 40;" in failure(tmp_path, this)
    (tmp_path / "log.csv").write_bytes(b"\n")
    assert "holds no inputs" in failure(tmp_path, this)


def test_nothing_left_for_training(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(HEADER + b"1,a,1\n")
    assert "none is left for training" in failure(tmp_path, config(test_fraction=0.6))


def test_marks_must_differ(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(GOOD)
    assert "must not be a line end or in separator = ':\"'" in failure(tmp_path, config(separator=':"'), RecipeError)


def parquet(folder: Path, **columns: Any) -> LogConfig:
    table = {"label": [0, 1, 1], "item": [1, 2, 3], "price": [1.0, None, 3.0]} | columns
    pq.write_table(pa.table(table), folder / "log.parquet")
    return config(train="log.parquet", format="parquet")


BAD_PARQUET: dict[str, tuple[dict[str, Any], str]] = {
    "fraction": ({"item": [1.0, 2.5, 3.0]}, "input 2: the categorical column 'item' is 2.5"),
    "nan id": ({"item": [1.0, 2.0, float("nan")]}, "input 3: the categorical column 'item' is nan"),
    "list in a plain column": ({"item": [[1], [2], [3]]}, "set its max_length to keep a list"),
    "struct": ({"item": [{"a": 1}] * 3}, "column 'item' is of type struct"),
    "binary": ({"item": [b"a", b"\xff", b"c"]}, "input 2: column 'item' is not UTF-8 ('\\xff')"),
    "dense nan": ({"price": [1.0, float("nan"), 2.0]}, "input 2: the dense column 'price' is nan"),
    "dense text": ({"price": ["1", "", "x"]}, "input 3: the dense column 'price' is 'x', expected a number"),
    "dense list": ({"price": [[1.0]] * 3}, "the dense column 'price' is of type list"),
    "label null": ({"label": [1, 0, None]}, "input 3: the label 'label' is missing, expected 0 or 1"),
    "label half": ({"label": [1, 0.5, 0]}, "input 2: the label 'label' is '0.5', expected 0 or 1"),
}


@pytest.mark.parametrize("case", BAD_PARQUET)
def test_bad_parquet(tmp_path: Path, case: str) -> None:
    columns, expected = BAD_PARQUET[case]
    assert expected in failure(tmp_path, parquet(tmp_path, **columns))


def test_parquet_that_is_none(tmp_path: Path) -> None:
    this = parquet(tmp_path, label=pa.array([], pa.int8()), item=pa.array([], pa.int8()), price=pa.array([], pa.int8()))
    assert "holds no inputs" in failure(tmp_path, this)
    (tmp_path / "log.parquet").write_bytes(GOOD)
    assert "is text and not Parquet" in failure(tmp_path, this)
    this = parquet(tmp_path, item=[1, 2, 3], itemm=[1, 2, 3])
    assert "there is no column 'items'; did you mean 'item" in failure(
        tmp_path, LogConfig(**(vars(this) | {"categorical": ("items",)}))
    )


def test_dense_too_large_for_float32(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(HEADER + b"1,a,1e300\n" * 3)
    assert "line 2: the dense column 'price' is 1e+300" in failure(tmp_path, config(dense_transform="none"))


def test_the_first_of_several_faults_is_reported_whatever_the_threads(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(HEADER + b"1,a,1\n2,a,inf\n")
    assert {"the label" in failure(tmp_path, config()) for _ in range(5)} == {True}
