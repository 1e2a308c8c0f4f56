"""The pages that follow one thing through the code: within a step, calls go level or downward."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(ROOT.glob("docs/internals/follow_*.md"))
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
FLOORS = {
    package.strip().removeprefix("fae."): -level
    for contract in CONTRACTS
    if contract["type"] == "layers"
    for level, packages in enumerate(contract["layers"])
    for package in packages.split("|")
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_steps_go_level_or_down(page: Path) -> None:
    steps = re.findall(r"^\d+\. .*\n(?:   .*\n)*", page.read_text(), re.MULTILINE)
    assert len(steps) > 10
    for step in steps:
        packages = re.findall(r"`(\w+)/[\w/]*\.py", step)
        floors = [FLOORS[package] for package in packages]
        assert floors, step
        assert max(floors) == floors[0], (step, packages)
