"""The types for which loops are compiled ahead are those of a training, and it calls no loop with others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from commands import write_log, write_recipe

_TRAIN = """
import sys, threading
import fae
from fae.run.loops_ahead import loop_shapes
from fae.streaming.compile_ahead import THREAD_NAME, training_loops

recipe = fae.load_recipe(sys.argv[1])
shapes = loop_shapes(recipe, None, "cpu")
before = {loop.py_func: list(loop.signatures) for loop, _ in training_loops(shapes)}
assert before and not any(before.values()), before
fae.RunFolder(recipe, sys.argv[2], device="cpu").run()
for thread in threading.enumerate():
    if thread.name == THREAD_NAME:
        thread.join()
for loop, types in training_loops(shapes):
    assert loop.signatures == [types], (loop.py_func.__qualname__, types, loop.signatures)
"""

TWO_WIDTHS = {"name": "wide_deep", "bottom_mlp": None, "top_mlp": None, "embedding_dims": {"site": 8}}


@pytest.mark.parametrize(
    ("train", "model", "budget"),
    [
        ({"optimizer": "adam"}, {}, "11KiB"),
        ({}, TWO_WIDTHS, "4600B"),
        ({"placement": "cpu"}, TWO_WIDTHS, "3KiB"),
        ({"placement": "paper"}, {}, "3KiB"),
    ],
    ids=["streamed", "streamed, two widths", "on the CPU, two widths", "paper"],
)
def test_a_training_calls_loops_with_these_types_alone(
    tmp_path: Path, train: dict[str, str], model: dict[str, Any], budget: str
) -> None:
    write_log(tmp_path)
    recipe = write_recipe(tmp_path, train=train, model=model, hot={"budget": budget})
    done = subprocess.run(
        [sys.executable, "-c", _TRAIN, str(recipe), str(tmp_path / "run")],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "hot-input share 100.0 %" not in done.stderr, "no row would be cold"
