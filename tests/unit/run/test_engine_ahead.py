"""What a command begins before it has read its recipe."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from fae.run.ahead import engine_ahead

from commands import write_log, write_recipe

_LOOPS = """
import sys
from fae.run.ahead.engine_ahead import _prepare_ingest
from fae.run.ahead.ingest_loops import ingest_loops

loops = [loop for loop, types in ingest_loops("csv")]
assert not any(loop.signatures for loop in loops)
_prepare_ingest("csv")
print(sum(bool(loop.signatures) for loop in loops), len(loops))
"""
_PANDAS = """
import sys
import fae.cli.main
from fae.ingest.shards.reading_loops import look_for_pandas

look_for_pandas(find=sys.argv[1] == "found")
print("pandas" in sys.modules)
"""


def options_of(recipe: Path) -> argparse.Namespace:
    return argparse.Namespace(recipe=str(recipe), out=str(recipe.parent / "run"))


def output_of(program: str, *arguments: str, path: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {path!r})\n{program}", *arguments],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_log_of_a_recipe_is_found_before_recipes_can_be_read(tmp_path: Path) -> None:
    log = write_log(tmp_path)
    found = engine_ahead._log_to_read(options_of(write_recipe(tmp_path)))
    assert found == ("csv", [log], log.stat().st_size)


def test_a_log_that_is_columnar_already_is_not_read(tmp_path: Path) -> None:
    write_log(tmp_path)
    (tmp_path / "run" / "log").mkdir(parents=True)
    assert engine_ahead._log_to_read(options_of(write_recipe(tmp_path))) == ("", [], 0)


@pytest.mark.parametrize("text", ["not TOML [", "[log]\ntrain = 3", "x = 1", None])
def test_a_recipe_that_is_wrong_begins_nothing(tmp_path: Path, text: str | None) -> None:
    recipe = tmp_path / "recipe.toml"
    if text is not None:
        recipe.write_text(text)
    assert engine_ahead._log_to_read(options_of(recipe)) == ("", [], 0)


def test_loops_of_ingest_that_are_kept_are_loaded(tmp_path: Path) -> None:
    write_log(tmp_path)
    recipe = write_recipe(tmp_path)
    command = [sys.executable, "-m", "fae", "ingest", str(recipe), "--out", str(tmp_path / "run")]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    loaded, number = map(int, output_of(_LOOPS).split())
    assert 0 < loaded <= number


@pytest.mark.parametrize("found", ["found", "hidden"])
def test_pandas_is_imported_only_where_somebody_may_rely_on_it(tmp_path: Path, found: str) -> None:
    (tmp_path / "pandas").mkdir()
    (tmp_path / "pandas" / "__init__.py").write_text("__version__ = '0.1'\n")
    assert output_of(_PANDAS, found, path=str(tmp_path)) == str(found == "found")
