"""Settings of [log] in combination, one log in four formats, and lines that must say what helps."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from case_folders import column_values, list_values
from fae.artifacts.columnar_log import ColumnarLog
from fae.core.errors import LogError
from fae.ingest.scored.raw_inputs import RawInputs

from commands import Done, fae, fault, toml

TAGS = {"name": "tags", "max_length": 3, "pooling": "mean"}
Files = Mapping[str, Any]


def run_ingest(folder: Path, files: Files, **log: Any) -> Done:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, dict):
            pq.write_table(pa.table(data), path)
        elif path.suffix == ".gz":
            path.write_bytes(gzip.compress(data.encode()))
        elif path.suffix == ".zst":
            path.write_bytes(pa.compress(data.encode(), codec="zstd", asbytes=True))
        else:
            path.write_text(data, encoding="utf-8", newline="")
    settings = {"label": "y", "dense_transform": "none", "test_fraction": 0.0, "validation_fraction": 0.0, **log}
    if "test" in log:
        del settings["test_fraction"]
    (folder / "recipe.toml").write_text(toml({"log": settings}), encoding="utf-8")
    return fae("ingest", folder / "recipe.toml", "--out", folder / "out")


def ingested(folder: Path, files: Files, **log: Any) -> tuple[ColumnarLog, list[str]]:
    done = run_ingest(folder, files, **log)
    assert done.status == 0, done.stderr
    found = ColumnarLog(folder / "out" / "log")
    return found, found.manifest.summary["notes"]


def test_a_log_without_header_quotes_or_points(tmp_path: Path) -> None:
    files = {
        "a_1.csv.gz": 'yes\tu"1\t1,5\tp;q\t2024\nno\t\\N\t\\N\tNULL\t2025\n',
        "a_2.csv.gz": "no\tu 2\t-0,25\tq;NULL;p;r;s\t2023\n",
        "test.csv.gz": 'yes\t"u\t3\t\t2027\n',
    }
    log, notes = ingested(
        tmp_path, files, train="a_*.csv.gz", test="test.csv.gz", columns=["y", "user", "x", "tags", "t"],
        separator="\t", quote="", decimal=",", missing=["\\N", "NULL"], label_map={"yes": 1, "no": 0}, time="t",
        categorical=["user", {**TAGS, "separator": ";"}], dense=["x"],
    )  # fmt: skip
    assert log.labels.tolist() == [0, 1, 0, 1]
    assert column_values(log, "user") == ["u 2", 'u"1', "", None]
    assert list_values(log, "tags") == [["p", "r", "s"], ["p", "q"], [], []]
    assert log.dense[:, 0].tolist() == [-0.25, 1.5, 0.0, 3.0]
    assert log.split("test") == (3, 4)
    assert any("earlier than one before them" in note for note in notes)


def rows_of_all_kinds(count: int) -> list[dict[str, Any]]:
    draw = random.Random(5)
    return [
        {
            "y": i % 2, "u": draw.choice(["a", "b", "é,x", 'q"z', "7", "", "true"]),
            "n": draw.choice([None, 1, 2, 30, 12345678901]), "tags": [f"t{draw.randrange(6)}" for _ in range(i % 5)],
            "x": draw.choice([None, 1.5, -2.0, 30.0]), "c": draw.choice([None, 0, 1, 2, 5]), "t": draw.randrange(50),
            "w": draw.choice([1, 2.5]),
        }
        for i in range(count)
    ]  # fmt: skip


def as_csv(rows: list[dict[str, Any]], separator: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow(
            ["|".join(each) if isinstance(each, list) else "" if each is None else each for each in row.values()]
        )
    return text.getvalue()


def test_one_log_in_four_formats(tmp_path: Path) -> None:
    rows = rows_of_all_kinds(120)
    types = {"n": pa.float64(), "c": pa.int8(), "t": pa.int32(), "w": pa.float32()}
    columns = {name: pa.array([None if r[name] == "" else r[name] for r in rows], types.get(name)) for name in rows[0]}
    lines = "".join(json.dumps({key: value for key, value in r.items() if value is not None}) + "\n" for r in rows)
    logs = []
    for name, data, settings in (
        ("a.csv", as_csv(rows, ","), {}),
        ("a.tsv.gz", as_csv(rows, "\t"), {"separator": "\t"}),
        ("a.jsonl.zst", lines, {"format": "jsonl"}),
        ("a.parquet", columns, {"format": "parquet"}),
    ):
        folder = tmp_path / name
        log, _ = ingested(
            folder, {name: data}, train=name, categorical=["u", "n", TAGS, {"name": "c", "encoded": True}], dense=["x"],
            time="t", weight="w", min_frequency=2, test_fraction=0.2, validation_fraction=0.1, **settings,
        )  # fmt: skip
        logs.append(log)
    for log in logs[1:]:
        for name in (
            "ids.npy",
            "dense.npy",
            "labels.npy",
            "weights.npy",
            *(f"vocabulary/{i}.parquet" for i in range(4)),
        ):
            assert (log.path / name).read_bytes() == (logs[0].path / name).read_bytes(), (log.path, name)
    ranked = sorted(range(120), key=lambda i: (rows[i]["t"], i))
    assert logs[0].labels.tolist() == [rows[i]["y"] for i in ranked]


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("[a|b]\n[ c | d | e ]\n['g|h', 'i']", {"brackets": True}, [["a", "b"], ["c", "d", "e"], ["g|h", "i"]]),
        ("[0, 3, 0]\n[0]\n[4]", {"brackets": True, "padding": "0"}, [["3"], [], ["4"]]),
        ("[None, 1]\n[nan]\n['None', 3]", {"brackets": True}, [["1"], [], ["3"]]),
        ("['a:1', 'b:2']\n['c:0.5']", {"brackets": True, "weight_separator": ":"}, [["a", "b"], ["c"]]),
        ("0:0|a:1\na:2|b:1", {"padding": "0", "weight_separator": ":"}, [["a"], ["a", "b"]]),
        ("0 0 a\nb 0 0", {"separator": " ", "padding": "0"}, [["a"], ["b"]]),
    ],
)  # fmt: skip
def test_lists_with_several_settings(tmp_path: Path, text: str, settings: dict[str, Any], expected: list[Any]) -> None:
    lines = "".join(f"{i % 2};{line}\n" for i, line in enumerate(text.split("\n")))
    log, notes = ingested(
        tmp_path, {"a.csv": "y;tags\n" + lines}, train="a.csv", separator=";", missing=["None", "nan"],
        categorical=[{**TAGS, **settings}],
    )  # fmt: skip
    assert list_values(log, "tags") == expected
    assert not notes  # lists whose items are left out have had several


def test_times_of_several_types_in_parquet(tmp_path: Path) -> None:
    days = [datetime.datetime(2026, 1, day) for day in (5, 4)]
    files = {
        "a.parquet": {"y": [1, 0], "u": ["a", "b"], "t": pa.array(days, pa.timestamp("s"))},
        "b.parquet": {"y": [1, 0], "u": ["c", "d"], "t": ["2026-01-04 12:00", "2026-01-03"]},
        "c.parquet": {"y": [1, 0], "u": ["e", "f"], "t": pa.array([datetime.date(2026, 1, 6)] * 2, pa.date32())},
    }
    settings = {"train": "*.parquet", "format": "parquet", "categorical": ["u"], "time": "t"}
    log, _ = ingested(tmp_path, files, **settings)
    assert column_values(log, "u") == ["d", "b", "c", "a", "e", "f"]
    zoned = {"d.parquet": {"y": [1], "u": ["g"], "t": pa.array([1], pa.timestamp("us", "UTC"))}}
    fault(run_ingest(tmp_path, zoned, **settings), "d.parquet, input 1: the time 't' is", "a time with a zone")
    known = {"y": [1, 0], "u": ["a", "b"], "t": [5, -1]}
    done = run_ingest(tmp_path, {"n/a.parquet": known}, **{**settings, "train": "n/*", "missing": ["-1"]})
    fault(done, "a.parquet, input 2: the time 't' has no value")


def test_text_as_time_is_told(tmp_path: Path) -> None:
    text = "y,u,t\n1,a,31/01/2024\n0,b,01/02/2024\n"
    log, notes = ingested(tmp_path, {"a.csv": text}, train="a.csv", categorical=["u"], time="t")
    assert column_values(log, "u") == ["b", "a"]
    assert any("text such as '31/01/2024', and are compared byte by byte" in note for note in notes)


def test_equal_bytes_in_folders(tmp_path: Path) -> None:
    files = {f"p/d={day}/x.csv": "y,u\n1,a\n0,b\n" for day in "ab"}
    _, notes = ingested(tmp_path, files, train="p/*/*.csv", categorical=["u"])
    assert len(notes) == 1
    assert notes[0].endswith(": d=b/x.csv and d=a/x.csv")
    log, notes = ingested(tmp_path, files, train="p/*/*.csv", categorical=["u", "d"])
    assert column_values(log, "d") == ["a", "a", "b", "b"]
    assert not notes  # other values of `d` make other inputs of them


def test_lists_of_dictionaries_in_row_groups(tmp_path: Path) -> None:
    lists = pa.array([["a", "b"], ["c"], [], ["a", "d"], ["e"], None], pa.list_(pa.string()))
    tags = pa.ListArray.from_arrays(lists.offsets, lists.values.dictionary_encode())
    pq.write_table(pa.table({"y": [0, 1] * 3, "tags": tags}), tmp_path / "a.parquet", row_group_size=2)
    log, _ = ingested(tmp_path, {}, train="a.parquet", format="parquet", categorical=[TAGS])
    assert list_values(log, "tags") == [["a", "b"], ["c"], [], ["a", "d"], ["e"], []]


def test_nan_of_json_may_be_missing(tmp_path: Path) -> None:
    text = '{"y":1,"u":NaN,"x":NaN,"tags":[NaN,1.0,2]}\n{"y":0,"u":1.0,"x":2}\n'
    settings = {"train": "a.jsonl", "format": "jsonl", "categorical": ["u", TAGS], "dense": ["x"]}
    log, _ = ingested(tmp_path, {"a.jsonl": text}, missing=["nan"], **settings)
    assert column_values(log, "u") == ["", "1"]
    assert list_values(log, "tags") == [["1", "2"], []]
    assert log.dense[:, 0].tolist() == [0.0, 2.0]
    fault(run_ingest(tmp_path, {"a.jsonl": text}, **settings), "line 1: the column 'u' is nan", 'name "nan" in [log]')


PARQUET = {"train": "a.parquet", "format": "parquet", "categorical": ["u"]}


@pytest.mark.parametrize(
    ("files", "settings", "expected"),
    [
        ({"a.csv": "Label,User\n1,a\n"}, {"label": "label"}, ["did you mean 'Label'?"]),
        ({"a.csv": "Label,USER\n1,a\n"}, {"label": "Label", "categorical": ["user"]}, ["did you mean 'USER'?"]),
        ({"a.csv": 'y,u\n1,"a \\"b\\" c"\n'}, {}, ["line 2: a quote begins", 'set [log] escape = "\\\\"']),
        ({"a.csv": 'y,u\n1,"a 5\\""\n0,"x"\n'}, {}, ["line 2: a quote begins", 'set [log] escape = "\\\\"']),
        (
            {"a.parquet": {"y": [1, 0], "u": [True, False], "v": [1, 0]}},
            {**PARQUET, "categorical": ["u", {"name": "v", "table": "u"}]},
            ["the column 'v' is of type int64, and 'u', with which it shares a table, in ", "of type bool"],
        ),
        ({"a.parquet": {"y": [1, 0], "u": [1.0, math.nan]}}, PARQUET, ["input 2", 'in [log] missing (["nan"])']),
        (
            {"a.parquet": {"y": [1, 0], "u": [1, 2], "z": [[1], [2]]}},
            {**PARQUET, "split": "random", "split_by": "z"},
            ["the column of [log] split_by 'z' is of type list", "expected one value an input"],
        ),
        (
            {"a.parquet": {"y": [1, 0], "u": [1, 2], "z": np.array(["2026-01-05"] * 2, "datetime64[s]")}},
            {**PARQUET, "dense": ["z"]},
            ["expected numbers; write it as numbers, or list it as categorical"],
        ),
    ],
)  # fmt: skip
def test_a_line_that_helps(tmp_path: Path, files: Files, settings: dict[str, Any], expected: list[str]) -> None:
    line = fault(run_ingest(tmp_path, files, **{"train": "a.csv", "categorical": ["u"], **settings}), *expected)
    assert "max_length" not in line
    assert len(line.replace(str(tmp_path), "")) < 300


def test_files_to_score_with_a_header_or_another_point(tmp_path: Path) -> None:
    lines = "".join(f"{i % 2};u{i % 5};{i % 7},5\n" for i in range(40))
    log, _ = ingested(
        tmp_path, {"a.csv": lines}, train="a.csv", columns=["y", "u", "x"], separator=";", decimal=",",
        categorical=["u"], dense=["x"],
    )  # fmt: skip
    for text, expected in (
        (
            "u;x\nu1;1\n",
            "n.csv, line 1: it is a header with the names of [log] columns; remove the line (files to score",
        ),
        ("u1;1.5\n", "n.csv, line 1: field 2 is '1.5', expected a number; "),
    ):
        (tmp_path / "n.csv").write_text(text)
        with pytest.raises(LogError) as caught:
            list(RawInputs(log, [str(tmp_path / "n.csv")]).stream([]))
        assert expected in str(caught.value)
        assert str(caught.value).endswith("(files to score are read as [log] of the run says)")
