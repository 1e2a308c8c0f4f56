"""What a recipe or a command line may get wrong: status 2, one line that says it with its value, nothing made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from commands import artifacts, contents, fae, fault, toml, unfinished, write_log, write_recipe

LOG = '[log]\ntrain = "log.csv"\ncategorical = ["item"]\n'

TEXTS = {
    "not TOML": ("[log\ntrain = 1", ["recipe.toml is not valid TOML", "line 1"]),
    "key twice": (LOG + LOG, ["is not valid TOML"]),
    "no log": ("[train]\nepochs = 1\n", ["no section [log]"]),
    "empty": ("", ["no section [log]"]),
    "unknown section": (LOG + "[trian]\nepochs = 1\n", ["[trian]", "did you mean 'train'?"]),
    "section that is none": ("hot = 3\n" + LOG, ["hot = 3 must be a section"]),
    "unknown key": (LOG + "[hot]\nbugdet = '1MiB'\n", ["[hot] has no key 'bugdet'", "did you mean 'budget'?"]),
    "unknown key far from all": (LOG + "[hot]\nx = 1\n", ["'x'", "known: ", "ring_depth"]),
    "unknown key of a column": (
        "[log]\ntrain = 'log.csv'\ncategorical = [{name = 'item', poling = 'mean'}]\n",
        ["[log] categorical[0] has no key 'poling'", "did you mean 'pooling'?"],
    ),
    "key that is missing": ("[log]\ncategorical = ['item']\n", ["[log] needs the key 'train'"]),
    "not UTF-8": (LOG.encode() + b"label = '\xff'\n", ["cannot read the recipe", "0xff"]),
}


@pytest.mark.parametrize("case", TEXTS)
def test_recipe_texts(tmp_path: Path, case: str) -> None:
    text, expected = TEXTS[case]
    path = tmp_path / "recipe.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    fault(fae("run", path, "--out", tmp_path / "run"), *expected)
    assert sorted(tmp_path.iterdir()) == [path]


VALUES: dict[str, tuple[str, Any, list[str]]] = {
    "number as text": ("train.epochs", "two", ["[train] epochs = 'two' must be a whole number"]),
    "fraction for a count": ("train.batch_size", 32.5, ["batch_size = 32.5 must be a whole number"]),
    "truth for a count": ("train.epochs", True, ["epochs = True must be a whole number"]),
    "text for a number": ("train.learning_rate", "fast", ["learning_rate = 'fast' must be a number"]),
    "text for a list": ("log.categorical", "item", ["categorical = 'item' must be a list"]),
    "number for a file": ("log.train", 3, ["[log] train = 3 must be text in quotes or a list"]),
    "number in a list of names": ("log.dense", ["price", 3], ["[log] dense[1] = 3 must be text in quotes"]),
    "list for a table": ("model.embedding_dims", [4], ["embedding_dims = [4] must be a table"]),
    "unknown choice": ("train.order", "interleafed", ["order = 'interleafed'", "did you mean 'interleaved'?"]),
    "list for a choice": ("train.order", ["shuffled"], ["['shuffled']", "is not one of shuffled"]),
    "budget 0": ("hot.budget", 0, ["[hot] budget = 0 must be more than zero", "512MiB"]),
    "budget 0 in text": ("hot.budget", "0MiB", ["[hot] budget = '0MiB' must be more than zero"]),
    "negative budget": ("hot.budget", -5, ["[hot] budget = -5 is not a size", "a positive number"]),
    "negative budget in text": ("hot.budget", "-5MiB", ["[hot] budget = '-5MiB' is not a size"]),
    "no size": ("hot.budget", "much", ["[hot] budget = 'much' is not a size", "such as 512MiB"]),
    "unknown unit": ("hot.budget", "5 parsecs", ["[hot] budget = '5 parsecs' is not a size"]),
    "truth for a budget": ("hot.budget", True, ["[hot] budget = True"]),
    "ring too deep": ("hot.ring_depth", 9, ["ring_depth = 9 must be from 2 to 8"]),
    "sample above 1": ("hot.sample", 5.0, ["sample = 5.0 must be more than 0 and at most 1"]),
    "no inputs a batch": ("train.batch_size", 0, ["[train] batch_size = 0 must be more than 0"]),
    "negative learning rate": ("train.learning_rate", -0.1, ["learning_rate = -0.1 must be more than 0"]),
    "negative seed": ("train.seed", -1, ["seed = -1 must be 0 or more"]),
    "test fraction 1": ("log.test_fraction", 1.0, ["test_fraction = 1.0 must be at least 0 and less than 1"]),
    "test files and fraction": ("log.test", "log.csv", ["both `test` files and `test_fraction`"]),
    "column twice": ("log.categorical", ["item", "user", "item"], ["names the column 'item' 2 times"]),
    "label among the features": ("log.dense", ["label"], ["names the column 'label' 2 times"]),
    "no column": ("log.categorical", [], ["needs `categorical`"]),
    "width 0": ("model.embedding_dim", 0, ["embedding_dim = 0 must be"]),
    "width of no column": ("model.embedding_dims", {"itm": 8}, ["names 'itm'", "did you mean 'item'?"]),
    "quote of two": ("log.quote", "::", ["quote = '::' must be one ASCII character"]),
}


@pytest.mark.parametrize("case", VALUES)
def test_recipe_values(tmp_path: Path, case: str) -> None:
    dotted, value, expected = VALUES[case]
    section, key = dotted.split(".")
    write_log(tmp_path, 50)
    recipe = write_recipe(tmp_path, **{section: {key: value}})
    fault(fae("run", recipe, "--out", tmp_path / "run"), *expected)
    assert not artifacts(tmp_path / "run")
    assert not unfinished(tmp_path)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "key", ["train.learning_rate", "train.dense_learning_rate", "train.checkpoint_minutes", "hot.sample"]
)
def test_numbers_must_be_finite(tmp_path: Path, key: str, number: str) -> None:
    write_log(tmp_path, 50)
    recipe, section_key = write_recipe(tmp_path), "[{}] {} = {} must be a finite number".format(*key.split("."), number)
    fault(fae("run", recipe, "--set", f"{key}={number}", "--out", tmp_path / "run"), section_key)
    assert not artifacts(tmp_path / "run")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("hot.budget", "--set 'hot.budget' must look like section.key=value"),
        ("budget=1MiB", "--set 'budget=1MiB' must look like section.key=value"),
        ("=", "--set '=' must look like"),
        ("hot.=1", "--set 'hot.=1' must look like"),
        ("hot.bugdet=1MiB", "[hot] has no key 'bugdet'; did you mean 'budget'?"),
        ("hto.budget=1MiB", "a section [hto]; did you mean 'hot'?"),
        ("train.epochs=many", "[train] epochs = 'many' must be a whole number"),
        ("model.top_mlp.x=3", "'top_mlp.x'"),
        ("hot.budget=", "[hot] budget = '' is not a size"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str, expected: str) -> None:
    write_log(tmp_path, 50)
    fault(fae("run", write_recipe(tmp_path), "--set", override, "--out", tmp_path / "run"), expected)
    assert not artifacts(tmp_path / "run")


def test_override_into_what_is_no_section(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("hot = 3\n" + LOG)
    fault(fae("run", path, "--set", "hot.budget=1MiB", "--out", tmp_path / "run"), "hot is not a section")


def test_recipe_that_is_not_there(tmp_path: Path) -> None:
    fault(fae("run", tmp_path / "none.toml"), f"there is no recipe {tmp_path / 'none.toml'}", "recipes/")
    fault(fae("run", tmp_path), f"cannot read the recipe {tmp_path}")


def test_message_stays_one_line_whatever_it_quotes(tmp_path: Path) -> None:
    line = fault(fae("run", write_recipe(tmp_path, log={"train": "a\nb.csv"}), "--out", tmp_path / "run"))
    assert "b.csv" in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fly"], "'fly'"),
        (["run"], "RECIPE.toml"),
        (["run", "r.toml", "--device", "tpu"], "'tpu'"),
        (["run", "r.toml", "--frobnicate"], "--frobnicate"),
        (["demo", "--inputs", "many"], "'many'"),
    ],
)
def test_command_lines_that_are_none(arguments: list[str], expected: str) -> None:
    line = fault(fae(*arguments), expected, "--help`")
    assert line.startswith("fae: ")


def test_budget_too_small_for_the_ring(finished: Path) -> None:
    """It says what is needed, and the budget it names works."""
    run = finished / "run"
    before = (run / "hot_set" / "manifest.json").read_bytes()
    line = fault(
        fae("run", finished / "recipe.toml", "--out", run, "--replace", "--budget", "300B"),
        "[hot] budget = '300B' (300 B) is too small", "staging ring takes", "ring_depth = 2", "batch_size = 32",
    )  # fmt: skip
    assert (run / "hot_set" / "manifest.json").read_bytes() == before
    assert not unfinished(finished)
    named = line.split('set budget = "')[1].split('"')[0]
    assert fae("calibrate", finished / "recipe.toml", "--out", run, "--budget", named).status == 0


def test_sequence_that_the_model_does_not_take(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, log={"categorical": [{"name": "user", "max_length": 3, "pooling": "none"}, "item"]})
    write_log(tmp_path, 100)
    fault(fae("run", recipe, "--out", tmp_path / "run"), "user: pooling = none keeps a sequence", "pooling to sum")


@pytest.mark.parametrize("verb", ["run", "demo"])
def test_device_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    write_log(tmp_path)
    arguments = [write_recipe(tmp_path)] if verb == "run" else ["--inputs", "5000"]
    done = fae(verb, *arguments, "--out", tmp_path / "run", "--device", "cuda")
    fault(done, "no CUDA device", "--device cpu")
    assert not artifacts(tmp_path / "run"), "found out before any work"
    assert not artifacts(tmp_path / "run" / "run")


def test_device_that_is_not_there_for_one_stage(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    arguments = (finished / "recipe.toml", "--out", finished / "run", "--device", "cuda")
    assert fae("pack", *arguments).status == 0, "only training needs it"
    before = contents(finished / "run")
    fault(fae("train", *arguments), "no CUDA device", "--device cpu")
    assert contents(finished / "run") == before


def test_in_a_process_of_its_own(tmp_path: Path) -> None:
    """What a shell sees: the exit status, an empty stdout, and stderr to the last byte."""
    path = tmp_path / "recipe.toml"
    path.write_text(toml({"log": {"train": "none.csv", "categorical": ["item"]}}))
    command = [sys.executable, "-m", "fae.cli.main", "run", str(path), "--out", str(tmp_path / "run"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"fae: {tmp_path / 'none.csv'} does not exist; set [log] train to the files of the log (now 'none.csv')\n"
    )
