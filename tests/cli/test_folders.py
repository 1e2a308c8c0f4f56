"""The folder of a run: who may write to it, in which order, and what becomes of artifacts that were tampered with."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fae.core.artifact import fingerprint
from fae.recipe import load_recipe
from fae.stages import RunFolder

from commands import ARTIFACTS, STAGES, artifacts, contents, fae, fault, succeed, unfinished, write_log, write_recipe

CHILDREN = dict(itertools.pairwise(STAGES))
"""The stage that reads a stage's artifact next."""


def in_place(folder: Path) -> tuple[Path, str, Path]:
    """Arguments behind the verb: the finished run in its own folder."""
    return folder / "recipe.toml", "--out", folder / "run"


@pytest.mark.parametrize("stage", STAGES[1:])
def test_stage_before_its_parents(tmp_path: Path, stage: str) -> None:
    write_log(tmp_path, 50)
    done = fae(stage, write_recipe(tmp_path), "--out", tmp_path / "run", "--json")
    fault(done, "there is no ", str(tmp_path / "run"), "run `fae ", "RECIPE.toml` first")
    assert not artifacts(tmp_path / "run")
    assert not unfinished(tmp_path)


@pytest.mark.parametrize("missing", STAGES[:-1])
def test_stage_whose_parent_was_removed(finished: Path, missing: str) -> None:
    shutil.rmtree(finished / "run" / ARTIFACTS[missing])
    before = contents(finished / "run")
    fault(
        fae(CHILDREN[missing], *in_place(finished)),
        f"there is no {ARTIFACTS[missing]}", f"run `fae {missing} RECIPE.toml` first",
    )  # fmt: skip
    assert contents(finished / "run") == before


def edit_manifest(path: Path, change: Callable[[dict[str, Any]], Any], *, sign: bool = False) -> None:
    """Change a manifest; `sign` makes its fingerprint right again, as another version of the program would."""
    file = path / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    if sign:
        made_from = (manifest[key] for key in ("kind", "format_version", "parameters", "parents"))
        manifest["fingerprint"] = fingerprint(*made_from)
    file.write_text(json.dumps(manifest))


EDITS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "parameters": (
        lambda path: edit_manifest(path, lambda manifest: manifest["parameters"].update(seed=99)),
        "was edited",
    ),
    "summary": (
        lambda path: edit_manifest(path, lambda manifest: manifest["summary"].update(num_inputs=1, num_rows=1)),
        "was edited",
    ),
    "format version": (
        lambda path: edit_manifest(path, lambda manifest: manifest.update(format_version=99), sign=True),
        "format 99, expected",
    ),
    "kind": (lambda path: edit_manifest(path, lambda manifest: manifest.update(kind="cake"), sign=True), "holds cake"),
    "no JSON": (lambda path: (path / "manifest.json").write_text("{"), "is not a manifest"),
    "unknown key": (lambda path: edit_manifest(path, lambda manifest: manifest.update(x=1)), "is not a manifest"),
    "no object": (lambda path: (path / "manifest.json").write_text("[]"), "is not a manifest"),
    "wrong shape": (lambda path: (path / "manifest.json").write_text('{"kind": []}'), "is not a manifest"),
    "not text": (lambda path: (path / "manifest.json").write_bytes(b"\xff\xfe"), "is not a manifest"),
}


@pytest.mark.parametrize("stage", ["ingest", "calibrate"])
@pytest.mark.parametrize("case", EDITS)
def test_edited_manifest(finished: Path, case: str, stage: str) -> None:
    """The next stage refuses it, naming the command that mends it, and that command does."""
    edit, expected = EDITS[case]
    original = contents(finished / "run")
    path = finished / "run" / ARTIFACTS[stage]
    edit(path)
    before = contents(finished / "run")
    line = fault(fae(CHILDREN[stage], *in_place(finished)), expected, str(path), f"`fae {stage} RECIPE.toml`")
    assert contents(finished / "run") == before
    if "delete" in line:
        shutil.rmtree(path)
    succeed(stage, *in_place(finished))
    assert contents(finished / "run") == original
    done = succeed(CHILDREN[stage], *in_place(finished), "--json")
    assert done.result["skipped"], "the artifact is what it was, so all that was made from it stands"


@pytest.mark.parametrize(
    ("stage", "file"),
    [
        ("ingest", "ids.npy"),
        ("profile", "counts.npy"),
        ("calibrate", "ranks/0.npy"),
        ("pack", "train/addresses.npy"),
        ("train", "tables/0.safetensors"),
        ("train", "progress.json"),
    ],
)
@pytest.mark.parametrize("damage", ["one byte", "cut", "gone"])
def test_damaged_file(finished: Path, stage: str, file: str, damage: str) -> None:
    original = contents(finished / "run")
    path = finished / "run" / ARTIFACTS[stage] / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content if damage == "one byte" else content[:-1])
    before = contents(finished / "run")
    line = fault(
        fae("run", *in_place(finished)),
        str(path), "is missing or damaged", f"delete {finished / 'run' / ARTIFACTS[stage]}", f"`fae {stage} ",
    )  # fmt: skip
    assert contents(finished / "run") == before
    assert "delete" in line
    shutil.rmtree(finished / "run" / ARTIFACTS[stage])
    succeed("run", *in_place(finished))
    mended = contents(finished / "run")
    assert {name for name in original if mended[name] != original[name]} <= {
        "checkpoint/progress.json", "checkpoint/manifest.json",  # they hold times
    }  # fmt: skip


