"""`[train] from`: a new day's log continues an earlier run; untouched rows keep their bytes, misfits are refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from test_kill import Victim

from fae.artifacts.columnar_log import ColumnarLog
from fae.checkpoint.save_load import read_progress
from fae.models.registry import build_model
from fae.run.folder import RunFolder
from fae.run.recipe import load_recipe
from fae.streaming.row_store import initial_rows
from fae.training.trainer import Trainer

from commands import (
    HEADER,
    STAGES,
    artifacts,
    contents,
    csv_text,
    fae,
    fault,
    strict_json,
    succeed,
    unfinished,
    write_recipe,
    zipf_inputs,
)

LOG = {"categorical": ["user", "item", "site", {"name": "views", "encoded": True}], "dense": ["price"]}
BUDGETS = {"sgd": "5KiB", "rowwise_adagrad": "6KiB", "adagrad": "8KiB", "adam": "10KiB"}
"""For batches of 32: the staging ring and some of the rows."""
BUDGET = {"budget": BUDGETS["rowwise_adagrad"]}
DAYS = ("day1", "day2", "day3")


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of one log, whose encoded column grows, and the finished run of the first: read it, never write it."""
    folder = tmp_path_factory.mktemp("days")
    rows = zipf_inputs(1500)
    views = HEADER.index("views")
    for day, name in enumerate(DAYS):
        part = rows[500 * day : 500 * (day + 1)]
        for row in part:
            row[views] = int(str(row[views])) % (20 + 12 * day)
        (folder / f"{name}.csv").write_text(csv_text(part))
    succeed("run", write_recipe(folder, log={**LOG, "train": "day1.csv"}, hot=BUDGET), "--out", folder / "day1")
    return folder


@pytest.fixture
def copied(days: Path, tmp_path: Path) -> Path:
    """A copy of `days` to do with as one likes."""
    return Path(shutil.copytree(days, tmp_path / "days"))


def day_recipe(folder: Path, name: str, parent: str | None, **train: Any) -> Path:
    """A recipe that continues the run `parent` of the same folder."""
    hot = {"budget": "64KiB" if "batch_size" in train else BUDGETS[train.get("optimizer", "rowwise_adagrad")]}
    train = {**train, "from": parent}
    return write_recipe(folder, f"{name}.toml", log={**LOG, "train": f"{name}.csv"}, hot=hot, train=train)


def run_day(folder: Path, name: str, parent: str | None, *, out: str | None = None, **train: Any) -> Path:
    """Run it; returns its folder."""
    run = folder / (out or name)
    succeed("run", day_recipe(folder, name, parent, **train), "--out", run, "--replace")
    return run


def tables(run: Path) -> list[dict[str, torch.Tensor]]:
    """Weight and state of every table of a run's checkpoint."""
    files = sorted((run / "checkpoint" / "tables").iterdir(), key=lambda path: int(path.stem))
    return [load_file(path) for path in files]


def values(run: Path, table: int) -> list[str | None]:
    """The value of every id."""
    found: list[str | None] = pq.read_table(run / "log" / "vocabulary" / f"{table}.parquet")["value"].to_pylist()
    return found


def counts(run: Path) -> list[np.ndarray]:
    """Accesses of every id in a run's training split, table by table."""
    log = ColumnarLog(run / "log")
    return np.split(np.asarray(log.counts), log.table_offsets[1:-1])


