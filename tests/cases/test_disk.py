"""What lies on the disk between two commands: damaged, half written, linked elsewhere, or written by somebody else."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fae.artifacts.checksums import file_checksum
from fae.artifacts.manifest import Manifest, Plan, _digest, write_artifact
from fae.checkpoint import parent as parent_module
from fae.core.npy import save_array
from fae.core.whole_files import write_record, write_whole

from commands import contents, fae, fault, succeed, write_log, write_recipe

LINES = [f"{i % 3 == 0:d},u{i % 7},{i % 5}\n" for i in range(300)]
RECIPE = '[log]\ntrain = ["a.csv", "b.csv"]\nlabel = "y"\ncategorical = ["a"]\ndense = ["x"]\n'


def log_files(run: Path) -> dict[str, bytes]:
    """Every file of a run's log, by relative path."""
    log = run / "log"
    return {str(file.relative_to(log)): file.read_bytes() for file in log.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, ``part`` (an ingest that stopped behind its first file) and ``fresh`` (a whole one)."""
    folder = tmp_path_factory.mktemp("unfinished")
    (folder / "r.toml").write_text(RECIPE)
    (folder / "a.csv").write_text("y,a,x\n" + "".join(LINES))
    good = "y,a,x\n" + "".join(LINES[:200])
    (folder / "b.csv").write_text(good + "broken\n")
    fault(fae("ingest", folder / "r.toml", "--out", folder / "part"), "b.csv")
    (folder / "b.csv").write_text(good)
    succeed("ingest", folder / "r.toml", "--out", folder / "fresh")
    return folder


def overwrite(at: int, data: bytes) -> Callable[[Path], None]:
    """An edit of a file: other bytes at a place."""

    def edit(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(data)

    return edit


def replace(text: str) -> Callable[[Path], None]:
    """An edit of a file: another text."""

    def edit(path: Path) -> None:
        path.write_text(text)

    return edit


def a_pipe(path: Path) -> None:
    """An edit: a pipe in the file's place."""
    path.unlink()
    os.mkfifo(path)


def another_key(key: str, value: Any) -> Callable[[Path], None]:
    """An edit of a JSON file: another value."""

    def edit(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))

    return edit


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "labels": ("PART/labels.npy", overwrite(140, b"\1\1\1\1")),
    "dense": ("PART/dense.npy", overwrite(200, b"\0\0\0\x47")),
    "valid ids": ("PART/ids.npy", overwrite(200, b"\3\0\0\0")),
    "ids out of range": ("PART/ids.npy", overwrite(200, b"\0\0\0\x80")),
    "values of a part": ("PART/values", overwrite(17, b"zz")),
    "lengths of values": ("PART/values", overwrite(9, b"\xff")),
    "rows gone": ("PART/ids.npy", Path.unlink),
    "a pipe as rows": ("PART/labels.npy", a_pipe),
    "a pipe as values": ("PART/values", a_pipe),
    "a pipe as record": (".log.partial.json", a_pipe),
    "nested record": (".log.partial.json", replace("[" * 100_000 + "]" * 100_000)),
    "no record": (".log.partial.json", replace("{}")),
    "read, it says": (".log.partial.json", another_key("is_read", True)),
    "files of another type": (".log.partial.json", another_key("row_files", "many")),
    "no phase": (".log.partial.json", another_key("phase", None)),
    "another state": (".log.partial.json", another_key("state", {"splits": {"files": [["train", 5]]}})),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_to_what_an_ingest_has_kept_costs_time_alone(unfinished: Path, tmp_path: Path, case: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(unfinished / "part", run)
    name, edit = DAMAGES[case]
    (part,) = (run / ".log.partial" / "work" / "parts").iterdir()
    edit(part / name.removeprefix("PART/") if name.startswith("PART/") else run / name)
    done = succeed("ingest", unfinished / "r.toml", "--out", run)
    assert "damaged or was changed" in done.stderr
    assert "continuing" not in done.stderr
    assert log_files(run) == log_files(unfinished / "fresh")
    assert not [path for path in run.iterdir() if ".partial" in path.name]


def test_what_is_whole_is_continued(unfinished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(unfinished / "part", run)
    done = succeed("ingest", unfinished / "r.toml", "--out", run)
    assert "continuing; 1 part of the log is read" in done.stderr
    assert log_files(run) == log_files(unfinished / "fresh")


def stop_at(monkeypatch: pytest.MonkeyPatch, target: str, when: Callable[..., bool]) -> None:
    """Make a function end the command where `when` of its arguments holds, as a kill would."""
    module, _, name = target.rpartition(".")
    owner = __import__(module, fromlist=["x"])
    real = getattr(owner, name)

    def stopping(*arguments: Any, **options: Any) -> Any:
        if when(*arguments):
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, stopping)


def copy_left(unfinished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, when: Any) -> Path:
    """A run folder as a kill at that moment leaves it: nothing cleans up behind."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, target, when)
        patch.setattr("fae.ingest.resume.discard_progress", lambda path: None)
        fae("ingest", unfinished / "r.toml", "--out", run)
    assert (run / ".log.partial").is_dir()
    return run


LATE: dict[str, tuple[str, Callable[..., bool], str]] = {
    "while numbering": ("fae.core.npy.NpyRows.write", lambda *_: True, "ids.npy"),
    "while cleaning": ("shutil.rmtree", lambda path, *_: Path(path).name == "work", "ids.npy"),
    "at the manifest": ("fae.artifacts.manifest.write_json", lambda path, *_: path.name == "manifest.json", "ids.npy"),
}


@pytest.mark.parametrize("moment", LATE)
@pytest.mark.parametrize("name", ["", "ids.npy", "dense.npy", "labels.npy", "counts.npy", "vocabulary/0.parquet"])
def test_a_late_stop_is_continued_and_later_damage_is_seen(
    unfinished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, name: str
) -> None:
    target, when, _ = LATE[moment]
    if target.startswith("fae.core.npy"):
        from fae.core.npy import NpyRows

        with monkeypatch.context() as patch:
            patch.setattr(NpyRows, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            run = tmp_path / "run"
            fae("ingest", unfinished / "r.toml", "--out", run)
    else:
        run = copy_left(unfinished, tmp_path, monkeypatch, target, when)
    (run / ".log.partial" / ".manifest.json.writing").write_text("{")
    if name:
        path = run / ".log.partial" / name
        if (moment, name) == ("while numbering", "ids.npy"):  # ids are in the parts until then
            path = min((run / ".log.partial" / "work" / "parts").glob("*/ids.npy"))
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
    done = succeed("ingest", unfinished / "r.toml", "--out", run)
    is_written_anew = (moment, name) == ("while numbering", "vocabulary/0.parquet")
    assert ("damaged or was changed" in done.stderr) == (bool(name) and not is_written_anew)
    assert log_files(run) == log_files(unfinished / "fresh")


PLACES = (
    ".lock", ".log.partial", ".log.partial.json", ".log.writing", ".log.old", "log", "log.sources.json", "timings.json",
    ".log.sources.json.writing", ".timings.json.writing",
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["a file", "a folder"])
def test_links_out_of_a_run_folder_are_not_followed(unfinished: Path, tmp_path: Path, place: str, kind: str) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    if kind == "a file":
        other.write_text("precious")
    else:
        other.mkdir()
        (other / "manifest.json").write_text("precious")
        (other / "labels.npy").write_text("precious")
    before = {path: path.read_text() for path in (other, *other.rglob("*")) if path.is_file()}
    (run / place).symlink_to(other)
    done = fae("ingest", unfinished / "r.toml", "--out", run)
    assert done.status in (0, 2), done.stderr
    assert "Traceback" not in done.stderr
    assert {path: path.read_text() for path in (other, *other.rglob("*")) if path.is_file()} == before
    if done.status == 0:
        assert log_files(run) == log_files(unfinished / "fresh")


@pytest.mark.parametrize("inside", ["PART/ids.npy", "PART/values", "PART", "work/parts", "work"])
def test_links_inside_what_an_ingest_has_kept(unfinished: Path, tmp_path: Path, inside: str) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(unfinished / "part", run)
    (part,) = (run / ".log.partial" / "work" / "parts").iterdir()
    place = run / ".log.partial" / inside.replace("PART", f"work/parts/{part.name}")
    place.rename(other)
    place.symlink_to(other)
    before = {path: path.read_bytes() for path in (other, *other.rglob("*")) if path.is_file()}
    succeed("ingest", unfinished / "r.toml", "--out", run)
    assert {path: path.read_bytes() for path in (other, *other.rglob("*")) if path.is_file()} == before
    assert log_files(run) == log_files(unfinished / "fresh")
    assert not [path for path in (run / "log").rglob("*") if path.is_symlink()]


@pytest.mark.parametrize("place", PLACES)
def test_pipes_in_a_run_folder_do_not_hang(unfinished: Path, tmp_path: Path, place: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    os.mkfifo(run / place)
    done = fae("ingest", unfinished / "r.toml", "--out", run)
    assert done.status in (0, 2), done.stderr
    assert "Traceback" not in done.stderr
    if done.status == 0:
        assert log_files(run) == log_files(unfinished / "fresh")


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, "[]", '{"ingest": [1], "profile": "x"}', "\0"])
@pytest.mark.parametrize("name", ["timings.json", "log.sources.json", ".log.partial.json"])
def test_side_files_that_cannot_be_read_are_as_if_they_were_not_there(
    unfinished: Path, tmp_path: Path, name: str, text: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / name).write_text(text)
    done = succeed("ingest", unfinished / "r.toml", "--out", run)
    assert "Traceback" not in done.stderr
    assert log_files(run) == log_files(unfinished / "fresh")


def test_many_small_files_take_time_in_proportion(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('[log]\ntrain = "p/*.csv"\nlabel = "y"\ncategorical = ["user"]\n')
    (tmp_path / "p").mkdir()
    seconds = {}
    for count in (10, 300, 1500):
        for k in range(count):
            lines = "".join(f"{(k + j) % 2},u{(k * 5 + j) % 50}\n" for j in range(5))
            (tmp_path / "p" / f"part-{k}.csv").write_text("y,user\n" + lines)
        started = time.process_time()
        succeed("ingest", tmp_path / "r.toml", "--out", tmp_path / f"out{count}")
        seconds[count] = time.process_time() - started
    assert seconds[1500] - seconds[10] < 8 * (seconds[300] - seconds[10]) + 1, seconds


def test_from_that_names_the_log_names_the_run(tmp_path: Path) -> None:
    write_log(tmp_path)
    recipe = write_recipe(tmp_path)
    succeed("run", recipe, "--out", tmp_path / "day1", "--device", "cpu")
    before = contents(tmp_path / "day1")
    for part in ("log", "packed", "hot_set", "profile"):
        name = tmp_path / "day1" / part
        line = fault(
            fae("run", recipe, "--out", tmp_path / "day2", "--device", "cpu", "--set", f"train.from={name}"),
            "name the run", str(tmp_path / "day1"), str(tmp_path / "day1" / "checkpoint"),
        )  # fmt: skip
        assert "delete" not in line
        assert "move" not in line
    assert contents(tmp_path / "day1") == before
    assert parent_module.find_parent(str(tmp_path / "day1"), tmp_path).log.num_inputs == 600


def seal(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change an artifact's manifest and make its checksums, fingerprint and digest right again, as its maker could."""
    path = folder / "manifest.json"
    facts = json.loads(path.read_text())
    change(facts)
    for name in facts["files"]:
        file = folder / name
        facts["files"][name] = {"bytes": file.stat().st_size, "crc32": file_checksum(file)}
    facts["digest"] = _digest(vars(Manifest(**facts)))
    path.write_text(json.dumps(facts))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in ``run`` beside its recipe."""
    folder = tmp_path_factory.mktemp("trained")
    write_log(folder)
    write_recipe(folder)
    succeed("run", folder / "recipe.toml", "--out", folder / "run", "--device", "cpu")
    return folder


def values(name: str, at: int, value: Any) -> Callable[[Path], None]:
    """An edit of an artifact: another number in one of its arrays."""

    def edit(folder: Path) -> None:
        array = np.load(folder / name)
        array.reshape(-1)[at] = value
        save_array(folder / name, array)

    return edit


def array(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """An edit of an artifact: another array in one of its files."""
    return lambda folder: save_array(folder / name, change(np.load(folder / name)))


def summary(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    """An edit of a manifest: another value in its summary."""

    def edit(facts: dict[str, Any]) -> None:
        place = facts["summary"]
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return edit


def nothing(_: Any) -> None:
    """No edit."""


Edit = tuple[str, str, Callable[[Path], None], Callable[[dict[str, Any]], None]]
FOREIGN: dict[str, Edit] = {
    "an id beyond its table": ("log", "ids.npy", values("ids.npy", 6, 2**30), nothing),
    "an id below -1": ("log", "ids.npy", values("ids.npy", 6, -7), nothing),
    "a label of 7": ("log", "labels.npy", values("labels.npy", 6, 7), nothing),
    "a dense value of infinity": ("log", "dense.npy", values("dense.npy", 6, np.inf), nothing),
    "a dense value of NaN": ("log", "dense.npy", values("dense.npy", 6, np.nan), nothing),
    "a count below 0": ("log", "counts.npy", values("counts.npy", 6, -1), nothing),
    "a huge count": ("log", "counts.npy", values("counts.npy", 6, 2**62), nothing),
    "ids of 64 bits": ("log", "ids.npy", array("ids.npy", lambda a: a.astype(np.int64)), nothing),
    "ids without a row": ("log", "ids.npy", array("ids.npy", lambda a: a[:-1]), nothing),
    "ids without a column": ("log", "ids.npy", array("ids.npy", lambda a: np.ascontiguousarray(a[:, 1:])), nothing),
    "counts of another length": ("log", "counts.npy", array("counts.npy", lambda a: a[:-1]), nothing),
    "no array": ("log", "ids.npy", lambda folder: (folder / "ids.npy").write_bytes(b"x" * 500) and None, nothing),
    "a table of no rows": ("log", "manifest", nothing, summary("features", 0, "num_embeddings", value=0)),
    "a table of 2^60 rows": ("log", "manifest", nothing, summary("features", 0, "num_embeddings", value=2**60)),
    "a huge table": ("log", "counts.npy", nothing, summary("features", 0, "num_embeddings", value=2**31 - 2)),
    "a list of a billion": ("log", "ids.npy", nothing, summary("features", 0, "length", value=10**9)),
    "a text as size": ("log", "manifest", nothing, summary("features", 0, "num_embeddings", value="9")),
    "a feature that is none": ("log", "manifest", nothing, summary("features", 0, value=5)),
    "no features": ("log", "manifest", nothing, lambda facts: facts["summary"].pop("features") and None),
    "a pooling of its own": ("log", "manifest", nothing, summary("features", 0, "pooling", value="max")),
    "splits beyond the log": ("log", "manifest", nothing, summary("splits", "test", value=[500, 10**9])),
    "a split below 0": ("log", "manifest", nothing, summary("splits", "train", value=[-5, 400])),
    "no number of inputs": ("log", "manifest", nothing, summary("num_inputs", value=None)),
    "a profile of other counts": ("profile", "counts.npy", values("counts.npy", 0, -5), nothing),
    "a profile of fewer rows": ("profile", "counts.npy", array("counts.npy", lambda a: a[:-3]), nothing),
    "a profile beyond the log": ("profile", "manifest", nothing, summary("training_split", value=[0, 10**12])),
    "more hot rows than rows": ("hot_set", "manifest", nothing, summary("tables", 0, "num_hot", value=10**6)),
    "hot rows below 0": ("hot_set", "manifest", nothing, summary("tables", 0, "num_hot", value=-1)),
    "rows of no width": ("hot_set", "manifest", nothing, summary("tables", 0, "embedding_dim", value=0)),
    "staging rows of another kind": ("hot_set", "manifest", nothing, summary("staging_rows", value=[1, 2, 3])),
    "an order with a lookup twice": ("packed", "order_low.npy", values("train/order_low.npy", 3, 0), nothing),
    "an address of the test": ("packed", "test/addresses.npy", values("test/addresses.npy", 3, 2**30), nothing),
    "an order beyond the batch": ("packed", "order_low.npy", values("train/order_low.npy", 3, 2**16 - 1), nothing),
    "an order of int32": ("packed", "order_low.npy", array("train/order_low.npy", np.int32), nothing),
    "a cold row beyond its table": ("packed", "cold_rows_0.npy", values("train/cold_rows_0.npy", 0, 2**40), nothing),
    "cold rows that go back": ("packed", "cold_offsets.npy", values("train/cold_offsets.npy", 1, 2**40), nothing),
    "a segment beyond": ("packed", "block_starts_0.npy", values("train/cold_block_starts_0.npy", 0, 2**30), nothing),
    "more inputs than a batch": ("packed", "num_inputs.npy", values("train/num_inputs.npy", 0, 2**30), nothing),
    "a packed label of 3": ("packed", "train/labels.npy", values("train/labels.npy", 0, 3), nothing),
    "a batch of 0": ("packed", "manifest", nothing, summary("batch_size", value=0)),
    "more hot batches than batches": (
        "packed", "manifest", nothing, summary("splits", "train", "num_hot_batches", value=10**9)
    ),
    "batches without end": ("packed", "npy", nothing, summary("splits", "train", "num_batches", value=2**40)),
}  # fmt: skip
NEXT = {"log": ("profile", "calibrate", "pack"), "profile": ("calibrate",), "hot_set": ("pack",), "packed": ("train",)}


@pytest.mark.parametrize("case", FOREIGN)
def test_artifacts_of_another_maker_are_refused_before_they_are_followed(
    trained: Path, tmp_path: Path, case: str
) -> None:
    kind, named, edit, change = FOREIGN[case]
    run = tmp_path / "run"
    shutil.copytree(trained / "run", run)
    for later in ("checkpoint", "packed", "hot_set", "profile", "log"):
        if later == kind:
            break
        shutil.rmtree(run / later)
    edit(run / kind)
    seal(run / kind, change)
    for verb in NEXT[kind]:
        done = fae(verb, trained / "recipe.toml", "--out", run, "--device", "cpu")
        if done.status:
            break
    line = fault(done, "damaged", named)
    assert "delete" not in line


def test_the_order_of_what_reaches_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before an old artifact goes, every file and folder of the new one is on the disk, and then its name is."""
    events: list[tuple[str, str]] = []
    real_sync, real_rename, real_rmtree = os.fsync, Path.rename, shutil.rmtree

    def synced(descriptor: int) -> None:
        events.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        real_sync(descriptor)

    def renamed(self: Path, target: Path) -> Any:
        events.append(("rename", str(self)))
        return real_rename(self, target)

    def removed(path: Path, *arguments: Any, **options: Any) -> None:
        events.append(("remove", str(path)))
        real_rmtree(path, *arguments, **options)

    plan = Plan(kind="thing", format_version=1, parameters={}, parents={}, command="fae thing")
    path, new, old = tmp_path / "thing", str(tmp_path / ".thing.writing"), str(tmp_path / ".thing.old")

    def write() -> None:
        with write_artifact(path, plan, {}) as folder:
            (folder / "part").mkdir()
            (folder / "part" / "data").write_bytes(b"x" * 1000)

    write()
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(shutil, "rmtree", removed)
    write()
    moved = events.index(("rename", str(path)))
    taken = events.index(("rename", new))
    gone = max(index for index, event in enumerate(events) if event == ("remove", old))
    for name in (f"{new}/part/data", f"{new}/manifest.json", f"{new}/part", new):
        assert events.index(("fsync", name)) < moved, events
    assert moved < taken < events.index(("fsync", str(tmp_path)), taken) < gone


CHECKPOINTS: dict[str, tuple[str, Callable[[Path], None], Callable[[dict[str, Any]], None]]] = {
    "a table of another width": (
        "tables/0.safetensors",
        lambda folder: shutil.copy(folder / "tables" / "2.safetensors", folder / "tables" / "0.safetensors") and None,
        nothing,
    ),
    "no tensors": (
        "tables/0.safetensors", lambda folder: (folder / "tables" / "0.safetensors").write_bytes(b"x" * 99) and None,
        nothing,
    ),
    "no dense weights": (
        "dense", lambda folder: shutil.copy(folder / "tables" / "0.safetensors", folder / "dense.safetensors") and None,
        nothing,
    ),
    "nested progress": (
        "progress.json", lambda folder: (folder / "progress.json").write_text("[" * 100_000 + "]" * 100_000) and None,
        nothing,
    ),
    "progress of other types": (
        "progress.json", lambda folder: (folder / "progress.json").write_text('{"batches": "x"}') and None,
        nothing,
    ),
    "a table of no rows": ("manifest", lambda _: None, summary("tables", 0, "num_embeddings", value=0)),
    "a text as steps": ("manifest", lambda _: None, summary("row_steps", value="x")),
}  # fmt: skip


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_checkpoints_of_another_maker_cannot_be_continued(trained: Path, tmp_path: Path, case: str) -> None:
    named, edit, change = CHECKPOINTS[case]
    run = tmp_path / "run"
    shutil.copytree(trained / "run", run)
    edit(run / "checkpoint")
    seal(run / "checkpoint", change)
    done = fae(
        "run", trained / "recipe.toml", "--out", tmp_path / "day2", "--device", "cpu", "--set", f"train.from={run}"
    )
    line = fault(done, named)
    assert "delete" not in line


def test_what_an_earlier_version_has_kept_is_read_anew(unfinished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(unfinished / "part", run)
    another_key("version", 1)(run / ".log.partial.json")
    done = succeed("ingest", unfinished / "r.toml", "--out", run)
    assert "continuing" not in done.stderr
    assert log_files(run) == log_files(unfinished / "fresh")


def test_working_files_that_cannot_be_removed_never_become_part_of_the_log(
    unfinished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, real = tmp_path / "run", shutil.rmtree

    def refused(path: Path, *arguments: Any, **options: Any) -> None:
        if Path(path).name == "work":
            raise PermissionError(13, "Permission denied", str(path))
        real(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refused)
        for _ in range(2):
            fault(fae("ingest", unfinished / "r.toml", "--out", run), "Permission denied")
            assert not (run / "log").exists()
    succeed("ingest", unfinished / "r.toml", "--out", run)
    assert log_files(run) == log_files(unfinished / "fresh")


def test_a_plain_file_in_the_place_of_the_kept_folder_stays(unfinished: Path, tmp_path: Path) -> None:
    (tmp_path / ".log.partial").write_text("precious")
    fault(fae("ingest", unfinished / "r.toml", "--out", tmp_path), str(tmp_path / ".log.partial"), "move it away")
    assert (tmp_path / ".log.partial").read_text() == "precious"


def test_a_record_is_on_the_disk_before_it_replaces_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real_sync(descriptor)

    def replaced(self: Path, target: Path) -> Any:
        events.append(f"-> {target.name}")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    write_record(tmp_path / "run.json", {"a": 1})
    write_whole(tmp_path / "report.html", "text")
    assert events == [
        ".run.json.writing", "-> run.json", tmp_path.name, ".report.html.writing", "-> report.html", tmp_path.name,
    ]  # fmt: skip
