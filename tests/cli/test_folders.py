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

from fae.artifacts.checksums import file_checksum
from fae.artifacts.manifest import fingerprint
from fae.run.folder import RunFolder
from fae.run.recipe import load_recipe

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


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("case", EDITS)
def test_edited_manifest(finished: Path, case: str, stage: str) -> None:
    """The next stage refuses it, and so does the stage itself, rather than overwrite it."""
    edit, expected = EDITS[case]
    original = contents(finished / "run")
    path = finished / "run" / ARTIFACTS[stage]
    edit(path)
    before = contents(finished / "run")
    for verb in ("run", stage, *([CHILDREN[stage]] if stage in CHILDREN else [])):
        advice = f"move {path} away and run `fae {stage} RECIPE.toml`"
        fault(fae(verb, *in_place(finished)), expected, str(path), advice)
        assert contents(finished / "run") == before
    shutil.rmtree(path)
    succeed(stage, *in_place(finished))
    assert differing(original, contents(finished / "run")) <= TIMED
    if stage in CHILDREN:
        done = succeed(CHILDREN[stage], *in_place(finished), "--json")
        assert done.result["skipped"], "the artifact is what it was, so all that was made from it is current"


TIMED = {"checkpoint/progress.json", "checkpoint/manifest.json"}
"""Progress holds times, and the manifest beside it holds its checksum."""


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> set[str]:
    """Files that are not the same in two runs."""
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


DAMAGES: dict[str, Callable[[Path, bytes], Any]] = {
    "one bit in the middle": lambda file, content: file.write_bytes(
        content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]
    ),
    "cut by a byte": lambda file, content: file.write_bytes(content[:-1]),
    "a byte more": lambda file, content: file.write_bytes(content + b"\0"),
    "empty": lambda file, content: file.write_bytes(b""),
    "gone": lambda file, _: file.unlink(),
    "a folder": lambda file, _: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_of_an_artifact_damaged(finished: Path, stage: str, damage: str) -> None:
    """One file at a time; each is named, nothing is touched, and deleting the artifact repairs the run."""
    original = contents(finished / "run")
    artifact = finished / "run" / ARTIFACTS[stage]
    files = sorted(path for path in artifact.rglob("*") if path.is_file() and path.name != "manifest.json")
    assert files
    child = CHILDREN.get(stage, stage)
    for file in files:
        content = file.read_bytes()
        if damage in ("cut by a byte", "one bit in the middle", "empty") and not content:
            continue
        DAMAGES[damage](file, content)
        before = contents(finished / "run")
        expected = str(file), f"move {artifact} away", f"`fae {stage} "
        fault(fae(child, *in_place(finished)), *expected)
        fault(fae("run", *in_place(finished)), *expected)
        assert contents(finished / "run") == before
        if file.is_dir():
            file.rmdir()
        file.write_bytes(content)
    assert contents(finished / "run") == original
    shutil.rmtree(artifact)
    succeed("run", *in_place(finished))
    assert differing(original, contents(finished / "run")) <= TIMED


def test_artifact_without_manifest(finished: Path) -> None:
    """It is no artifact any more, so no stage replaces it."""
    for stage, name in ARTIFACTS.items():
        (finished / "run" / name / "manifest.json").rename(finished / "manifest.json")
        before = contents(finished / "run")
        fault(fae("run", *in_place(finished)), f"{finished / 'run' / name} is there and is no artifact", "move it away")
        assert contents(finished / "run") == before
        (finished / "manifest.json").rename(finished / "run" / name / "manifest.json")
        succeed(stage, *in_place(finished))


@pytest.mark.parametrize("foreign", STAGES[1:])
def test_artifact_of_another_log(finished: Path, other_run: Path, foreign: str) -> None:
    """The stage that reads it refuses it; its own stage, and so `fae run`, makes it again for this log."""
    run, name = finished / "run", ARTIFACTS[foreign]
    original = contents(run)
    shutil.rmtree(run / name)
    shutil.copytree(other_run / name, run / name)
    if foreign in CHILDREN:
        before = contents(run)
        parent = ARTIFACTS[dict(zip(STAGES[1:], STAGES, strict=False))[foreign]]
        expected = f"the {name} was made from another {parent}", f"; run `fae {foreign} RECIPE.toml`"
        fault(fae(CHILDREN[foreign], *in_place(finished)), *expected)
        assert contents(run) == before
    succeed("run", *in_place(finished), *(["--replace"] if foreign == "train" else []))
    assert differing(original, contents(run)) <= TIMED


