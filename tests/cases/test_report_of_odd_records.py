"""A record of any age or of a foreign hand never raises once it is loaded: every value of one replaced by odd ones."""

from __future__ import annotations

import copy
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fae.core.errors import ArtifactError
from fae.report.page import build_page, report
from fae.report.records import RunRecord

from commands import fae, fault, succeed, write_log, write_recipe

ROOT = Path(__file__).resolve().parents[2]
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, -1e308, 5e-324, 10**400, float("nan"), float("inf"), "", "\ud800", "\x1b[2J\u202e", "1e5",
    [], {}, [None], [1, 2, 3], [[1e308, 1e308], [5e-324, -1e308]], {"\ud800": "\ud800"},
)  # fmt: skip
NO_NUMBER = re.compile(
    r'\s(?:d|x|y|cx|cy|r|width|height|viewBox|transform|style)="[^"]*(?:nan|inf)[^"]*"', re.IGNORECASE
)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of a run with all that a page draws: phases, losses, budgets."""
    folder = tmp_path_factory.mktemp("record")
    write_log(folder)
    recipe = write_recipe(folder, train={"order": "adaptive", "epochs": 2})
    found: dict[str, Any] = succeed("run", recipe, "--out", folder / "run", "--json").result
    return found


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of every leaf and every subtree; of lists the first two entries."""
    yield at
    for key in value if isinstance(value, dict) else range(min(2, len(value))) if isinstance(value, list) else ():
        yield from places(value[key], (*at, key))


def replaced(record: dict[str, Any], at: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy of the record with another value at a path."""
    changed: Any = copy.deepcopy(record)
    inner = changed
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return changed  # type: ignore[no-any-return]


def check_page(*records: dict[str, Any]) -> None:
    """The page is there, is UTF-8, and no coordinate is no number."""
    text = build_page([RunRecord(label=f"run {index}", record=one) for index, one in enumerate(records)])
    text.encode()
    assert not NO_NUMBER.search(text)


def test_one_value_is_odd(record: dict[str, Any]) -> None:
    draw = random.Random("odd records")
    for at in list(places(record))[1:]:
        for odd in draw.sample(ODD, 3):
            check_page(replaced(record, at, odd))


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: ascii(odd)[:20])
def test_all_numbers_are_odd(odd: Any, record: dict[str, Any]) -> None:
    def change(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: change(item) for key, item in value.items()}
        if isinstance(value, list):
            return [change(item) for item in value]
        return odd if isinstance(value, (int, float)) else value

    check_page(change(record))
    check_page(change(record), record)


@pytest.mark.parametrize("name", ["paper_orders_rmc1", "paper_rmc3_h100"])
def test_a_record_of_bench(name: str) -> None:
    bench = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    draw = random.Random(name)
    for at in draw.sample(list(places(bench))[1:], 150):
        check_page(replaced(bench, at, draw.choice(ODD)))


CASES = {
    "a lone surrogate in a name": ("tables", 0, "name", "\ud800"),
    "1e308 rows": ("tables", 0, "num_embeddings", 1e308),
    "1e308 bytes": ("hot", "bytes", 1e308),
    "the smallest number in a curve": ("tables", 0, "rows", 0, 5e-324),
}


@pytest.mark.parametrize("case", CASES)
def test_records_that_ended_in_a_traceback(case: str, record: dict[str, Any], tmp_path: Path) -> None:
    *at, value = CASES[case]
    (tmp_path / "run.json").write_text(json.dumps(replaced(record, tuple(at), value)))
    succeed("report", tmp_path)
    check_page(json.loads((tmp_path / "run.json").read_text()))


def test_records_that_are_no_files_of_text(record: dict[str, Any], tmp_path: Path) -> None:
    text = json.dumps(record)
    for depth in (100, 400, 100_000):
        deep = text.replace('"machine": {', '"machine": {"deep": ' + "[" * depth + "]" * depth + ", ", 1)
        (tmp_path / "run.json").write_text(deep)
        try:
            report([tmp_path])
        except ArtifactError as error:
            assert depth > 100
            assert "recursion" in str(error) or "nested too deeply" in str(error)  # noqa: PT017
    (tmp_path / "run.json").write_text("\ufeff" + text, encoding="utf-8")
    succeed("report", tmp_path)
    (tmp_path / "run.json").unlink()
    (tmp_path / "run.json").symlink_to("nowhere")
    fault(fae("report", tmp_path), "holds no run.json")
    (tmp_path / "run.json").unlink()
    os.mkfifo(tmp_path / "run.json")
    fault(fae("report", tmp_path), "holds no run.json")
