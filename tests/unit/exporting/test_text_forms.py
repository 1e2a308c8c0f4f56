"""Files that are written in every way that ingest reads: an exported folder scores them as `fae predict` does."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fae.core.errors import LogError
from fae.exporting.export_run import export
from fae.exporting.standalone.scoring.exported_model import ExportedModel
from fae.exporting.standalone.scoring.input_lists import kept_items
from fae.exporting.standalone.scoring.input_objects import columns_of_objects
from fae.exporting.standalone.scoring.input_text import InputError
from fae.exporting.standalone.scoring.input_times import time_parts
from fae.ingest.column_config import ColumnConfig
from fae.ingest.value_types.date_parts import date_parts
from fae.run.predictions import predict

from commands import succeed, toml

Scored = Callable[[Path], tuple[Any, Any]]


def run(folder: Path, lines: list[str], log: dict[str, Any]) -> Scored:
    """Train on the lines; return a function that scores a file by the run and by its export, or gives their errors."""
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    recipe = {
        "log": {"train": "log.csv", "label": "y", "test_fraction": 0.2, **log},
        "model": {"name": "deepfm", "embedding_dim": 4, "deep_mlp": [4]}, "hot": {"budget": "64KiB"},
        "train": {"batch_size": 16, "learning_rate": 0.2},
    }  # fmt: skip
    (folder / "recipe.toml").write_text(toml(recipe))
    succeed("run", folder / "recipe.toml", "--out", folder / "run")
    export(folder / "run", folder / "served")
    model = ExportedModel(folder / "served")

    def scored(path: Path) -> tuple[Any, Any]:
        found: list[Any] = []
        for score, kind in ((by_run, LogError), (by_export, InputError)):
            try:
                found.append(score(path))
            except kind as error:
                found.append(str(error))
        return found[0], found[1]

    def by_run(path: Path) -> Any:
        return predict(folder / "run", [path])["scores"]

    def by_export(path: Path) -> Any:
        return np.array([score for columns in model.files(path) for score in model.score(columns).tolist()])

    return scored


def is_same(scored: Scored, path: Path, text: bytes) -> None:
    path.write_bytes(text)
    expected, found = scored(path)
    if isinstance(expected, str) or isinstance(found, str):
        assert isinstance(expected, str), (text[:80], found)
        assert isinstance(found, str), (text[:80], expected)
        assert "\n" not in found
        return
    assert len(found) == len(expected)
    assert np.abs(found - expected).max() < 1e-6, text[:80]


HEAD, ONE, TWO = "user,price,both,tags\n", "u1,1.5,1,a1|b1\n", '"u,2",2.5,2,a2|b2|a0\n'
PLAIN: dict[str, str | bytes] = {
    "lines": HEAD + ONE + TWO, "CR LF": (HEAD + ONE + TWO).replace("\n", "\r\n"),
    "CR alone": (HEAD + ONE + TWO).replace("\n", "\r"), "no last end": HEAD + ONE + TWO[:-1],
    "a mark": "\ufeff" + HEAD + ONE, "blank lines first": "\r\n\n" + HEAD + ONE + TWO,
    "a mark and a blank line": "\ufeff\n" + HEAD + ONE, "blank lines between": HEAD + "\n" + ONE + "\n\n" + TWO,
    "a quoted header": '"user","price","both","tags"\n' + ONE,
    "a line end in the header": '"o\nther",' + HEAD + "x," + ONE,
    "a quote in the header": '"o""ther",' + HEAD + "x," + ONE, "a column twice": "user," + HEAD + "x," + ONE,
    "other columns twice": "z,z," + HEAD + "1,2," + ONE,
    "a name that is not UTF-8": b"\xe9," + (HEAD + "x," + ONE).encode(),
    "a line end in a value": HEAD + '"u\n1",1,1,a1\n' + TWO, "a quote in a value": HEAD + 'u"1",1,1,a1\n',
    "an open quote": HEAD + '"u1,1,1,a1\n', "too few fields": HEAD + "u1,1\n", "no inputs": HEAD, "empty": "",
    "odd numbers": HEAD + "u1, +.5e1\t,+1.0,a1\n", "missing words": HEAD + "NA,NA,NA,NA|a1\n" + "NA,-1.0,-1.0,NA\n",
    "infinite": HEAD + "u1,inf,1,a1\n", "no number": HEAD + "u1,1,0x10,a1\n",
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    lines = [f'{at * 7 % 3 % 2},"u,{at % 9}",{at % 7}.5,{at % 5},a{at % 3}|b{at % 4}' for at in range(120)]
    log = {
        "categorical": ["user", "both", {"name": "tags", "max_length": 3}], "dense": ["price", "both"],
        "missing": ["NA", "-1"],
    }  # fmt: skip
    return run(tmp_path_factory.mktemp("plain"), ["y,user,price,both,tags", *lines], log)


def test_plain_text(plain: Scored, tmp_path: Path) -> None:
    for text in PLAIN.values():
        is_same(plain, tmp_path / "odd.csv", text if isinstance(text, bytes) else text.encode())


def test_names_of_files(plain: Scored, tmp_path: Path) -> None:
    is_same(plain, tmp_path / "A.CSV.GZ", gzip.compress((HEAD + ONE).encode()) + gzip.compress(TWO.encode()))
    is_same(plain, Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv")), (HEAD + TWO).encode())
    is_same(plain, tmp_path / "cut.gz", gzip.compress((HEAD + ONE * 5000).encode())[:-9])


def test_marks_of_several_characters_and_escapes(tmp_path: Path) -> None:
    for number, (separator, quote, escape) in enumerate((("||", "'", "\\"), ("§", "", "\\"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        names = ["y", "user", "price", "item"]
        lines = [separator.join((str(at * 7 % 3 % 2), f"u{at % 9}", f"{at % 7},5", f"i{at % 5}")) for at in range(120)]
        log = {
            "categorical": ["user", "item"], "dense": ["price"], "separator": separator, "quote": quote,
            "escape": escape, "missing": ["\\N"], "decimal": ",", "columns": names,
        }  # fmt: skip
        scored = run(folder, lines, log)
        values = [
            "u1", f"{quote}u{separator}1{quote}", f"u{escape}{separator}1", f"{quote}u\n1{quote}", "\\N",
            f"u\\N{quote}", "u\x1f\x01", f"u{escape}\n1", f"u{escape}{escape}", f"u1{separator[0]}",
            f"{quote}\\N{quote}",
        ]  # fmt: skip
        for value in values:
            text = separator.join((value, "1,5", "i1")) + "\n"
            is_same(scored, tmp_path / "odd.csv", text.encode())
        text = separator.join((f"{quote}u{quote}", "1,5", "i1")) + "\n"
        for whole in ("\n" + text.replace("\n", "\r\n"), text.replace("\n", "\r") * 2):
            is_same(scored, tmp_path / "odd.csv", whole.encode())
        for price in ("\\N", "1.5", "1,5"):
            is_same(scored, tmp_path / "odd.csv", separator.join(("u1", price, "i1")).encode())
        is_same(scored, tmp_path / "odd.csv", separator.join(names[1:]).encode() + b"\n" + lines[0].encode())
        is_same(scored, tmp_path / "odd.csv", ("\n".join(lines * 1200) + "\n").encode())  # several blocks


TIMES: list[Any] = [
    1_700_000_000, 1_700_000_000_123, 1_700_000_000_123_456_789, 1000, -1, 1_700_000_000.5, 1.7e18, 1e30, "2024-03-31",
    "2024-03-31 02:30:00", "2024-03-31T02:30:00+05:30", "2024-03-31 02:30:00 UTC", "2024-03-31T02:30:00.123456789Z",
    "2024-03-31T24:00:00", "2024-W10-1", "20240331T073000", "2024-03-31 07:00:00,5", "2024-03-31T02:30:00+05:30:15",
    "9999-12-31 23:59:59", "0001-01-01 00:00:00", "1950-03-31 07:00:00", 20240331, "24033107", "20241331",
    20240331073000, "1.7e9", "noon", "", None, True,
]  # fmt: skip


@pytest.mark.parametrize("part", ["hour", "weekday", "day", "month"])
@pytest.mark.parametrize("zone", [None, "America/St_Johns", "Pacific/Kiritimati"])
def test_parts_of_times_are_those_of_ingest(part: Any, zone: str | None) -> None:
    column = ColumnConfig(name="p", from_="at", part=part, zone=zone)
    feature = {"column": "at", "part": part, "zone": zone}
    arrays = [pa.array([value]) for value in TIMES]
    arrays += [
        pa.array([2**40, -(10**9), None], pa.timestamp("s")), pa.array([10**18 + 1], pa.timestamp("ns", "Asia/Tokyo")),
        pa.array([19_800, None], pa.date32()), pa.array([5], pa.time32("s")), pa.array([17 * 10**8], pa.duration("s")),
    ]  # fmt: skip
    for array in arrays:
        try:
            expected = date_parts(array, column, str).to_pylist()
        except LogError:
            with pytest.raises(InputError):
                time_parts(array, feature, [])
        else:
            assert time_parts(array, feature, []).to_pylist() == expected, array


def schema_of(**features: dict[str, Any]) -> dict[str, Any]:
    plain = {"length": 1, "part": None, "separator": "|", "brackets": False, "padding": None, "weight_separator": ""}
    return {
        "input": {"missing": ["NA", "-1"], "decimal": ","}, "dense": [{"column": "price"}, {"column": "both"}],
        "features": [{"name": name, "column": name, **plain, **facts} for name, facts in features.items()],
    }  # fmt: skip


def test_objects_mix_lists_and_text_and_numbers_and_text() -> None:
    schema = schema_of(both={}, tags={"length": 3})
    rows: list[dict[str, Any]] = [
        {"tags": ["a", "b"], "price": 2.5, "both": True}, {"tags": "a|c", "price": " 2,5", "both": "3"},
        {"tags": None, "price": "NA", "both": "-1,0"}, {"tags": 7, "price": -1, "both": None},
    ]  # fmt: skip
    found = columns_of_objects(rows, schema)
    assert found["tags"].to_pylist() == [["a", "b"], ["a", "c"], None, ["7"]]
    assert found["price"].to_pylist() == [2.5, 2.5, None, -1.0]
    assert found["both"].to_pylist() == ["true", "3", "-1,0", None]
    assert found["\0both"].to_pylist() == [1.0, 3.0, -1.0, None]
    for bad in ("2.5", "1_0", "x", [1], "\u0661"):
        with pytest.raises(InputError, match="expected a number"):
            columns_of_objects([{"price": bad}], schema)


def test_lists_that_are_null_hide_their_items() -> None:
    feature = schema_of(tags={"length": 2})["features"][0]
    array = pa.FixedSizeListArray.from_arrays(pa.array([1, 2, 3, 4, 5, 6]), 2, mask=pa.array([False, True, False]))
    for lists in (array, array.cast(pa.list_(pa.int64())), array.cast(pa.large_list(pa.int64()))):
        found = kept_items(lists, feature, [])
        assert (found.values.to_pylist(), found.rows, found.slots) == (["1", "2", "5", "6"], [0, 0, 2, 2], [0, 1, 0, 1])


def test_lists_of_dictionaries_in_several_groups(plain: Scored, tmp_path: Path) -> None:
    kind = pa.list_(pa.dictionary(pa.int32(), pa.string()))
    table = pa.table(
        {"user": ["u,1"] * 6, "price": [1.0] * 6, "both": [1] * 6, "tags": pa.array([["a1", "b1"], []] * 3, kind)}
    )
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    assert len(plain(tmp_path / "in.parquet")[1]) == 6


def test_a_column_that_no_line_has_is_refused(plain: Scored, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"user": "u1", "price": 1, "tags": []}\n')
    assert "no column 'both'" in plain(tmp_path / "in.jsonl")[1]
    (tmp_path / "in.jsonl").write_text("[" * 100_000 + "\n")
    assert "line 1" in plain(tmp_path / "in.jsonl")[1]
