"""What `fae synthetic` and `fae demo` find in the place of their files: their own is made anew, all else stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fae.core.errors import ArtifactError
from fae.run.demo import RECIPE, run_demo
from fae.synthetic.config import SyntheticConfig
from fae.synthetic.make import make_synthetic

from commands import fae, fault, succeed, write_log, write_recipe


@pytest.mark.parametrize("shape", ["criteo", "avazu"])
def test_the_same_log_is_made_again(shape: str, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    make_synthetic(SyntheticConfig(shape=shape, num_inputs=300), path, columnar=False, encoded=False)
    before = path.read_bytes()
    path.write_bytes(before[:-70])  # such as a copy that was cut
    make_synthetic(SyntheticConfig(shape=shape, num_inputs=300), path, columnar=False, encoded=False)
    assert path.read_bytes() == before


@pytest.mark.parametrize("inputs", [20, 300])
def test_another_file_stays(inputs: int, tmp_path: Path) -> None:
    log = write_log(tmp_path)
    before = log.read_bytes()
    fault(fae("synthetic", "--out", log, "--inputs", inputs), str(log), "choose another --out")
    assert log.read_bytes() == before
    made = tmp_path / "made.tsv"
    succeed("synthetic", "--out", made, "--inputs", inputs)
    fault(fae("synthetic", "--out", made, "--inputs", inputs, "--seed", 2), "not the log of these options")


def test_what_is_no_file_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("pipe", "folder", "link"):
        fault(fae("synthetic", "--out", tmp_path / name, "--inputs", 20), "no plain file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link", "pipe"]
    fault(fae("synthetic", "--out", os.devnull, "--inputs", 20), "no plain file")


def test_a_link_in_the_place_of_the_unfinished_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    (tmp_path / ".log.tsv.writing").symlink_to("secret")
    succeed("synthetic", "--out", tmp_path / "log.tsv", "--inputs", 20)
    assert (tmp_path / "secret").read_text() == "mine"


def test_a_columnar_log_takes_no_place_of_an_ingested_one(tmp_path: Path) -> None:
    write_log(tmp_path)
    succeed("ingest", write_recipe(tmp_path), "--out", tmp_path / "run")
    fault(fae("synthetic", "--columnar", "--inputs", 50, "--out", tmp_path / "run"), "fae ingest")
    assert (tmp_path / "run" / "log" / "vocabulary").is_dir()


def test_a_recipe_that_was_changed_is_kept(tmp_path: Path) -> None:
    succeed("synthetic", "--columnar", "--inputs", 50, "--out", tmp_path)
    recipe = tmp_path / "recipe.toml"
    changed = recipe.read_text() + "\n[train]\nepochs = 3\n"
    recipe.write_text(changed)
    done = succeed("synthetic", "--columnar", "--inputs", 60, "--out", tmp_path)
    assert recipe.read_text() == changed
    assert f"{recipe} is there and says something else, so it is kept" in done.stderr


def test_the_demo_keeps_a_changed_recipe_and_another_log(tmp_path: Path) -> None:
    recipe, log = tmp_path / "demo.toml", tmp_path / "log.tsv"
    log.write_text("mine")
    with pytest.raises(ArtifactError, match="no earlier demo"):
        run_demo(tmp_path, num_inputs=5000)
    recipe.write_text(RECIPE.format(name=recipe, budget="2MiB", seed=3).replace("epochs = 1", "epochs = 2"))
    with pytest.raises(ArtifactError, match="was changed"):
        run_demo(tmp_path, num_inputs=5000)
    assert log.read_text() == "mine"
    assert "epochs = 2" in recipe.read_text()
