"""Logs that a stranger brings: what is no log is told in one line, any other gets a recipe that can be ingested."""

from __future__ import annotations

import datetime as dt
import random
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.commands import fae, fault, succeed

from fae.inspect.first_recipe import first_recipe
from fae.inspect.inspection import Inspection, inspect_files
from fae.inspect.inspection_text import inspection_warnings

COUNT = 300
HEADER = ["click", "user", "item"]


def rows(count: int = COUNT) -> list[list[Any]]:
    draw = random.Random(4)
    return [[int(draw.random() < 0.3), f"u{draw.randrange(40)}", f"i{draw.randrange(60)}"] for _ in range(count)]


def text(lines: Sequence[Sequence[Any]], separator: str = ",") -> str:
    return "".join(separator.join(map(str, line)) + "\n" for line in lines)


def with_column(folder: Path, name: str, values: Sequence[Any]) -> Path:
    """A log of three columns and one more."""
    path = folder / "log.tsv"
    lines = [[*HEADER, name], *([*row, value] for row, value in zip(rows(len(values)), values, strict=True))]
    path.write_text(text(lines, "\t"))
    return path


def kinds(path: Path) -> dict[str, str]:
    return {column.name: column.kind for column in inspect_files([str(path)]).columns}


def made_and_ingested(path: Path, *options: str) -> str:
    """The recipe that init writes, after it was ingested without a change."""
    recipe = path.parent / "made.toml"
    succeed("init", path, "--out", recipe, "--force", *options)
    succeed("ingest", recipe, "--out", path.parent / "run")
    return recipe.read_text()