def assert_same(ours: Path, theirs: Path, names: Sequence[str] = ("dense.safetensors", "tables/")) -> None:
    """The same bytes in the tensors of two checkpoints."""
    left, right = contents(ours / "checkpoint"), contents(theirs / "checkpoint")
    chosen = [name for name in left if name.startswith(tuple(names))]
    assert len(chosen) >= 4
    for name in chosen:
        assert left[name] == right[name], name


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"optimizer": "adam", "learning_rate": 0.01, "order": "shuffled"},
        {"optimizer": "sgd", "order": "adaptive", "placement": "paper"},
        {"optimizer": "adagrad", "epochs": 2},
    ],
    ids=lambda train: str(train.get("optimizer", "rowwise_adagrad")),
)
def test_a_new_day(copied: Path, train: dict[str, Any]) -> None:
    first = run_day(copied, "day1", None, **train)
    second = run_day(copied, "day2", "day1", **train)
    logs = [ColumnarLog(run / "log") for run in (first, second)]
    assert logs[1].manifest.parents == {"log": logs[0].manifest.fingerprint}
    touched_any = False
    for table, (old, new, seen) in enumerate(zip(tables(first), tables(second), counts(second), strict=True)):
        before, after = (log.features[table] for log in logs)
        kept = np.arange(before.num_embeddings)
        if before.encoded:
            assert (before.num_embeddings, after.num_embeddings) == (21, 33)
            assert (before.unknown_id, after.unknown_id) == (20, 32)
            assert seen[20] > 0, "the number that was the reserved id is a number now"
            kept = kept[:-1]
            pairs = zip(values(first, table)[:-1], values(second, table), strict=False)
            assert all(there in (None, here) for there, here in pairs)
            if not seen[32]:
                assert torch.equal(old["weight"][20], new["weight"][32]), "the reserved row has moved"
        else:
            assert before.unknown_id == after.unknown_id
            assert values(second, table)[: len(kept)] == values(first, table)
            assert (table == 2) == (after.num_embeddings == before.num_embeddings), "users and items were appended"
        untouched = kept[seen[kept] == 0]
        assert len(untouched) or table in (2, 3)
        for part in ("weight", "state"):
            assert old[part][untouched].numpy().tobytes() == new[part][untouched].numpy().tobytes()
        touched = kept[seen[kept] > 0]
        touched_any |= not torch.equal(old["weight"][touched], new["weight"][touched])
    assert touched_any
    steps = [strict_json((run / "checkpoint" / "manifest.json").read_text())["summary"]["row_steps"]
             for run in (first, second)]  # fmt: skip
    batches = [read_progress(run / "checkpoint")["batches"] for run in (first, second)]
    assert steps == [batches[0], sum(batches)]
    record = strict_json((second / "run.json").read_text())
    manifests = [strict_json((first / kind / "manifest.json").read_text()) for kind in ("checkpoint", "log")]
    assert record["parent"]["fingerprints"] == {part["kind"]: part["fingerprint"] for part in manifests}
    assert record["recipe"]["train"]["from"] == "day1"
    assert record["log"]["appended"]["views"] == 12


def test_new_rows_start_as_in_a_fresh_table(copied: Path) -> None:
    """Seen where training never comes: a learning rate too small to move a float."""
    first = run_day(copied, "day1", None)
    second = run_day(copied, "day2", "day1", optimizer="rowwise_adagrad", learning_rate=1e-30, seed=7)
    for table, (old, new) in enumerate(zip(tables(first), tables(second), strict=True)):
        feature = ColumnarLog(second / "log").features[table]
        known = len(old["weight"]) - feature.encoded
        fresh = initial_rows(7, feature.name, feature.num_embeddings, 4, 0, feature.num_embeddings)
        assert torch.equal(new["weight"][:known], old["weight"][:known])
        appended = new["weight"][known : len(fresh) - feature.encoded].numpy()
        assert np.array_equal(appended, fresh[known : len(fresh) - feature.encoded])
    assert torch.equal(tables(first)[3]["weight"][20], tables(second)[3]["weight"][32])


