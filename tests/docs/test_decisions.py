"""The index of decisions names each entry of each page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGES = Path(__file__).resolve().parents[2] / "docs" / "decisions"
ROWS = dict(re.findall(r"^\| \[(\w+\.md)\]\(\w+\.md\) \| .*: ([0-9, to]+) \|$", (PAGES / "index.md").read_text(), re.M))


def numbers(text: str) -> list[int]:
    """
    >>> numbers("4, 7 to 9")
    [4, 7, 8, 9]
    """
    ends = [[int(end) for end in part.split(" to ")] for part in text.split(", ")]
    return [number for pair in ends for number in range(pair[0], pair[-1] + 1)]


@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.glob("*.md") if path.name != "index.md"))
def test_a_page_is_in_the_index_with_all_its_decisions(page: str) -> None:
    found = [int(number) for number in re.findall(r"^\*\*(\d+)\.", (PAGES / page).read_text(), re.M)]
    assert numbers(ROWS[page]) == sorted(found)