SPELLINGS: dict[str, Callable[[dt.datetime], str]] = {
    "11/15/2019 8:50 AM": lambda at: f"{at.month}/{at.day}/{at.year} {at:%I:%M %p}",
    "11/15/2019 8:50": lambda at: f"{at.month}/{at.day}/{at.year} {at.hour}:{at:%M}",
    "11/15/2019": lambda at: f"{at:%m/%d/%Y}",
    "11/15/19": lambda at: f"{at:%m/%d/%y}",
    "15.11.2019 08:50": lambda at: f"{at:%d.%m.%Y %H:%M}",
    "15-11-2019": lambda at: f"{at:%d-%m-%Y}",
    "2019/11/15 08:50:00": lambda at: f"{at:%Y/%m/%d %H:%M:%S}",
    "2019/11/15": lambda at: f"{at:%Y/%m/%d}",
    "15/Nov/2019:08:50:00 +0000": lambda at: f"{at:%d/%b/%Y:%H:%M:%S} +0000",
    "Fri, 15 Nov 2019 08:50:00 GMT": lambda at: f"{at:%a, %d %b %Y %H:%M:%S} GMT",
    "Fri Nov 15 08:50:00 2019": lambda at: at.ctime(),
    "Nov 15, 2019": lambda at: f"{at:%b %d, %Y}",
    "15-Nov-2019": lambda at: f"{at:%d-%b-%Y}",
    "20191115T085000": lambda at: f"{at:%Y%m%dT%H%M%S}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_dates_that_are_not_read_are_no_categories(spelling: str, tmp_path: Path) -> None:
    times = [dt.datetime(2019, 11, 1) + dt.timedelta(hours=2.3 * row) for row in range(COUNT)]
    path = with_column(tmp_path, "at", [SPELLINGS[spelling](at) for at in times])
    found = inspect_files([str(path)])
    assert {column.name: column.kind for column in found.columns}["at"] == "not read"
    assert any(line.startswith("'at' is not read: dates such as ") for line in inspection_warnings(found))
    recipe = made_and_ingested(path)
    assert '"at"' not in recipe
    assert "written as 2019-11-24 08:05:00 they order the log" in recipe


@pytest.mark.parametrize("value", ["10.1.14", "192.168.1.7", "3/4", "1-2-3", "march madness", "may"])
def test_no_dates(value: str, tmp_path: Path) -> None:
    path = with_column(tmp_path, "what", [value, "other"] * (COUNT // 2))
    assert kinds(path)["what"] == "categorical"


@pytest.mark.parametrize(("days", "expected"), [(1, []), (2, ["hour"]), (9, ["hour"]), (10, ["hour", "weekday"])])
def test_parts_of_times_that_the_test_split_has_in_common(days: int, expected: list[str], tmp_path: Path) -> None:
    """In a sorted log of one day every hour of the test is new, of a week every weekday: nothing learns from them."""
    step = dt.timedelta(days=days) / COUNT
    times = [dt.datetime(2026, 9, 1) + row * step for row in range(COUNT)]
    config = tomllib.loads(first_recipe(look(with_column(tmp_path, "at", times))))["log"]
    parts = [column for column in config["categorical"] if isinstance(column, dict) and "part" in column]
    assert [column["part"] for column in parts] == expected
    first, last = times[: 7 * COUNT // 10], times[8 * COUNT // 10 :]
    part_of: dict[str, Callable[[dt.datetime], int]] = {"hour": lambda at: at.hour, "weekday": dt.datetime.weekday}
    for name in expected:
        assert {*map(part_of[name], last)} <= {*map(part_of[name], first)}


def test_infinite_numbers_are_missing_ones(tmp_path: Path) -> None:
    path = with_column(tmp_path, "ratio", [("inf", "-inf")[row % 2] if row % 9 == 0 else row / 7 for row in range(300)])
    assert kinds(path)["ratio"] == "number"
    assert 'missing = ["-inf", "inf"]' in made_and_ingested(path)


def test_numbers_with_signs_are_told(tmp_path: Path) -> None:
    for shown in ("${}", "{}%", "{} €"):
        path = with_column(tmp_path, "price", [shown.format(row % 50 + 0.25) for row in range(COUNT)])
        assert any(line.startswith("'price' has numbers with signs") for line in warnings(path)), shown
    path = with_column(tmp_path, "price", [f"i{row % 50}" for row in range(COUNT)])
    assert not any("signs" in line for line in warnings(path))


def warnings(path: Path) -> list[str]:
    return inspection_warnings(inspect_files([str(path)]))


@pytest.fixture
def odd_types(tmp_path: Path) -> Path:
    path = tmp_path / "log.parquet"
    table = pa.table(
        {
            "click": [row % 3 == 0 for row in range(COUNT)],
            "user": [f"u{row % 20}" for row in range(COUNT)],
            "digest": [bytes([255, row % 9]) for row in range(COUNT)],
            "digests": [[bytes([255, row % 9])] for row in range(COUNT)],
            "vector": [[0.5, float(row % 4)] for row in range(COUNT)],
            "whole": [[2.0, float(row % 4)] for row in range(COUNT)],
        }
    )
    pq.write_table(table, path)
    return path


def test_bytes_and_vectors_of_parquet_are_not_read(odd_types: Path) -> None:
    assert kinds(odd_types) == {
        "click": "label", "user": "categorical", "digest": "not read", "digests": "not read", "vector": "not read",
        "whole": "list",
    }  # fmt: skip
    recipe = made_and_ingested(odd_types)
    assert "# * digest is not read: bytes that are no UTF-8 text" in recipe
    assert "# * vector is not read: lists of numbers with fractions" in recipe


def test_vectors_of_json_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(
        "".join(f'{{"click": {row % 2}, "user": "u{row % 9}", "vector": [0.5, {row}.25]}}\n' for row in range(COUNT))
    )
    assert kinds(path) == {"click": "label", "user": "categorical", "vector": "not read"}
    made_and_ingested(path)


def test_fields_between_spaces(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(text([HEADER, *rows()], " "))
    assert kinds(path) == {"click": "label", "user": "categorical", "item": "categorical"}
    assert 'separator = " "' in made_and_ingested(path)


NO_LOGS: dict[str, tuple[str, str]] = {
    "LIBSVM": (text([[row % 2, f"{row % 9 + 1}:1 {row % 7 + 20}:0.5"] for row in range(50)], " "), "is text of LIBSVM"),
    "Vowpal Wabbit": ("".join(f"-1 |u u{row} |i i{row}\n" for row in range(50)), "is text of Vowpal Wabbit"),
    "CR alone": (text([HEADER, *rows(50)]).replace("\n", "\r"), "its lines end in CR alone"),
    "a line above the header": ("# of Monday\n" + text([HEADER, *rows(50)]), "line 1 has 1 field, and no line behind"),
    "a header alone": ("click,user\n", "holds no inputs"),
}


@pytest.mark.parametrize("case", NO_LOGS)
def test_what_is_no_log_is_told(case: str, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(NO_LOGS[case][0])
    fault(fae("inspect", path), NO_LOGS[case][1])
    fault(fae("init", path), NO_LOGS[case][1])


def labelled(folder: Path, name: str, labels: Sequence[Any], shared: str = "") -> Path:
    path = folder / "log.csv"
    head = [name, "user", "item", *([shared] if shared else [])]
    lines = [[label, *row[1:], *([1] if shared else [])] for label, row in zip(labels, rows(len(labels)), strict=True)]
    path.write_text(text([head, *lines]))
    return path


def look(path: Path, label: str | None = None) -> Inspection:
    return inspect_files([str(path)], label=label)


def test_the_rarer_of_two_words_is_1(tmp_path: Path) -> None:
    labels = ["purchased" if row % 4 == 0 else "abandoned" for row in range(COUNT)]
    path = labelled(tmp_path, "outcome", labels)
    found = look(path).label
    assert found is not None
    assert (found.meanings, found.rate, found.is_guessed_rarer) == ({"abandoned": 0, "purchased": 1}, 0.25, True)
    assert any(line.startswith("'purchased' of the label 'outcome' is taken as 1") for line in warnings(path))
    assert 'label_map = { "abandoned" = 0, "purchased" = 1 }' in made_and_ingested(path)
    elsewhere = labelled(tmp_path, "state", labels)
    assert look(elsewhere).label is None
    named = look(elsewhere, "state").label
    assert named is not None
    assert named.meanings == found.meanings
    made_and_ingested(elsewhere, "--label", "state")


def test_any_numbers_can_be_a_label_that_is_named(tmp_path: Path) -> None:
    path = labelled(tmp_path, "seconds", [row * 0.5 for row in range(COUNT)])
    assert look(path).label is None
    found = look(path, "seconds").label
    assert found is not None
    assert (found.threshold, found.rate) == (75.0, 0.5)
    assert "label_threshold = 75 " in made_and_ingested(path, "--label", "seconds")


@pytest.mark.parametrize(
    ("labels", "shared", "expected"),
    [
        ([1] * 60, "", "'click' would be the label and has one value, '1'"),
        ([""] * 60, "", "'click' would be the label and has no value"),
        ([0, 1] * 30, "click", "'click' would be the label and is not read (several columns have this name)"),
    ],
)
def test_why_there_is_no_label(labels: list[Any], shared: str, expected: str, tmp_path: Path) -> None:
    path = labelled(tmp_path, "click", labels, shared)
    assert any(line.startswith(expected) for line in warnings(path))
    fault(fae("init", path), expected)


def test_missing_labels_and_odd_lines_are_told(tmp_path: Path) -> None:
    path = labelled(tmp_path, "click", ["" if row % 10 == 0 else row % 2 for row in range(COUNT)])
    with path.open("a") as file:
        file.write("1,u1\n1,u2\n")
    done = succeed("init", path)
    assert "# 2 lines are no inputs, and ingest stops at the first: correct them before." in done.stdout
    assert "# 30 inputs have no label, and ingest stops at the first: take them out" in done.stdout
    assert "It runs as it is" not in done.stdout
    assert done.stderr.count("init: ") == 2


@pytest.mark.parametrize("count", [2, 5, 20, 199, 200])
def test_tiny_logs_are_trained_without_a_change(count: int, tmp_path: Path) -> None:
    path = labelled(tmp_path, "click", [row % 2 for row in range(count)])
    path.write_text(path.read_text().replace(",i", ",j"))
    recipe = tmp_path / "made.toml"
    succeed("init", path, "--out", recipe)
    assert ("early_stopping" in recipe.read_text()) == (count >= 200)
    succeed("run", recipe, "--out", tmp_path / "run", "--set", "train.epochs=1")


def test_a_growing_id_is_no_time(tmp_path: Path) -> None:
    path = with_column(tmp_path, "id", [10**18 + 7 * row for row in range(COUNT)])
    assert kinds(path)["id"] in ("row number", "key")
    path = with_column(tmp_path, "created", [1_600_000_000 + 7 * row for row in range(COUNT)])
    assert kinds(path)["created"] == "timestamp"


def test_one_input(tmp_path: Path) -> None:
    path = labelled(tmp_path, "click", [1])
    assert "1 input, which is all\n" in succeed("inspect", path).stdout
