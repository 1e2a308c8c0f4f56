"""Columns that share a table: one vocabulary, the counts of all, one table, and shares by column."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from case_folders import Case, copy_case, vocabulary
from fae.artifacts.columnar_log import ColumnarLog, feature_tables, model_features

from commands import fae, fault

SHARED = 'log.categorical=["item", {name = "last_item", table = "item"}]'


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return copy_case("one-table-two-columns", tmp_path)


def write_case(case: Case, text: str, categorical: str) -> ColumnarLog:
    (case.folder / "a.csv").write_text(text)
    return case.ingest(f"log.categorical={categorical}", "log.test_fraction=0.25", "log.validation_fraction=0")


def test_one_vocabulary_counts_of_both_one_table(case: Case) -> None:
    log = case.ingest(SHARED)
    (table,) = log.features
    assert (table.name, table.num_embeddings, table.length) == ("item", 8, 2)
    # 29 inputs: item begins with i0, last_item with i1.
    assert dict(zip(vocabulary(log, "item"), log.counts.tolist(), strict=True)) == {
        "i0": 9, "i1": 9, "i2": 8, "i3": 8, "i4": 8, "i5": 8, "i6": 8, None: 0,
    }  # fmt: skip
    assert log.counts.sum() == 58
    values = vocabulary(log, "item")
    assert [[values[i] for i in row] for row in log.ids[:3].tolist()] == [["i0", "i1"], ["i1", "i2"], ["i2", "i3"]]
    assert [feature.name for feature in model_features(log.features)] == ["item", "last_item"]
    assert feature_tables(log.features) == [0, 0]


def test_without_the_key_there_are_two_tables(case: Case) -> None:
    log = case.ingest()
    assert [feature.name for feature in log.features] == ["item", "last_item"]
    assert all("parts" not in feature for feature in log.manifest.summary["features"])


def test_ties_are_numbered_input_by_input(case: Case) -> None:
    log = write_case(case, "y,last_item,item\n0,b,a\n1,d,c\n0,,e\n1,zz,a\n", SHARED.partition("=")[2])
    # Of one input the table's own column comes first, whatever the order of the file is.
    assert vocabulary(log, "item") == ["a", "b", "c", "d", "e", "", None]


def test_the_order_of_the_recipe_does_not_matter(case: Case) -> None:
    log = case.ingest('log.categorical=[{name = "last_item", table = "item"}, "item"]')
    again = case.ingest(SHARED)
    assert again.ids.tolist() == log.ids.tolist()
    assert [part.name for part in again.features[0].parts] == ["item", "last_item"]


def test_a_list_shares_with_a_plain_column(case: Case) -> None:
    log = write_case(
        case,
        "y,item,last_item\n0,a,b|a\n1,b,\n0,a,c|0\n1,q,a\n",
        '["item", {name = "last_item", table = "item", max_length = 3, pooling = "mean", padding = "0"}]',
    )
    assert vocabulary(log, "item") == ["a", "b", "c", None]
    assert log.ids.tolist() == [[0, 1, 0, -1], [1, -1, -1, -1], [0, 2, -1, -1], [3, 0, -1, -1]]
    assert log.counts.tolist() == [3, 2, 1, 0]
    assert log.manifest.summary["missing_share"] == {"item": 0.0, "last_item": pytest.approx(1 / 3)}
    assert log.manifest.summary["unknown_share"]["test"] == {"item": 1.0, "last_item": 0.0}


def test_encoded_columns_share_up_to_the_largest_number_of_both(case: Case) -> None:
    log = write_case(
        case, "y,item,last_item\n0,2,5\n1,0,2\n0,2,\n1,9,0\n",
        '[{name = "item", encoded = true}, {name = "last_item", encoded = true, table = "item"}]',
    )  # fmt: skip
    assert log.features[0].num_embeddings == 7
    assert log.ids.tolist() == [[2, 5], [0, 2], [2, 6], [6, 0]]


def test_min_frequency_counts_both_columns_together(case: Case) -> None:
    log = write_case(
        case, "y,item,last_item\n0,a,b\n1,b,c\n0,d,a\n1,a,a\n",
        '[{name = "item", min_frequency = 2}, {name = "last_item", table = "item"}]',
    )  # fmt: skip
    assert vocabulary(log, "item") == ["a", "b", None]
    assert log.manifest.summary["unknown_share"]["train"] == {
        "item": pytest.approx(1 / 3), "last_item": pytest.approx(1 / 3),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ('log.categorical=["item", {name = "last_item", table = "itm"}]', "is no categorical column"),
        ('log.categorical=["item", {name = "last_item", table = "item", encoded = true}]', "set both to one"),
        ('log.categorical=["item", {name = "last_item", table = "item", min_frequency = 3}]', "set it of 'item'"),
    ],
)
def test_settings_that_do_not_fit(case: Case, settings: str, line: str) -> None:
    fault(case.fae("ingest", "--set", settings), line)


def test_embedding_dims_name_the_table(case: Case) -> None:
    done = case.fae("ingest", "--set", SHARED, "--set", "model.embedding_dims={last_item = 8}")
    fault(done, "embedding_dims names 'last_item', which has no table of its own: it shares that of 'item'")


def test_a_run_is_trained_continued_scored_and_reported(case: Case) -> None:
    dims = ("--set", "model.embedding_dims={item = 8}")
    done = case.fae("run", "--set", SHARED, *dims)
    assert done.status == 0, done.stderr
    record = json.loads((case.folder / "out" / "run.json").read_text())
    assert [table["name"] for table in record["tables"]] == ["item"]
    page = case.folder / "report.html"
    reported = fae("report", case.folder / "out", "--out", page)
    assert reported.status == 0, reported.stderr
    assert "item, last_item" in page.read_text()
    assert "2 categorical features" in page.read_text()
    (case.folder / "b.csv").write_text("y,item,last_item\n" + "1,i0,new\n0,new,i3\n" * 20)
    out = case.folder / "next"
    later = fae(
        "run", case.folder / "recipe.toml", "--out", out, "--set", SHARED, *dims, "--set", "log.train=b.csv",
        "--set", f"train.from={case.folder / 'out'}",
    )  # fmt: skip
    assert later.status == 0, later.stderr
    before, after = ColumnarLog(case.folder / "out" / "log"), ColumnarLog(out / "log")
    assert after.manifest.summary["appended"] == {"item": 1}
    assert vocabulary(after, "item") == [*vocabulary(before, "item"), "new"]
    scores = case.folder / "scores.csv"
    scored = fae("predict", out, case.folder / "a.csv", "--out", scores, "--json")
    assert scored.status == 0, scored.stderr
    assert json.loads(scored.stdout)["unknown_share"] == {"item": 0.0, "last_item": 0.0}
    tested = fae("evaluate", case.folder / "out", case.folder / "a.csv", "--json")
    assert tested.status == 0, tested.stderr
    apart = fae(
        "run", case.folder / "recipe.toml", "--out", case.folder / "apart", *dims, "--set", "log.train=b.csv",
        "--set", f"train.from={case.folder / 'out'}",
    )  # fmt: skip
    fault(apart, "categorical last_item: table = None, and the run to continue was made with 'item'")
