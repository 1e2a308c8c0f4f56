"""Recipes of every kind, folders to write to, and the same settings in Python: a line that names the key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fae as package
from case_folders import column_values, copy_case
from fae.core.errors import RecipeError
from fae.ingest.column_config import ColumnConfig
from fae.ingest.config import LogConfig
from fae.models.config import DeepFMConfig, DLRMConfig
from fae.profile.config import HotConfig
from fae.run.folder import RunFolder
from fae.run.recipe import Recipe, load_recipe
from fae.training.config import TrainConfig

from commands import artifacts, fae, fault, succeed

LOG = '[log]\ntrain = "f.csv"\nlabel = "y"\ncategorical = ["a", "b"]\n'
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u200b"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small log f.csv and its recipe r.toml, which is the current one."""
    (tmp_path / "f.csv").write_text("y,a,b\n" + "".join(f"{i % 2},{i % 5},{i % 7}\n" for i in range(400)))
    (tmp_path / "r.toml").write_text(LOG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_byte_order_mark_in_front_of_a_recipe(tmp_path: Path) -> None:
    case = copy_case("recipe-with-bom", tmp_path)
    recipe = case.folder / "recipe.toml"
    assert recipe.read_bytes().startswith(b"\xef\xbb\xbf[log]")
    marked = case.ingest()
    lines = (case.folder / "a.csv").read_text().splitlines()
    users = [line.split(",")[lines[0].split(",").index("user")] for line in lines[1:]]
    assert [value for value in column_values(marked, "user") if value] == users[: len(users)]
    recipe.write_bytes(recipe.read_bytes()[3:])
    assert marked.manifest.fingerprint == case.ingest().manifest.fingerprint


RECIPES = {
    "nested 1e5": ("x = " + "[" * 100_000 + "]" * 100_000, ["r.toml is not valid TOML", "nested too deeply"]),
    "5,000 digits": (LOG + "[train]\nseed = " + "9" * 5000, ["[train] seed = ", "a whole number of less than 64"]),
    "budget of 5,000 digits": (LOG + f'[hot]\nbudget = "{"9" * 5000}"\n', ["[hot] budget = '9", "more than any"]),
    "budget of 5,000 digits as a number": (LOG + f"[hot]\nbudget = {'9' * 5000}\n", ["[hot] budget = ", "must be"]),
    "budget of 400 digits and a point": (LOG + f'[hot]\nbudget = "{"1" * 400}.5"\n', ["budget = '1", "more than any"]),
    "home of nobody": (LOG.replace("f.csv", "~nobodyxyz/f.csv"), ["[log] train", "~nobodyxyz has no home folder"]),
    "from a home of nobody": (LOG + '[train]\nfrom = "~nobodyxyz/r"\n', ["[train] from", "~nobodyxyz has no home"]),
    "long name": (LOG.replace("f.csv", "x" * 5000), ["[log] train = 'xxx", "longer than a name can be"]),
    "long path": (LOG.replace("f.csv", "x/" * 3000), ["[log] train", "longer than a name can be"]),
    "long from": (LOG + f'[train]\nfrom = "{"x" * 5000}"\n', ["[train] from", "longer than a name can be"]),
    "a NUL": (LOG.replace("f.csv", "f\\u0000.csv"), ["[log] train", "'f\\x00.csv' holds a NUL"]),
    "rate 1e300": (LOG + "[train]\nlearning_rate = 1e300\n", ["[train] learning_rate = 1e+300 must be at most 1e+38"]),
    "dense rate 1e300": (LOG + "[train]\ndense_learning_rate = 1e300\n", ["dense_learning_rate = 1e+300 must be"]),
    "rate of 400 digits": (LOG + "[train]\nlearning_rate = " + "9" * 400, ["[train] learning_rate", "a finite number"]),
    "rate nan": (LOG + "[train]\nlearning_rate = nan\n", ["[train] learning_rate = nan must be a finite number"]),
    "min_frequency 1e30": (LOG + "min_frequency = 1" + "0" * 30, ["[log] min_frequency = 1", "less than 64 bits"]),
    "max_length 1e9": (LOG.replace('"b"', '{name = "b", max_length = 1000000000}'), ["max_length = 1000000000 must"]),
    "epochs 1e15": (LOG + "[train]\nepochs = 1000000000000000\n", ["[train] epochs = 1000000000000000 is more than"]),
    "chunks 1e15": (LOG + "[hot]\nrand_em_chunks = 1000000000000000\n", ["rand_em_chunks = 1000000000000000 must"]),
    "cross layers 1e9": (LOG + "[model]\nname = 'dcnv2'\ncross_layers = 1000000000\n", ["cross_layers = 1000000000"]),
    "width 1e12": (LOG + "[model]\ntop_mlp = [1000000000000]\n", ["top_mlp = [1000000000000] must hold"]),
    "a model of 400 GB": (
        LOG + '[model]\nname = "deepfm"\ndeep_mlp = [320000, 320000]\n',
        ["[model] deepfm has 102,410,560,002 dense weights", "1.1 TiB", "make the widths of its layers smaller"],
    ),
    "a date": (LOG + "[train]\nepochs = 2020-01-01\n", ["epochs = datetime.date(2020, 1, 1) must be"]),
    "long key": (LOG + "[train]\n" + "k" * 5000 + " = 1\n", ["[train] has no key 'kkk"]),
    "long section": (LOG + "[" + "k" * 5000 + "]\n", ["the recipe has a section [kkk"]),
}  # fmt: skip


@pytest.mark.parametrize("case", RECIPES)
def test_recipes_that_ended_in_a_traceback(case: str, folder: Path) -> None:
    text, expected = RECIPES[case]
    (folder / "r.toml").write_text(text)
    line = fault(fae("run", "r.toml", "--out", "run", "--device", "cpu"), *expected)
    assert len(line) < 700
    assert artifacts(folder / "run") == []


FILES = {
    "UTF-16": (LOG.encode("utf-16"), ["it is UTF-16 and must be UTF-8"]),
    "not UTF-8": (LOG.encode() + b"# \xff\n", ["line 5 is not UTF-8 (byte 0xff)"]),
    "too large": (b"#" * (65 * 2**20), ["more than 64 MiB"]),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_no_recipe(case: str, folder: Path) -> None:
    data, expected = FILES[case]
    (folder / "r.toml").write_bytes(data)
    fault(fae("ingest", "r.toml", "--out", "run"), "cannot read the recipe r.toml", *expected)


def test_names_that_lead_to_no_recipe(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fae.core.text_files._PIPE_SECONDS", 0.1)
    os.mkfifo("fifo")
    (folder / "inner").mkdir()
    for name, words in (("fifo", "a pipe that nobody writes to"), ("inner", "directory"), ("/dev/zero", "no file")):
        fault(fae("ingest", name, "--out", "run"), f"cannot read the recipe {name}", words)
    fault(fae("ingest", "x" * 5000, "--out", "run"), "longer than a name can be")
    fault(
        fae("ingest", f"no{EVIL}", "--out", "run"), r"there is no recipe no\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u200b"
    )


def test_a_recipe_from_a_pipe(folder: Path) -> None:
    """As a shell's ``<(command)``: relative names start at the current folder."""
    reader, writer = os.pipe()
    os.write(writer, LOG.encode())
    os.close(writer)
    assert succeed("ingest", f"/dev/fd/{reader}", "--out", "run", "--json").result["summary"]["num_inputs"] == 400
    os.close(reader)


SETTINGS = {
    "no key": ("train", ["must look like section.key=value"]),
    "nested": ("log.x=" + "[" * 50_000, ["--set 'log.x=[[[", "nested too deeply"]),
    "digits": ("train.seed=" + "9" * 5000, ["[train] seed = a number of thousands of digits"]),
    "long": ("train.order=" + "x" * 5000, ["[train] order = 'xxx", "is not one of shuffled"]),
    "infinite": ("hot.sample=inf", ["[hot] sample = inf must be a finite number"]),
    "escapes": (f"log.label={EVIL}", [r"'\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u200b'"]),
    "surrogate": ("log.label=\udcff", [r"'\udcff'"]),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_odd_values_of_set(case: str, folder: Path) -> None:
    text, expected = SETTINGS[case]
    assert len(fault(fae("ingest", "r.toml", "--out", "run", "--set", text), *expected)) < 700


def test_places_that_are_no_run_folder(folder: Path) -> None:
    os.mkfifo("fifo")
    (folder / "file").touch()
    (folder / "dangling").symlink_to("nowhere")
    for name in ("fifo", "file", "dangling"):
        fault(fae("ingest", "r.toml", "--out", name), f"cannot write to {name}: File exists", "--out")
    fault(fae("ingest", "r.toml", "--out", "x" * 300), "--out 'xxx", "longer than a name can be")
    fault(fae("ingest", "r.toml", "--out", "x\udcff"), r"--out 'x\udcff' is not UTF-8")
    assert not (folder / "nowhere").exists()


def test_a_current_folder_that_is_gone(folder: Path) -> None:
    (folder / "gone").mkdir()
    os.chdir("gone")
    (folder / "gone").rmdir()
    assert "Traceback" not in fae("ingest", folder / "r.toml", "--out", folder / "run").stderr
    fault(fae("ingest", "../r.toml", "--out", "run"), "r.toml")
    os.chdir(folder)


# ---------------------------------------------------------------------------------------------------- in Python


def test_configurations_made_in_python(folder: Path) -> None:
    """Paths, lists, tables and numpy's numbers are what a recipe would have in their place."""
    log = LogConfig(
        train=folder / "f.csv", label="y", categorical=["a", {"name": "b", "max_length": np.int64(1)}],
        test=[Path("x"), "y"], label_map={1: 1, 0: 0},
    )  # fmt: skip
    assert log.train == str(folder / "f.csv")
    assert log.categorical == ("a", ColumnConfig(name="b"))
    assert (log.test, log.label_map) == (("x", "y"), {"1": 1, "0": 0})
    train = TrainConfig(from_=Path("runs/a"), learning_rate=1, batch_size=np.int32(64), seed=np.uint8(3))
    assert (train.from_, train.learning_rate, train.batch_size, train.seed) == ("runs/a", 1.0, 64, 3)
    assert all(type(value) is int for value in (train.batch_size, train.seed))
    assert type(train.learning_rate) is float
    assert DLRMConfig(top_mlp=[8, 4]).top_mlp == (8, 4)
    assert HotConfig(budget=np.int64(4096)).budget == 4096
    recipe = Recipe(log={"train": "f.csv", "label": "y", "categorical": ["a"]}, train={"epochs": 2}, base=str(folder))
    assert recipe.train.epochs == 2
    assert recipe.base == folder
    made = Recipe(log=LogConfig(train=Path("f.csv"), label="y", categorical=["a", "b"]), base=folder)
    package.RunFolder(made, folder / "made").stage("ingest")
    package.RunFolder(load_recipe("r.toml"), folder / "read").stage("ingest")
    found = [RunFolder(made, folder / name).open_log().manifest.fingerprint for name in ("made", "read")]
    assert found[0] == found[1]
    assert load_recipe("r.toml", "train.epochs=3").train.epochs == 3


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "set": (LogConfig, {"train": {"a"}, "categorical": ("a",)}, "[log] train = {'a'} must be text in quotes or a list"),
    "bytes": (LogConfig, {"train": b"f.csv", "categorical": ("a",)}, "[log] train = b'f.csv' must be text in quotes"),
    "text": (LogConfig, {"train": "f", "categorical": "a"}, "[log] categorical = 'a' must be a list"),
    "column": (LogConfig, {"train": "f", "categorical": [{"nme": "a"}]}, "[log] categorical[0] has no key 'nme'"),
    "number": (LogConfig, {"train": "f", "categorical": [1]}, "[log] categorical[0] = 1 must be text in quotes"),
    "none": (LogConfig, {"train": "f", "categorical": None}, "[log] categorical = None must be a list"),
    "name": (ColumnConfig, {"name": 3}, "[log] categorical name = 3 must be text in quotes"),
    "length": (ColumnConfig, {"name": "a", "max_length": "5"}, "[log] categorical a: max_length = '5' must be"),
    "pooling": (ColumnConfig, {"name": "a", "pooling": "max"}, "[log] categorical a: pooling = 'max' is not one of"),
    "float": (TrainConfig, {"batch_size": 64.0}, "[train] batch_size = 64.0 must be a whole number"),
    "word": (TrainConfig, {"learning_rate": "0.1"}, "[train] learning_rate = '0.1' must be a number"),
    "truth": (TrainConfig, {"capture": 1}, "[train] capture = 1 must be true or false"),
    "choice": (TrainConfig, {"order": None}, "[train] order = None is not one of shuffled"),
    "nan": (TrainConfig, {"learning_rate": float("nan")}, "[train] learning_rate = nan must be a finite number"),
    "huge": (TrainConfig, {"seed": 10**5000}, "[train] seed = a number of thousands of digits must be a whole number"),
    "widths": (DLRMConfig, {"top_mlp": 8}, "[model] top_mlp = 8 must be a list"),
    "name of another": (DeepFMConfig, {"name": "dlrm"}, "[model] name = 'dlrm' is not one of deepfm"),
    "dims": (DLRMConfig, {"embedding_dims": [4]}, "[model] embedding_dims = [4] must be a table"),
    "budget": (HotConfig, {"budget": 1.5}, "[hot] budget = 1.5 must be text in quotes or a whole number"),
    "part": (Recipe, {"log": "f.csv"}, "the recipe's log = 'f.csv' must be a LogConfig or a table"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_configurations_that_python_may_get_wrong(case: str) -> None:
    cls, values, expected = REFUSED[case]
    with pytest.raises(RecipeError) as found:
        cls(**values)
    assert str(found.value).startswith(expected)


def test_folders_that_python_may_get_wrong(folder: Path) -> None:
    recipe = load_recipe("r.toml")
    with pytest.raises(RecipeError, match="holds a NUL"):
        RunFolder(recipe, "a\0b")
    with pytest.raises(RecipeError, match="device = 'gpu' must be 'cpu' or 'cuda'"):
        RunFolder(recipe, "run", device="gpu")
