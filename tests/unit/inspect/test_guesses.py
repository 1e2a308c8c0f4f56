"""Odd ways to write a log: what is guessed of format, kinds and label, and that the first recipe can be ingested."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.commands import succeed

from fae.inspect.inspection import Inspection, inspect_files

Row = Callable[[random.Random, int], list[Any]]
COUNT = 400


def user(draw: random.Random) -> str:
    return f"u{draw.randrange(50)}"


CASES: dict[str, tuple[str, list[str], Row, dict[str, str]]] = {
    "line ends in quotes": (
        ",", ["click", "title", "user"],
        lambda draw, row: [row % 2, f'"A ""big"" day,\n of {draw.randrange(9)} x"', user(draw)],
        {"click": "label", "title": "categorical", "user": "categorical"},
    ),
    "decimal comma": (
        ";", ["label", "user", "price"],
        lambda draw, row: [draw.randrange(2), user(draw), f"{draw.random() * 9:.2f}".replace(".", ",")],
        {"label": "label", "user": "categorical", "price": "number"},
    ),
    "ratings": (
        ",", ["userId", "movieId", "rating", "timestamp"],
        lambda draw, row: [
            draw.randrange(60), draw.randrange(90), draw.choice([1, 2, 3, 3.5, 4, 5]), 10**9 + draw.randrange(10**7),
        ],
        {"userId": "categorical", "movieId": "categorical", "rating": "label", "timestamp": "timestamp"},
    ),
    "minus one and one": (
        ",", ["y", "user"], lambda draw, row: [draw.choice([-1, 1]), user(draw)], {"y": "label", "user": "categorical"},
    ),
    "words for missing": (
        "\t", ["clk", "age", "user"],
        lambda draw, row: [draw.randrange(2), draw.choice(["NULL", 20 + row % 50]), draw.choice(["\\N", user(draw)])],
        {"clk": "label", "age": "count", "user": "categorical"},
    ),
    "several characters between fields": (
        "::", ["label", "user", "item"], lambda draw, row: [draw.randrange(2), user(draw), draw.randrange(30)],
        {"label": "label", "user": "categorical", "item": "categorical"},
    ),
    "weighted and padded lists": (
        ",", ["label", "tags", "history"],
        lambda draw, row: [
            draw.randrange(2),
            "|".join(f"t{draw.randrange(40)}:{draw.random():.2f}" for _ in range(draw.randrange(1, 5))),
            "|".join([str(draw.randrange(1, 30)) for _ in range(row % 4 + 1)] + ["0"] * (3 - row % 4)),
        ],
        {"label": "label", "tags": "list", "history": "list"},
    ),
    "printed lists": (
        "\t", ["label", "items"],
        lambda draw, row: [draw.randrange(2), [draw.randrange(40) for _ in range(draw.randrange(5))]],
        {"label": "label", "items": "list"},
    ),
    "lists between spaces": (
        "\t", ["label", "history"],
        lambda draw, row: [draw.randrange(2), " ".join(f"N{draw.randrange(90)}" for _ in range(draw.randrange(1, 6)))],
        {"label": "label", "history": "list"},
    ),
    "one name twice": (
        ",", ["label", "a", "a", "b"], lambda draw, row: [draw.randrange(2), 1, user(draw), user(draw)],
        {"label": "label", "b": "categorical", "a": "not read"},
    ),
    "sorted by label": (
        ",", ["label", "user"], lambda draw, row: [int(row > 280), user(draw)],
        {"label": "label", "user": "categorical"},
    ),
}  # fmt: skip


def look(folder: Path, case: str) -> tuple[Path, Inspection]:
    separator, head, row, _ = CASES[case]
    draw = random.Random(2)
    lines = [separator.join(head)] + [separator.join(map(str, row(draw, number))) for number in range(COUNT)]
    path = folder / "log.csv"
    path.write_text("\n".join(lines) + "\n")
    return path, inspect_files([str(path)])


@pytest.mark.parametrize("case", CASES)
def test_kinds_and_a_recipe_that_can_be_ingested(case: str, tmp_path: Path) -> None:
    path, found = look(tmp_path, case)
    assert found.lines_read == COUNT
    assert {column.name: column.kind for column in found.columns} == CASES[case][3]
    succeed("init", path, "--out", tmp_path / "my.toml")
    succeed("ingest", tmp_path / "my.toml", "--out", tmp_path / "run")


def test_lists_are_read_as_they_are_written(tmp_path: Path) -> None:
    columns = {column.name: column for column in look(tmp_path, "weighted and padded lists")[1].columns}
    tags, history = columns["tags"].lists, columns["history"].lists
    assert tags is not None
    assert history is not None
    assert (tags.separator, tags.weight_separator, tags.longest, tags.padding) == ("|", ":", 4, None)
    assert (history.padding, history.longest) == ("0", 4)
    assert columns["tags"].values.distinct == 40
    assert "0" not in columns["history"].values.texts.to_pylist()


def test_a_log_sorted_by_label_is_split_at_random(tmp_path: Path) -> None:
    path, _ = look(tmp_path, "sorted by label")
    assert 'split = "random"' in succeed("init", path).stdout


def test_words_for_missing_values_are_taken_out(tmp_path: Path) -> None:
    path, found = look(tmp_path, "words for missing")
    columns = {column.name: column for column in found.columns}
    assert columns["age"].missing_words == ("NULL",)
    assert columns["user"].missing_words == ("\\N",)
    assert 'missing = ["NULL", "\\\\N"]' in succeed("init", path).stdout