def test_log_of_another_log(finished: Path, other_run: Path) -> None:
    """Every stage refuses what was made from the log that is no longer there."""
    run = finished / "run"
    original = contents(run)
    shutil.rmtree(run / "log")
    shutil.copytree(other_run / "log", run / "log")
    before = contents(run)
    for verb in ("calibrate", "pack", "train"):
        fault(
            fae(verb, *in_place(finished)), "the profile was made from another log", "; run `fae profile RECIPE.toml`"
        )
        assert contents(run) == before
    succeed("run", *in_place(finished))
    assert differing(original, contents(run)) <= TIMED


@pytest.fixture(scope="module")
def other_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole run of another log: read it, never write it."""
    folder = tmp_path_factory.mktemp("other")
    write_log(folder, 300, seed=8)
    succeed("run", write_recipe(folder), "--out", folder / "run")
    return folder / "run"


def test_large_files_are_read_where_they_are_newer_than_their_manifest(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terabyte is not read again at every start, and an edit is noticed all the same."""
    monkeypatch.setattr("fae.artifacts.checksums._SMALL_FILE_BYTES", 0)
    read: list[Path] = []

    def checksum(path: Path) -> str:
        read.append(path)
        return file_checksum(path)

    monkeypatch.setattr("fae.artifacts.checksums.file_checksum", checksum)
    log = finished / "run" / "log"
    succeed("profile", *in_place(finished))
    assert not [path for path in read if log in path.parents]
    ids = log / "ids.npy"
    content = ids.read_bytes()
    ids.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    fault(fae("profile", *in_place(finished)), str(ids), "is missing or damaged", f"move {log} away")
    ids.write_bytes(content)
    read.clear()
    succeed("profile", *in_place(finished))
    assert ids in read
    read.clear()
    succeed("profile", *in_place(finished))
    assert ids not in read, "what was read once and found whole is trusted until it changes again"


def test_out_that_cannot_be(finished: Path) -> None:
    """A file is in the place of the folder, or above it; nothing is written to it."""
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
        for verb in (["demo"], ["synthetic", "--columnar"]):
            fault(fae(*verb, "--inputs", 5000, "--out", run), f"another run is writing to {run}", "--out")
        command = [sys.executable, "-m", "fae.cli.main", "ingest", str(recipe), "--out", str(run)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("fae: another run is writing to")
    assert contents(run) == before
    succeed("run", *in_place(finished))


def test_two_runs_that_start_together(finished: Path) -> None:
    """Two processes in a folder that is not there yet: one does the work, the other says why it does not."""
    recipe, run = finished / "recipe.toml", finished / "new"
    command = [sys.executable, "-m", "fae.cli.main", "run", str(recipe), "--out", str(run)]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in both]
    refused = [text for process, text in zip(both, said, strict=True) if process.returncode == 2]
    assert sorted(process.returncode for process in both) in ([0, 2], [0, 0]), said
    assert all(text.startswith(f"fae: another run is writing to {run}; wait for it") for text in refused)
    assert not unfinished(run)
    assert (run / "log").resolve() == finished / "run" / "log", "of the finished run, which is used in place"
    ours = {name: data for name, data in contents(finished / "run").items() if not name.startswith("log/")}
    assert differing(ours, contents(run)) <= TIMED


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
@pytest.mark.parametrize("failing", [1, 2])
def test_rename_that_fails(finished: Path, stage: str, failing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the last moment of a stage, the first or the second rename: the artifact of before is where it was."""
    changed = {"ingest": "log.min_frequency=2", "profile": "hot.sample=0.5", "train": "train.learning_rate=0.3"}
    overrides = [changed.get(stage, "hot.budget=3KiB"), "hot.sample_min_inputs=99"][: 2 if stage == "profile" else 1]
    if stage == "pack":
        succeed("calibrate", *in_place(finished), "--set", *overrides)
    before = contents(finished / "run")
    path = finished / "run" / ARTIFACTS[stage]
    rename, seen = Path.rename, []

    def full(self: Path, target: Path) -> Path:
        if path in (self, target):
            seen.append(target)
            if len(seen) == failing:
                raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    replace = ["--replace"] if stage in ("ingest", "train") else []
    done = fae(stage, *in_place(finished), *replace, *(part for one in overrides for part in ("--set", one)))
    fault(done, f"cannot write to {path}: No space left on device", "--out")
    assert contents(finished / "run") == before
    assert not unfinished(finished)


@pytest.mark.parametrize("name", ["run.json", "timings.json"])
def test_record_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    write_log(tmp_path, 50)
    (tmp_path / "run" / name).mkdir(parents=True)
    fault(fae("run", write_recipe(tmp_path), "--out", tmp_path / "run"), f"cannot write to {tmp_path / 'run' / name}")
    assert not unfinished(tmp_path)