def test_artifact_of_another_log(finished: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_log(other, 100, seed=8)
    for stage in ("ingest", "profile"):
        succeed(stage, write_recipe(other), "--out", other / "run")
    for kind, refused, expected in (
        ("profile", "calibrate", "the profile was made from another log"),
        ("log", "pack", "made from another log"),
    ):
        run = finished / kind
        shutil.copytree(finished / "run", run)
        shutil.rmtree(run / kind)
        shutil.copytree(other / "run" / kind, run / kind)
        before = contents(run)
        fault(fae(refused, finished / "recipe.toml", "--out", run), expected, "; run `fae ")
        assert contents(run) == before


def test_out_that_cannot_be(finished: Path) -> None:
    """A file stands there, or above it; nothing is written to it."""
    file = finished / "log.csv"
    content = file.read_bytes()
    for out in (file, file / "below"):
        for verb in ("run", "ingest", "train"):
            fault(fae(verb, finished / "recipe.toml", "--out", out), f"cannot write to {out}", "--out")
        fault(fae("demo", "--inputs", 5000, "--out", out), str(out), "--out")
    assert file.read_bytes() == content


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_out_without_permission(finished: Path) -> None:
    folder = finished / "closed"
    folder.mkdir(mode=0o500)
    fault(fae("run", finished / "recipe.toml", "--out", folder / "run"), "cannot write to", "Permission denied")


def test_artifact_name_taken_by_a_file(tmp_path: Path) -> None:
    write_log(tmp_path, 50)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "profile").write_text("mine")
    recipe = write_recipe(tmp_path)
    fault(fae("run", recipe, "--out", tmp_path / "run"), f"{tmp_path / 'run' / 'profile'} is there and is no artifact")
    assert (tmp_path / "run" / "profile").read_text() == "mine"
    assert not unfinished(tmp_path)


def test_two_runs_in_one_folder(finished: Path) -> None:
    recipe, run = finished / "recipe.toml", finished / "run"
    before = contents(run)
    with RunFolder(load_recipe(recipe), run).locked():
        for verb in ("run", *STAGES):
            fault(fae(verb, *in_place(finished)), f"another run is writing to {run}", "wait for it", "--out")
        command = [sys.executable, "-m", "fae.cli.main", "ingest", str(recipe), "--out", str(run)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("fae: another run is writing to")
    assert contents(run) == before
    succeed("run", *in_place(finished))


def test_raw_files_in_a_folder_named_as_an_artifact(tmp_path: Path) -> None:
    """``--out .`` beside raw files in ``log/``: they must survive."""
    (tmp_path / "log").mkdir()
    raw = write_log(tmp_path).rename(tmp_path / "log" / "day_0.csv")
    recipe = write_recipe(tmp_path, log={"train": "log/*.csv"})
    fault(fae("run", recipe, "--out", tmp_path), f"{tmp_path / 'log'} is there and is no artifact", "--out")
    assert raw.is_file()
    assert not unfinished(tmp_path)


def test_leftovers_of_a_kill_are_cleared(finished: Path) -> None:
    """Killed before, between and behind the two renames of a folder; nothing stays, and nothing is made again."""
    run = finished / "run"
    original = contents(run)
    shutil.copytree(run / "log", run / ".log.writing")
    (run / "packed").rename(run / ".packed.old")
    shutil.copytree(run / "checkpoint", run / ".checkpoint.old")
    (run / ".run.json.writing").write_text("{")
    succeed("run", *in_place(finished))
    assert not unfinished(finished)
    assert contents(run) == original


@pytest.mark.parametrize("content", ["", "[1]", "null", "gone"])
def test_lost_times_are_null(finished: Path, content: str) -> None:
    """They are a convenience: a run that finds everything done does not fail for them."""
    timings = finished / "run" / "timings.json"
    timings.unlink()
    if content != "gone":
        timings.write_text(content)
    record = succeed("run", *in_place(finished), "--json").result
    assert record["stage_seconds"] == dict.fromkeys(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_full_disk(finished: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the last moment of a stage: one line, the artifact of before untouched, nothing left beside it."""
    changed = {"ingest": "log.min_frequency=2", "profile": "hot.sample=0.5", "train": "train.learning_rate=0.3"}
    overrides = [changed.get(stage, "hot.budget=3KiB"), "hot.sample_min_inputs=99"][: 2 if stage == "profile" else 1]
    if stage == "pack":
        succeed("calibrate", *in_place(finished), "--set", *overrides)
    before = contents(finished / "run")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fae.core.artifact.replace_folder", full)
    done = fae(stage, *in_place(finished), *(part for one in overrides for part in ("--set", one)))
    fault(done, f"cannot write to {finished / 'run' / ARTIFACTS[stage]}: No space left on device", "--out")
    assert contents(finished / "run") == before
    assert not unfinished(finished)


@pytest.mark.parametrize("name", ["run.json", "timings.json"])
def test_record_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    write_log(tmp_path, 50)
    (tmp_path / "run" / name).mkdir(parents=True)
    fault(fae("run", write_recipe(tmp_path), "--out", tmp_path / "run"), f"cannot write to {tmp_path / 'run' / name}")
    assert not unfinished(tmp_path)
