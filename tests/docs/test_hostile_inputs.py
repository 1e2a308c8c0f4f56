"""The page on hostile inputs names every case, and every file that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "internals" / "hostile_inputs.md").read_text()
ROWS = [row.strip("|").split(" | ") for row in PAGE.splitlines() if row.startswith("| **")]


def test_every_case_is_an_example_of_one_kind() -> None:
    named = [case for row in ROWS for case in re.findall(r"`([a-z0-9-]+)`", row[0])]
    assert len(named) == len(set(named)) == 58
    folders = {path.name for path in (ROOT / "tests" / "cases").iterdir() if path.is_dir()} - {"__pycache__"}
    assert not folders - set(named)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].split("**")[1])
def test_its_files_are_there(row: list[str]) -> None:
    assert len(row) == 6
    for base, cell in (("src/fae", row[2]), ("tests", row[5])):
        names = re.findall(r"`([^`]+)`", cell)
        assert names
        assert [name for name in names if not (ROOT / base / name).exists()] == []
