"""Recipes of synthetic logs: the commands in their comments run, with fewer inputs."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from commands import strict_json, succeed

ROOT = Path(__file__).resolve().parents[2]
RECIPES = [path for path in sorted((ROOT / "recipes").glob("*.toml")) if "fae synthetic" in path.read_text()]
FEW = {"--inputs": "3000", "--scale": "0.0005"}
OVERRIDES = ("train.batch_size=64", "hot.small_table=1KB", "hot.ring_depth=2", "hot.budget=400KiB", "train.epochs=1")


def commands_of(path: Path) -> list[list[str]]:
    """The words of every command in the comments."""
    lines = re.findall(r"^#     (fae .*)$", path.read_text(), re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


def moved(words: list[str], folder: Path) -> list[str]:
    """A command with few inputs, whose files are in `folder`."""
    words = [FEW.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    return [str(folder / word) if word.startswith(("recipes/", "runs/")) else word for word in words]


def test_there_are_recipes_for_the_papers_workloads_and_for_every_model() -> None:
    names = {path.stem for path in RECIPES}
    assert {"rmc1_tbsm", "rmc2_dlrm", "rmc3_dlrm"} <= names
    assert {"small_tbsm", "small_deepfm", "small_dcnv2", "small_wide_deep"} <= names


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_its_commands_run(path: Path, tmp_path: Path) -> None:
    (tmp_path / "recipes" / "data").mkdir(parents=True)
    shutil.copy(path, tmp_path / "recipes")
    few = [word for override in OVERRIDES for word in ("--set", override)]
    text, run, *columnar = commands_of(path)
    succeed(*moved(text, tmp_path))
    done = succeed(*moved(run, tmp_path), *few, "--device", "cpu", "--json")
    record = strict_json(done.stdout)
    assert record["train"]["num_inputs"] > 2000
    assert 0 < record["test"]["log_loss"] < 2
    if path.stem.startswith("rmc"):
        for words in columnar:
            elsewhere = [word.replace("runs/", "runs/columnar_") for word in words]
            options = (*few, "--device", "cpu", "--json") if words[0] == "run" else ()
            done = succeed(*moved(elsewhere, tmp_path), *options)
        assert strict_json(done.stdout)["train"]["num_inputs"] > 2000