@pytest.mark.parametrize("optimizer", ["sgd", "rowwise_adagrad", "adagrad", "adam"])
def test_two_runs_of_an_epoch_are_one_run_of_two(copied: Path, optimizer: str) -> None:
    """One batch holds the whole log, so that both epochs have one order: then nothing may differ."""
    train = {"optimizer": optimizer, "batch_size": 512, "order": "shuffled", "learning_rate": 0.02}
    run_day(copied, "day1", None, out="once", **train)
    again = run_day(copied, "day1", "once", out="again", **train)
    assert not any(ColumnarLog(again / "log").manifest.summary["appended"].values())
    twice = run_day(copied, "day1", None, out="twice", **{**train, "epochs": 2})
    assert read_progress(twice / "checkpoint")["batches"] == 2
    assert_same(again, twice)
    assert_same(run_day(copied, "day1", "again", out="third", **train),
                run_day(copied, "day1", None, out="thrice", **{**train, "epochs": 3}))  # fmt: skip


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adam"])
def test_a_day_without_new_ids_is_training_on(copied: Path, optimizer: str) -> None:
    """Trained on in this process: the same model, state of the dense optimizer, rows moved to the new hot set."""
    lines = (copied / "day1.csv").read_text().splitlines(keepends=True)
    (copied / "day2.csv").write_text("".join([lines[0], *lines[300:50:-1]]))  # of the training split alone: all known
    train = {"optimizer": optimizer, "learning_rate": 0.02}
    run_day(copied, "day1", None, **train)
    run_day(copied, "day2", "day1", **train)
    recipes = [load_recipe(copied / f"{name}.toml") for name in ("day1", "day2")]
    folders = [RunFolder(recipe, copied / name) for recipe, name in zip(recipes, DAYS, strict=False)]
    packed = [folder.open_packed() for folder in folders]
    embeddings = [folder.open_embeddings() for folder in folders]
    model = build_model(recipes[0].model, embeddings[0].layout.features, 1, seed=recipes[0].train.seed)
    one = Trainer(model, embeddings[0], packed[0], recipes[0].train)
    one.fit()
    for table in range(4):
        embeddings[1].import_table(table, *embeddings[0].export_table(table))
    embeddings[1].steps = embeddings[0].steps
    two = Trainer(model, embeddings[1], packed[1], recipes[1].train)
    two.dense_optimizer.load_state_dict(one.dense_optimizer.state_dict())
    two.fit()
    for table, expected in enumerate(tables(copied / "day2")):
        weight, state = embeddings[1].export_table(table)
        assert torch.equal(weight, expected["weight"])
        assert torch.equal(state, expected["state"])
    dense = load_file(copied / "day2" / "checkpoint" / "dense.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, dense[f"model.{name}"])
    for parameter, state in two.dense_optimizer.state_dict()["state"].items():
        for key, value in state.items():
            assert torch.equal(torch.as_tensor(value), dense[f"optimizer.{parameter}.{key}"])


def test_killed_and_resumed(copied: Path) -> None:
    train = {"epochs": 12, "checkpoint_batches": 5, "learning_rate": 0.01, "optimizer": "adam"}
    run_day(copied, "day1", None, optimizer="adam", learning_rate=0.01)
    recipe = day_recipe(copied, "day2", "day1", **train)
    victim = Victim(recipe, copied / "killed")
    victim.wait_for(copied / "killed" / "checkpoint" / "manifest.json")
    victim.kill()
    done = succeed("run", recipe, "--out", copied / "killed")
    assert "train: continues after batch " in done.stderr
    assert "continuing" not in done.stderr
    assert_same(copied / "killed", run_day(copied, "day2", "day1", out="whole", **{**train, "checkpoint_batches": 0}))
    assert not unfinished(copied)


def test_only_the_last_run_of_several_is_needed(copied: Path) -> None:
    first = tables(copied / "day1")
    names = [values(copied / "day1", table) for table in range(4)]
    run_day(copied, "day2", "day1")
    seen = [counts(copied / "day2")]
    shutil.rmtree(copied / "day1")
    third = run_day(copied, "day3", "day2")
    seen.append(counts(third))
    for table in range(3):
        old, new = first[table], tables(third)[table]
        rows = len(old["weight"])
        assert values(third, table)[:rows] == names[table]
        untouched = np.flatnonzero((seen[0][table][:rows] == 0) & (seen[1][table][:rows] == 0))
        assert len(untouched) or table == 2
        assert old["weight"][untouched].numpy().tobytes() == new["weight"][untouched].numpy().tobytes()
        assert old["state"][untouched].numpy().tobytes() == new["state"][untouched].numpy().tobytes()
    assert ColumnarLog(third / "log").features[3].unknown_id == 44
    fault(fae("run", copied / "day2.toml", "--out", copied / "day2"), "[train] from = 'day1': there is no trained run")


def test_an_early_stopped_run_is_continued_from_its_best(copied: Path) -> None:
    """Dense optimizer state included: the checkpoint at the end is the best one's."""
    run_day(copied, "day1", None, epochs=6, early_stopping=1, learning_rate=0.5)
    progress = read_progress(copied / "day1" / "checkpoint")
    assert progress["stopped_early"], "else this shows nothing"
    ours, best = (contents(copied / "day1" / name) for name in ("checkpoint", "best"))
    for name in ours:
        if name.startswith("tables/"):
            assert ours[name] == best[name]
    left, right = (load_file(copied / "day1" / name / "dense.safetensors") for name in ("checkpoint", "best"))
    assert all(torch.equal(left[name], right[name]) for name in left if not name.startswith("random."))
    run_day(copied, "day2", "day1")
    fault(
        fae("run", day_recipe(copied, "day2", "day1/best"), "--out", copied / "other"),
        "day1/best is not finished", "run `fae run RECIPE.toml --out ",
    )  # fmt: skip


def made(folder: Path, run: str = "day2") -> list[str]:
    """Stages that `day2.toml` makes again in a run's folder."""
    done = succeed("run", folder / "day2.toml", "--out", folder / run, "--replace")
    return [stage for stage in STAGES if f"{stage}: already there" not in done.stderr]


def test_a_parent_is_known_by_its_fingerprint(copied: Path) -> None:
    run_day(copied, "day2", "day1")
    assert made(copied) == []
    (copied / "day1").rename(copied / "moved")
    day_recipe(copied, "day2", "moved/checkpoint")
    assert made(copied) == []
    day_recipe(copied, "day2", str(copied / "moved"))
    assert made(copied) == []
    # The same log, trained otherwise: only training starts again. Another log: all of it.
    run_day(copied, "day1", None, out="moved", epochs=2)
    assert made(copied) == ["train"]
    succeed("run", copied / "day1.toml", "--out", copied / "moved", "--replace", "--set", "log.min_frequency=2")
    assert made(copied) == list(STAGES)
    day_recipe(copied, "day2", None)
    assert made(copied) == list(STAGES)


def test_names_start_from_the_recipe_and_then_from_here(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copied / "runs").mkdir()
    (copied / "day1").rename(copied / "runs" / "day1")
    (copied / "recipes").mkdir()
    recipe = write_recipe(copied / "recipes", "day2.toml", log={**LOG, "train": "../day2.csv"}, hot=BUDGET)
    monkeypatch.chdir(copied)
    succeed("ingest", recipe, "--out", "a/one", "--set", "train.from=runs/day1")
    succeed("ingest", recipe, "--out", "b/two", "--set", "train.from=../runs/day1")
    assert contents(copied / "a" / "one") == contents(copied / "b" / "two")


def test_single_stages(copied: Path) -> None:
    """The verbs one by one do what `run` does, and training requires a log that continues the parent's."""
    recipe = day_recipe(copied, "day2", "day1")
    for stage in STAGES:
        succeed(stage, recipe, "--out", copied / "stages")
    assert_same(copied / "stages", run_day(copied, "day2", "day1"))
    alone = day_recipe(copied, "day2", None)
    for stage in STAGES[:-1]:
        succeed(stage, alone, "--out", copied / "alone")
    recipe = day_recipe(copied, "day2", "day1")
    fault(
        fae("train", recipe, "--out", copied / "alone"), "the log was made from another log", "`fae ingest RECIPE.toml`"
    )


CHANGED: dict[str, tuple[str, list[str]]] = {
    "nothing there": ("train.from=nowhere", ["[train] from = 'nowhere'", "no trained run or checkpoint in"]),
    "no folder": ("train.from=day1.csv", ["[train] from = 'day1.csv'", "no trained run or checkpoint in"]),
    "empty": ("train.from=", ["[train] from is empty"]),
    "no text": ("train.from=3", ["[train] from = 3 must be text in quotes"]),
    "no checkpoint": ("train.from=day1/log", ["name the run"]),
    "misspelt": ("train.form=day1", ["no key 'form'", "did you mean 'from'?"]),
    "columns": ("log.categorical=['item', 'user']", ["[log] categorical = ['item', 'user']"]),
    "one more column": (
        "log.categorical=['user', 'item', 'site', {name = 'views', encoded = true}, 'price']",
        ["[log] categorical = ['user', 'item', 'site', 'views', 'price']", "made with"],
    ),
    "encoded no more": (
        "log.categorical=['user', 'item', 'site', 'views']",
        ["[log] categorical views: encoded = False", "made with True"],
    ),
    "longer": (
        "log.categorical=['user', {name = 'item', max_length = 3}, 'site', {name = 'views', encoded = true}]",
        ["[log] categorical item: max_length = 3", "made with 1"],
    ),
    "dense": ("log.dense=[]", ["[log] dense = []", "made with ['price']"]),
    "transform": ("log.dense_transform=none", ["[log] dense_transform = 'none'", "made with 'log1p'"]),
    "optimizer": ("train.optimizer=adam", ["[train] optimizer = 'adam'", "trained with 'rowwise_adagrad'"]),
    "width": ("model.embedding_dim=8", ["[model] embedding_dim = 8", "trained with 4"]),
    "width of one": ("model.embedding_dims={item = 8}", ["[model] embedding_dims = {'item': 8}", "trained with {}"]),
    "model": ("model.top_mlp=[16]", ["[model] top_mlp = [16]", "trained with [8]"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGED)
def test_what_does_not_fit_is_refused(days: Path, tmp_path: Path, case: str) -> None:
    override, expected = CHANGED[case]
    recipe = write_recipe(tmp_path, log={**LOG, "train": str(days / "day2.csv")}, hot=BUDGET)
    arguments = ["run", recipe, "--out", tmp_path / "run", "--set", f"train.from={days / 'day1'}"]
    if override.startswith("train.from"):
        arguments[-1] = override.replace("=day1", f"={days / 'day1'}") if "day1" in override else override
        if case == "no folder":
            expected = expected[1:]
    else:
        arguments += ["--set", override]
    fault(fae(*arguments), *expected)
    assert not artifacts(tmp_path / "run")
    assert not unfinished(tmp_path)


def test_another_model_is_refused(days: Path, tmp_path: Path) -> None:
    model = {"name": "deepfm", "bottom_mlp": None, "top_mlp": None}
    log = {**LOG, "train": str(days / "day2.csv")}
    recipe = write_recipe(tmp_path, log=log, hot=BUDGET, model=model, train={"from": str(days / "day1")})
    fault(fae("run", recipe, "--out", tmp_path / "run"), "[model] name = 'deepfm'", "was trained with 'dlrm'")


@pytest.mark.parametrize("name", ["deepfm", "dcnv2", "wide_deep"])
def test_every_model_continues(copied: Path, name: str) -> None:
    for day, parent in (("day1", None), ("day2", "runs/day1")):
        recipe = write_recipe(
            copied, log={**LOG, "train": f"{day}.csv"}, hot=BUDGET, train={"from": parent},
            model={"name": name, "bottom_mlp": None, "top_mlp": None},
        )  # fmt: skip
        succeed("run", recipe, "--out", copied / "runs" / day)
    old, new = (load_file(copied / "runs" / day / "checkpoint" / "tables" / "0.safetensors") for day in DAYS[:2])
    untouched = np.flatnonzero(counts(copied / "runs" / "day2")[0][: len(old["weight"])] == 0)
    assert len(untouched)
    assert torch.equal(old["weight"][untouched], new["weight"][untouched])


def flip(path: Path) -> None:
    """Change the last byte of a file as a failing disk would: its times stay."""
    data, status = bytearray(path.read_bytes()), path.stat()
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a table": (lambda run: flip(run / "checkpoint/tables/1.safetensors"), "1.safetensors is missing or damaged"),
    "dense": (lambda run: flip(run / "checkpoint/dense.safetensors"), "dense.safetensors is missing or damaged"),
    "a table gone": (lambda run: (run / "checkpoint/tables/0.safetensors").unlink(), "0.safetensors is missing"),
    "manifest": (lambda run: (run / "checkpoint/manifest.json").write_text("{"), "is not a manifest"),
    "edited": (
        lambda run: (run / "checkpoint/manifest.json").write_text(
            json.dumps({**json.loads((run / "checkpoint/manifest.json").read_text()), "parents": {}})
        ),
        "was edited",
    ),
    "vocabulary": (lambda run: flip(run / "log/vocabulary/0.parquet"), "0.parquet is missing or damaged"),
    "no log": (lambda run: shutil.rmtree(run / "log"), "there is no log in"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_parent_is_refused(copied: Path, case: str) -> None:
    damage, expected = DAMAGE[case]
    damage(copied / "day1")
    line = fault(fae("run", day_recipe(copied, "day2", "day1"), "--out", copied / "day2"), expected)
    assert f"run `fae run RECIPE.toml --out {copied / 'day1'}`" in line
    assert not artifacts(copied / "day2")


@pytest.mark.parametrize("file", ["log/vocabulary/0.parquet", "checkpoint/tables/1.safetensors"])
def test_damage_in_a_file_too_large_to_be_read_at_opening(
    copied: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setattr("fae.artifacts.checksums._SMALL_FILE_BYTES", 0)
    before = (copied / "day1" / file).stat()
    flip(copied / "day1" / file)
    # Damage that leaves no trace in the file's times: newer files are read in full at once, whatever their size.
    os.utime(copied / "day1" / file, ns=(before.st_atime_ns, before.st_mtime_ns))
    fault(fae("run", day_recipe(copied, "day2", "day1"), "--out", copied / "day2"), f"{file} is missing or damaged")
    assert artifacts(copied / "day2") == ([] if file.startswith("log") else list(STAGES[:-1]))
    assert not unfinished(copied / "day2")


def test_a_parent_whose_log_was_made_again_otherwise(copied: Path) -> None:
    succeed("ingest", copied / "recipe.toml", "--out", copied / "day1", "--replace", "--set", "log.min_frequency=2")
    fault(
        fae("run", day_recipe(copied, "day2", "day1"), "--out", copied / "day2"),
        "was trained on another log than", "run `fae run RECIPE.toml --out ",
    )  # fmt: skip


def test_a_run_does_not_continue_itself(copied: Path) -> None:
    before = contents(copied / "day1")
    fault(
        fae("run", day_recipe(copied, "day2", "day1"), "--out", copied / "day1"),
        "is the folder that this run writes to", "choose another --out",
    )  # fmt: skip
    assert contents(copied / "day1") == before
