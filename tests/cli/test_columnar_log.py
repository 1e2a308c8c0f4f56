"""`[log] format = "columnar"`: a log that is through ingest, or never was text, read where it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from commands import ARTIFACTS, Done, artifacts, contents, fae, fault, strict_json, succeed, write_log, write_recipe

FEW = [word for override in ("train.batch_size=64", "hot.small_table=1KB", "hot.ring_depth=2", "hot.budget=400KiB")
       for word in ("--set", override)]  # fmt: skip


TIMED = {"checkpoint/progress.json", "checkpoint/manifest.json"}
"""Files that hold seconds, or a checksum of them."""


def behind_the_log(run: Path) -> dict[str, bytes]:
    """All that the stages behind ingest have written."""
    return {
        name: data for name, data in contents(run).items() if not name.startswith("log/") and name not in TIMED
    }  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic run folder: its log, and a recipe that names it."""
    out = tmp_path_factory.mktemp("synthetic") / "big"
    succeed("synthetic", "--inputs", 3000, "--scale", 0.0005, "--columnar", "--out", out)
    return out


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over text, beside its recipe and its log."""
    folder = tmp_path_factory.mktemp("text")
    write_log(folder)
    succeed("run", write_recipe(folder), "--out", folder / "run", "--device", "cpu")
    return folder


def columnar(**changes):
    """Keys of `[log]` for `write_recipe`: nothing that the log itself knows."""
    nothing = dict.fromkeys(("label", "categorical", "dense", "test_fraction", "validation_fraction"))
    return {**nothing, "format": "columnar", **changes}


def test_a_synthetic_log_runs_in_its_own_folder(made: Path, tmp_path: Path) -> None:
    run = tmp_path / "big"
    shutil.copytree(made, run)
    before = contents(run)
    done = succeed("run", run / "recipe.toml", "--out", run, *FEW, "--device", "cpu", "--json")
    record = strict_json(done.stdout)
    assert record["train"]["num_inputs"] > 2000
    assert record["recipe"]["log"] == {**record["recipe"]["log"], "format": "columnar", "train": "log"}
    assert f"ingest: nothing to read, {run / 'log'} is columnar" in done.stderr
    assert {name: data for name, data in contents(run).items() if name in before} == before
    again = succeed("run", run / "recipe.toml", "--out", run, *FEW, "--device", "cpu")
    assert all(f"{stage}: already there" in again.stderr for stage in ("profile", "calibrate", "pack", "train"))
    succeed("report", run)


def test_it_is_read_in_place_and_never_written_to(made: Path, tmp_path: Path) -> None:
    before = {path.relative_to(made): path.stat().st_mtime_ns for path in made.rglob("*")}
    run = tmp_path / "run"
    for stage in ARTIFACTS:
        done = succeed(stage, made / "recipe.toml", "--out", run, *FEW, "--device", "cpu", "--json")
        if stage == "ingest":
            result = strict_json(done.stdout)
            assert (result["skipped"], result["path"]) == (True, str(made / "log"))
    assert artifacts(run) == ["profile", "calibrate", "pack", "train"]
    assert {path.relative_to(made): path.stat().st_mtime_ns for path in made.rglob("*")} == before


def test_it_gives_what_the_text_gave(ingested: Path) -> None:
    """Byte for byte, by the log's folder or by the run's, by a recipe of its own or by two words over the old one."""
    expected = behind_the_log(ingested / "run")
    assert any(name.startswith("checkpoint/") for name in expected)
    for number, name in enumerate(("run/log", "run", str(ingested / "run" / "log"))):
        recipe = write_recipe(ingested, f"columnar_{number}.toml", log=columnar(train=name))
        out = ingested / f"columnar_{number}"
        succeed("run", recipe, "--out", out, "--device", "cpu")
        assert not (out / "log").exists()
        assert behind_the_log(out) == expected
    over = write_recipe(ingested, "over.toml", log={"test_fraction": None, "validation_fraction": None})
    words = ("--set", "log.format=columnar", "--set", "log.train=run/log")
    succeed("run", over, "--out", ingested / "over", *words, "--device", "cpu")
    assert behind_the_log(ingested / "over") == expected


def fae_into(out: Path, verb: str, recipe: Path) -> Done:
    return fae(verb, recipe, "--out", out, "--device", "cpu")


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ("nowhere", "there is no folder"),
        ("log.csv", "is a file, and a columnar log is a folder"),
        (".", "holds no columnar log"),
        ("run/packed", "holds packed format"),
        ("damaged", "ids.npy"),
        (["run/log", "run/log"], "takes one folder, and train names 2"),
    ],
)
def test_a_wrong_folder_is_named(train, expected, ingested: Path) -> None:
    if train == "damaged":
        shutil.rmtree(ingested / "damaged", ignore_errors=True)
        shutil.copytree(ingested / "run" / "log", ingested / "damaged")
        ids = ingested / "damaged" / "ids.npy"
        ids.write_bytes(ids.read_bytes()[:-1])
    recipe = write_recipe(ingested, "wrong.toml", log=columnar(train=train))
    for verb in ("run", "profile"):
        line = fault(fae_into(ingested / "wrong", verb, recipe), expected)
        assert "delete" not in line, "it is not known whose it is"
        if isinstance(train, str):
            assert "fae synthetic --columnar" in line
    assert artifacts(ingested / "wrong") == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"log": {"test_fraction": 0.1}}, "test_fraction = 0.1 was decided"),
        ({"log": {"min_frequency": 2}}, "min_frequency = 2 was decided"),
        ({"log": {"test": "log.csv"}}, "test = 'log.csv' was decided"),
        ({"log": {"categorical": ["user", "site", "item"]}}, "categorical = ['user', 'site', 'item']"),
        ({"log": {"dense": ["views"]}}, "dense = ['views']"),
        ({"log": {"categorical": ["user", {"name": "item", "max_length": 3}, "site"]}}, "item: max_length = 3"),
        ({"model": {"embedding_dims": {"usr": 4}}}, "did you mean"),
        ({"model": {"name": "tbsm", "bottom_mlp": []}}, "needs a sequence"),
    ],
)
def test_settings_that_the_log_has_decided_are_refused(changes, expected, ingested: Path) -> None:
    log = columnar(train="run/log", **changes.pop("log", {}))
    recipe = write_recipe(ingested, "refused.toml", log=log, **changes)
    fault(fae_into(ingested / "refused", "run", recipe), expected)


def test_a_columnar_log_does_not_continue_a_run_unless_it_was_made_to(ingested: Path) -> None:
    recipe = write_recipe(ingested, "stranger.toml", log=columnar(train="run/log"), train={"from": "run"})
    fault(fae_into(ingested / "stranger", "run", recipe), "was not made to continue", "leave [train] from out")
    second = write_recipe(ingested, "second.toml", train={"from": "run"})
    succeed("run", second, "--out", ingested / "second", "--device", "cpu")
    recipe = write_recipe(ingested, "fits.toml", log=columnar(train="second/log"), train={"from": "run"})
    succeed("run", recipe, "--out", ingested / "fits", "--device", "cpu")
    assert behind_the_log(ingested / "fits") == behind_the_log(ingested / "second")
    third = write_recipe(ingested, "third.toml", train={"from": "fits"})
    fault(fae_into(ingested / "third", "run", third), "there is no log in", "link it to")
    (ingested / "fits" / "log").symlink_to(ingested / "second" / "log")
    succeed("run", third, "--out", ingested / "third", "--device", "cpu")
