"""What ingest says of logs that are not what their owner meant: shares in summary and record, lines for people."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from case_folders import Case, column_values, copy_case
from fae.artifacts.columnar_log import ColumnarLog

from commands import csv_text, fae, toml, write_log, write_recipe

USERS = [f"u{i % 9}" for i in range(40)]


def said(case: Case, *settings: str, verb: str = "ingest") -> list[str]:
    """The lines of ingest after its first one, without their prefix."""
    replace = ["--replace"] if verb in ("run", "ingest", "train") else []
    done = case.fae(verb, *replace, *(part for text in settings for part in ("--set", text)))
    assert done.status == 0, done.stderr
    return notes_in(done.stderr)


def notes_in(stderr: str) -> list[str]:
    lines = [line.removeprefix("ingest: ") for line in stderr.splitlines() if line.startswith("ingest: ")]
    return [line for line in lines if "categorical and" not in line]


def notes_of(
    folder: Path, columns: dict[str, list[Any]], tests: dict[str, list[Any]] | None = None, **log: Any
) -> list[str]:
    """Ingest a small CSV log of these columns (a label is added) and return its notes; they must have been said."""
    for name, table in (("train", columns), ("test", tests)):
        if table is not None:
            rows = [[i % 2, *row] for i, row in enumerate(zip(*table.values(), strict=True))]
            (folder / f"{name}.csv").write_text(csv_text(rows, ["label", *table]))
    settings = {"train": "train.csv", "categorical": [*columns], "validation_fraction": 0.0, **log}
    settings |= {"test": "test.csv"} if tests is not None else {"test_fraction": 0.2}
    (folder / "recipe.toml").write_text(toml({"log": settings, "hot": {"budget": "64KiB"}}))
    done = fae("ingest", folder / "recipe.toml", "--out", folder / "out")
    assert done.status == 0, done.stderr
    notes = ColumnarLog(folder / "out" / "log").manifest.summary["notes"]
    assert notes_in(done.stderr) == notes
    return list(notes)


def test_test_ids_that_are_all_unknown(tmp_path: Path) -> None:
    case = copy_case("test-ids-all-unknown", tmp_path)
    user, item = said(case)
    for text in ("'user'", "100 %", "test split", "'1'", "'1.0'", "two files write values differently (`9.0` for `9`)"):
        assert text in user
    assert "'item' has a single value in the whole training split, 'i'" in item
    log = ColumnarLog(case.folder / "out" / "log")
    assert log.manifest.summary["unknown_share"] == {
        "train": {"user": 0.0, "item": 0.0},
        "validation": {"user": 0.0, "item": 0.0},
        "test": {"user": 1.0, "item": 0.0},
    }
    assert set(column_values(log, "user")[-120:]) == {None}
    done = case.fae("run", "--json")
    record = json.loads(done.stdout)
    assert record["log"]["unknown_share"]["test"] == {"user": 1.0, "item": 0.0}
    assert record["log"]["notes"] == [user, item]
    assert notes_in(done.stderr)[-2:] == [user, item], "said again by a run that skips ingest"
    assert fae("report", case.folder / "out").status == 0
    page = (case.folder / "out" / "report.html").read_text()
    assert "most unknown ids in test: user, 100.0 %" in re.sub("<[^>]+>", "", page)
    assert "two files write values differently" in page


@pytest.mark.parametrize(
    ("train", "test", "form"),
    [
        (str.lower, str.upper, "upper and lower case"),
        (str, " {} ".format, "spaces around them"),
        (str, "00{}".format, "zeros in front"),
        ("{}.0".format, str, "`9.0` for `9`"),
        (str, "'{}'".format, "quotes around them"),
        (" {}.0".format, str, "spaces around them and `9.0` for `9`"),
    ],
)
def test_each_way_to_write_an_id_differently(tmp_path: Path, train: Any, test: Any, form: str) -> None:
    ids = ["1", "20", "3", "7", "8"] if "9.0" in form else ["1b", "2c", "3a", "7d", "8e"]
    (note,) = notes_of(tmp_path, {"user": [train(u) for u in ids * 8]}, {"user": [test(u) for u in ids]})
    assert f"two files write values differently ({form})" in note
    assert f"such as {test(ids[0])!r}, where training has {train(ids[0])!r}" in note


def test_ids_of_another_form_are_found_among_new_ones(tmp_path: Path) -> None:
    """Half of the test users are new, and of the others only some are written in the other way."""
    train = {"user": [f"{i % 20}.0" for i in range(80)]}
    (note,) = notes_of(tmp_path, train, {"user": [str(i) for i in range(40)]})
    assert "100 %" in note
    assert "'0', where training has '0.0'" in note
    assert notes_of(tmp_path, train, {"user": [f"{i}.0" for i in range(40)]}) == [], "half are new: nothing is said"


def test_unknown_ids_in_parquet_and_criteo_and_lists(tmp_path: Path) -> None:
    for name, text in (("train", "u{}"), ("test", "U{}")):
        users = [text.format(i % 7) for i in range(40)]
        table = {"label": [0, 1] * 20, "user": users, "tags": [[u, u] for u in users]}
        pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")
    columns = ["user", {"name": "tags", "max_length": 3}]
    log = {"format": "parquet", "train": "train.parquet", "test": "test.parquet", "categorical": columns}
    (tmp_path / "recipe.toml").write_text(toml({"log": {**log, "dense": []}, "hot": {"budget": "64KiB"}}))
    done = fae("ingest", tmp_path / "recipe.toml", "--out", tmp_path / "out")
    user, tags = notes_in(done.stderr)
    assert "upper and lower case" in user
    assert "'tags'" in tags
    shares = ColumnarLog(tmp_path / "out" / "log").manifest.summary["unknown_share"]
    assert shares["test"] == {"user": 1.0, "tags": 1.0}
    assert shares["train"] == {"user": 0.0, "tags": 0.0}

    def line(first: str, count: str) -> str:
        return "\t".join(["1" if count else "0", *[count] * 13, first, *["05db9164"] * 12, *["25c83c98"] * 13]) + "\n"

    (tmp_path / "train.tsv").write_text("".join(line(f"0a{i % 5}", str(i) if i % 4 else "") for i in range(40)))
    (tmp_path / "test.tsv").write_text("".join(line(f"a{i % 5}", str(i)) for i in range(20)))
    recipe = {"log": {"format": "criteo", "train": "train.tsv", "test": "test.tsv"}, "hot": {"budget": "64KiB"}}
    (tmp_path / "recipe.toml").write_text(toml(recipe))
    done = fae("ingest", tmp_path / "recipe.toml", "--out", tmp_path / "criteo")
    (note,) = [note for note in notes_in(done.stderr) if "'C1'" in note]
    assert "'a0', where training has '0a0'" in note
    assert "zeros in front" in note
    summary = ColumnarLog(tmp_path / "criteo" / "log").manifest.summary
    assert summary["dense_missing_share"] == {f"I{i}": pytest.approx(10 / 38) for i in range(1, 14)}


def test_encoded_numbers_that_training_never_shows(tmp_path: Path) -> None:
    columns = [{"name": "user", "encoded": True}]
    train, test = {"user": [i % 9 for i in range(40)]}, {"user": [100 + i for i in range(9)]}
    (note,) = notes_of(tmp_path, train, test, categorical=columns)
    assert "'100', where training has '0'" in note


def test_a_split_in_which_a_column_is_empty(tmp_path: Path) -> None:
    train, test = {"user": USERS, "price": [1.5] * 40}, {"user": [""] * 10, "price": [""] * 10}
    user, price = notes_of(tmp_path, train, test, categorical=["user"], dense=["price"])
    assert "'user' has no value in any input of the test split" in user
    assert "'price' has no value in any input of the test split, and training lacks it in 0 %" in price


def test_a_log_sorted_by_label(tmp_path: Path) -> None:
    case = copy_case("one-class", tmp_path)
    (note,) = said(case)
    assert "the validation and test splits have one class only: every label is 0, so AUC is not defined there" in note
    done = case.fae("run", "--json")
    assert "test AUC not defined: every label of the test split is 0" in done.stderr
    assert json.loads(done.stdout)["test"]["auc"] is None
    rows = (case.folder / "a.csv").read_text().splitlines()
    (case.folder / "a.csv").write_text("\n".join([rows[0], *rows[:0:-1]]) + "\n")
    training = said(case)
    assert any("the training split has one class only: every label is 0" in each for each in training) is False
    (note,) = said(case, "log.test_fraction=0.7", "log.validation_fraction=0")
    assert "the training split has one class only: every label is 0" in note


def test_an_empty_test_split_has_no_auc(tmp_path: Path) -> None:
    case = copy_case("one-class", tmp_path)
    done = case.fae("run", "--set", "log.test_fraction=0")
    assert "test AUC not defined: the test split is empty" in done.stderr


def test_dense_columns_without_values(tmp_path: Path) -> None:
    case = copy_case("dense-all-missing", tmp_path)
    (note,) = said(case)
    assert "the dense column 'age' has no value in the whole log" in note
    log = ColumnarLog(case.folder / "out" / "log")
    assert log.manifest.summary["dense_missing_share"] == {"price": pytest.approx(26 / 29), "age": 1.0}
    np.testing.assert_array_equal(log.dense[:, 1], 0)
    assert json.loads(case.fae("run", "--json").stdout)["log"]["dense_missing_share"]["age"] == 1.0


def test_a_dense_column_of_milliseconds(tmp_path: Path) -> None:
    case = copy_case("dense-in-milliseconds", tmp_path)
    (note,) = said(case)
    assert "the dense column 'ts' has values as large as 1.7e+12" in note
    assert said(case, "log.dense_transform=log1p") == []


def test_negative_values_that_vanish(tmp_path: Path) -> None:
    case = copy_case("negative-dense-vanishes", tmp_path)
    (note,) = said(case)
    negative = sum(float(line.split(",")[3]) < 0 for line in (case.folder / "a.csv").read_text().splitlines()[1:])
    assert f"{negative / 2:.1f} % of the values of the dense column 'price' are negative and became 0" in note
    assert 'set dense_transform = "none"' in note
    assert said(case, "log.dense_transform=none") == []
    assert said(case, "log.dense_transform=signed_log1p") == []


def test_a_few_negative_values_need_no_line(tmp_path: Path) -> None:
    prices = [-1 if i % 25 == 0 else i for i in range(100)]
    assert notes_of(tmp_path, {"user": (USERS * 3)[:100], "price": prices}, categorical=["user"], dense=["price"]) == []


def test_lists_that_are_not_what_they_look_like(tmp_path: Path) -> None:
    (note,) = said(copy_case("list-padding-zeros", tmp_path))
    assert "'h' has a single value in the whole training split, '0'" in note
    assert "padding" in note
    case = copy_case("list-separator-never-there", tmp_path)
    (note,) = said(case)
    assert "the list column 'tags' never has more than one item; the separator looked for is '|'" in note
    assert "'a0;b0;c'" in note
    assert "set separator = ';'" in note


def test_a_log_that_is_sorted_by_user(tmp_path: Path) -> None:
    (note,) = said(copy_case("log-out-of-time-order", tmp_path))
    for text in ("'user'", "100 %", "test split", "'u8'", "'u0'", "[log] time"):
        assert text in note


def test_values_that_are_all_rare(tmp_path: Path) -> None:
    (note,) = notes_of(tmp_path, {"user": [f"u{i}" for i in range(40)]}, min_frequency=2)
    assert "none of the 32 values of the column 'user' occurs 2 times in the training split" in note


def test_one_column_as_id_and_as_number(tmp_path: Path) -> None:
    columns = {"user": USERS, "hour": [i % 24 for i in range(40)]}
    assert notes_of(tmp_path, columns, dense=["hour"], dense_transform="none", test_fraction=0.1) == []
    log = ColumnarLog(tmp_path / "out" / "log")
    assert column_values(log, "hour")[:30] == [str(i % 24) for i in range(30)]
    np.testing.assert_array_equal(log.dense[:, 0], [i % 24 for i in range(40)])


def test_a_healthy_log_has_no_notes(tmp_path: Path) -> None:
    write_log(tmp_path)
    done = fae("ingest", write_recipe(tmp_path), "--out", tmp_path / "out")
    assert notes_in(done.stderr) == []
    summary = ColumnarLog(tmp_path / "out" / "log").manifest.summary
    assert summary["notes"] == []
    assert 0 < summary["unknown_share"]["test"]["user"] < 0.5
    assert summary["dense_missing_share"] == {"price": 0.0, "views": 0.0}


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_one_column_as_id_and_as_number_in_every_format(tmp_path: Path, form: str) -> None:
    rows = [{"label": i % 2, "user": USERS[i], "hour": i % 24} for i in range(40)]
    if form == "csv":
        (tmp_path / "log.csv").write_text(csv_text([list(row.values()) for row in rows], rows[0]))
    elif form == "jsonl":
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "log.parquet")
    log = {"format": form, "train": f"log.{form}", "categorical": ["user", "hour"], "dense": ["hour"]}
    recipe = {"log": log, "model": {"embedding_dim": 4}, "hot": {"budget": "64KiB"}, "train": {"batch_size": 8}}
    (tmp_path / "recipe.toml").write_text(toml(recipe))
    done = fae("run", tmp_path / "recipe.toml", "--out", tmp_path / "out", "--device", "cpu")
    assert done.status == 0, done.stderr
    found = ColumnarLog(tmp_path / "out" / "log")
    np.testing.assert_allclose(found.dense[:, 0], np.log1p(np.arange(40) % 24).astype(np.float32))
    assert column_values(found, "hour")[:30] == [str(i % 24) for i in range(30)]
    done = fae("predict", tmp_path / "out", tmp_path / f"log.{form}", "--out", tmp_path / "scores.csv")
    assert done.status == 0, done.stderr
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 41
