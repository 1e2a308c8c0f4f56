"""A log that was ingested once is found by later runs beside it; `fae runs` lists them, `fae clean` frees space."""

from __future__ import annotations

import fcntl
import shutil
import threading
from pathlib import Path

import pytest

from commands import contents, fae, fault, strict_json, succeed, write_log, write_recipe


@pytest.fixture
def runs(finished: Path) -> Path:
    """The finished run as runs/my beside its recipe and log; returns the folder of all."""
    (finished / "runs").mkdir()
    (finished / "run").rename(finished / "runs" / "my")
    return finished


def small(folder: Path, *arguments: object, verb: str = "run") -> str:
    """Run the recipe with another budget in runs/small; what it said."""
    done = succeed(verb, folder / "recipe.toml", "--out", folder / "runs" / "small", "--budget", "3KiB", *arguments)
    return done.stderr


def test_a_second_run_does_not_ingest(runs: Path) -> None:
    """With a test_fraction, which the recipe has; the second run's model does not need the first one's folder name."""
    said = small(runs)
    assert f"ingest: found {runs / 'runs' / 'my' / 'log'}" in said
    link = runs / "runs" / "small" / "log"
    assert link.is_symlink()
    assert link.resolve() == (runs / "runs" / "my" / "log").resolve()
    assert "ingest: already there" in small(runs)
    out = runs / "scores.csv"
    succeed("predict", runs / "runs" / "small", runs / "log.csv", "--out", out)
    (runs / "runs").rename(runs / "moved")
    succeed("predict", runs / "moved" / "small", runs / "log.csv", "--out", out)


def test_the_raw_file_is_not_read_again_for_its_name(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fae.ingest.raw_files.source_digests as digests
    from fae.ingest.raw_files.digest_kinds import BLOCKS, digest_by_kind

    facts = digest_by_kind(runs / "log.csv", BLOCKS)
    stat = (runs / "log.csv").stat()
    sidecar = runs / "runs" / "my" / "log.sources.json"
    sidecar.write_text(
        f'{{"{(runs / "log.csv").resolve()}": {{"bytes": {stat.st_size}, "mtime_ns": {stat.st_mtime_ns}, '
        f'"{BLOCKS}": "{facts}"}}}}'
    )
    monkeypatch.setattr(digests, "_known_digests", {})
    monkeypatch.setattr(digests, "open_blocks", lambda path: pytest.fail(f"{path} is read"))
    assert "ingest: found" in small(runs, verb="ingest")


def test_another_log_is_not_taken(runs: Path) -> None:
    succeed("ingest", runs / "recipe.toml", "--out", runs / "runs" / "other", "--set", "log.test_fraction=0.3")
    assert not (runs / "runs" / "other" / "log").is_symlink()


def test_the_first_run_is_deleted(runs: Path) -> None:
    """One line with the command for what needs the log, and that command ingests by itself."""
    small(runs)
    shutil.rmtree(runs / "runs" / "my")
    broken = runs / "runs" / "small"
    fault(
        fae("predict", broken, runs / "log.csv", "--out", runs / "s.csv"),
        "which is gone",
        "run `fae run RECIPE.toml --out ",
    )
    record = strict_json((broken / "run.json").read_text())
    (line,) = succeed("runs", runs / "runs", "--json").result["runs"]
    assert (line["name"], line["state"]) == ("small", "broken")
    assert (line["test_auc"], line["budget_bytes"]) == (record["test"]["auc"], 3072), "its figures are known"
    assert "which is not there any more" in line["detail"]
    said = small(runs)
    assert "is not there any more" in said
    assert "train: already there" in said
    assert not (broken / "log").is_symlink()
    succeed("predict", broken, runs / "log.csv", "--out", runs / "s.csv")


def test_a_log_that_another_run_reads_is_not_replaced_or_removed_silently(runs: Path) -> None:
    small(runs)
    first, second = runs / "runs" / "my", runs / "runs" / "small"
    done = succeed("clean", first, "--all", "--json")
    (kept,) = done.result["kept"]
    assert (kept["name"], kept["why"]) == ("log/", f"{second} reads it")
    assert (first / "log").is_dir()
    shutil.rmtree(first / "checkpoint")
    arguments = ("ingest", runs / "recipe.toml", "--out", first, "--set", "log.min_frequency=2")
    fault(fae(*arguments), f"{second} reads it", "--replace")


def test_list(runs: Path) -> None:
    small(runs)
    (runs / "runs" / "broken" / "checkpoint").mkdir(parents=True)
    (runs / "runs" / "broken" / "checkpoint" / "manifest.json").write_text("{")
    (runs / "runs" / "empty").mkdir()
    succeed("ingest", runs / "recipe.toml", "--out", runs / "runs" / "begun")
    done = succeed("runs", runs / "runs", "--sort", "name", "--json")
    found = {each["name"]: each for each in done.result["runs"]}
    assert list(found) == ["begun", "broken", "my", "small"]
    assert [found[name]["state"] for name in found] == ["unfinished", "broken", "finished", "finished"]
    record = strict_json((runs / "runs" / "my" / "run.json").read_text())
    mine = found["my"]
    assert mine["test_auc"] == record["test"]["auc"]
    assert mine["inputs_per_second"] == record["train"]["samples_per_second"]
    assert (mine["budget_bytes"], mine["log"], mine["num_inputs"]) == (4096, ["log.csv"], 600)
    assert mine["when"] == record["ended"]
    assert mine["bytes"] > sum(len(data) for data in contents(runs / "runs" / "my").values())
    lines = done.stderr.splitlines()
    assert lines[0].split()[:3] == ["run", "when", "log"]
    assert "made: ingest" in next(line for line in lines if line.startswith("begun"))
    by_size = succeed("runs", runs / "runs", "--sort", "size", "--json").result["runs"]
    assert [each["bytes"] for each in by_size] == sorted((each["bytes"] for each in by_size), reverse=True)
    (alone,) = succeed("runs", runs / "runs" / "my", "--json").result["runs"]
    assert alone["name"] == "my"


def test_list_of_nothing(tmp_path: Path) -> None:
    assert succeed("runs", tmp_path, "--json").result["runs"] == []
    fault(fae("runs", tmp_path / "none"), "does not exist")
    fault(fae("runs", tmp_path, "--sort", "beauty"), "--sort 'beauty'", "auc")


def test_clean(runs: Path) -> None:
    """What is left scores and continues; `fae run` makes the rest again, the same bytes, and does not train."""
    run, out = runs / "runs" / "my", runs / "scores.csv"
    before = contents(run)
    dry = succeed("clean", run, "--dry-run", "--json").result
    assert contents(run) == before
    done = succeed("clean", run, "--json").result
    assert {**done, "dry_run": True} == dry
    assert [each["name"] for each in done["removed"]] == ["profile/", "hot_set/", "packed/"]
    assert done["bytes"] == sum(each["bytes"] for each in done["removed"]) > 0
    assert {path.name for path in run.iterdir() if path.is_dir()} == {"log", "checkpoint"}
    succeed("predict", run, runs / "log.csv", "--out", out)
    assert "test AUC" in succeed("run", runs / "recipe.toml", "--out", run).stderr
    assert contents(run) == before
    assert succeed("clean", run, "--all", "--json").result["kept"] == []
    assert not (run / "log").exists()
    fault(fae("predict", run, runs / "log.csv", "--out", out), "run `fae run RECIPE.toml --out ")
    assert "train: already there" in succeed("run", runs / "recipe.toml", "--out", run).stderr
    assert contents(run) == before


def test_a_replaced_log_is_handed_to_the_runs_that_read_it(runs: Path) -> None:
    """--replace is said of one run: the finished ones beside it can score on, also when the raw file has changed."""
    mine, recipe = runs / "runs" / "my", runs / "recipe.toml"
    small(runs)
    shutil.copytree(runs / "runs" / "small", runs / "runs" / "third", symlinks=True)
    before = contents(mine / "log")
    new = runs / "new.csv"
    new.write_text((runs / "log.csv").read_text())
    (runs / "log.csv").write_text((runs / "log.csv").read_text() + "1,u1,i1,s1,2.0,3\n")
    said = succeed("run", recipe, "--out", mine, "--replace").stderr
    heir, third = runs / "runs" / "small" / "log", runs / "runs" / "third" / "log"
    assert f"{heir.parent}, {third.parent} read {mine / 'log'}, which is replaced: it is {heir} now" in said
    assert contents(mine / "log") != before
    assert contents(heir) == before
    assert not heir.is_symlink()
    assert third.resolve() == heir.resolve()
    for name in ("small", "third"):
        succeed("predict", runs / "runs" / name, new, "--out", runs / "scores.csv")


class Killed(BaseException):
    """In the place of a signal that nothing catches."""


@pytest.mark.parametrize("removals", [0, 1, 3])
def test_killed_while_it_cleans(runs: Path, monkeypatch: pytest.MonkeyPatch, removals: int) -> None:
    """What was half removed is not in the way of the stage that makes it again."""
    import fae.core.files as files
    from fae.run.housekeeping.cleaning import clean

    run, left, remove = runs / "runs" / "my", iter(range(removals)), shutil.rmtree
    before = contents(run)

    def removing(path: Path, **options: bool) -> None:
        if next(left, None) is None:
            raise Killed
        remove(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(files.shutil, "rmtree", removing)
        with pytest.raises(Killed):
            clean(run, everything=True)
    if removals:
        succeed("clean", run, "--all")
    assert "train: already there" in succeed("run", runs / "recipe.toml", "--out", run).stderr
    assert contents(run) == before


def test_clean_keeps_a_log_that_could_not_be_made_again(runs: Path) -> None:
    run = runs / "alone" / "own"
    succeed("ingest", runs / "recipe.toml", "--out", run)
    (runs / "log.csv").write_text("changed\n")
    (kept,) = succeed("clean", run, "--all", "--json").result["kept"]
    assert "its raw file log.csv is not where it was, or was changed" in kept["why"]


def test_another_name_of_a_run_does_not_read_its_log(runs: Path) -> None:
    run = runs / "runs" / "my"
    (runs / "runs" / "latest").symlink_to("my")
    for name in ("my", "latest"):
        assert succeed("clean", runs / "runs" / name, "--all", "--dry-run", "--json").result["kept"] == []
    small(runs)
    shutil.copytree(runs / "runs" / "small", runs / "runs" / "copy", symlinks=True)
    (kept,) = succeed("clean", run, "--all", "--dry-run", "--json").result["kept"]
    assert kept["why"] == f"{runs / 'runs' / 'copy'}, {runs / 'runs' / 'small'} read it"


def test_a_look_at_runs_does_not_stop_one(runs: Path) -> None:
    """`fae runs` holds the lock for a moment."""
    run = runs / "runs" / "my"
    with (run / ".lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        timer = threading.Timer(0.05, fcntl.flock, (file, fcntl.LOCK_UN))
        timer.start()
        succeed("clean", run, "--dry-run")
        timer.join()


def test_clean_refuses_what_is_no_run_or_is_active(runs: Path, tmp_path: Path) -> None:
    from fae.core.files import locked_folder

    fault(fae("clean", tmp_path / "none"), "does not exist", "`fae runs`")
    fault(fae("clean", tmp_path), "is no run folder")
    with locked_folder(runs / "runs" / "my"):
        fault(fae("clean", runs / "runs" / "my"), "another run is writing to")
        (line,) = succeed("runs", runs / "runs", "--json").result["runs"]
        assert line["state"] == "running"


def test_more_epochs_after_clean(tmp_path: Path) -> None:
    """Early stopping ended on an earlier epoch: the last one is kept by `clean`, and gone with --all."""
    write_log(tmp_path)
    train = {"epochs": 4, "early_stopping": 3, "learning_rate": 0.05, "optimizer": "adam"}
    recipe, run = write_recipe(tmp_path, train=train, hot={"budget": "20KiB"}), tmp_path / "runs" / "a"
    succeed("run", recipe, "--out", run)
    more = ("run", recipe, "--out", run, "--set", "train.epochs=5")
    assert (run / "last").is_dir(), "the last epoch is not the best one"
    names = [each["name"] for each in succeed("clean", run, "--json").result["removed"]]
    assert "best/" in names
    assert "last/" not in names
    shutil.copytree(run, tmp_path / "b" / "a")
    assert "train: 4 epochs are trained, 5 are wanted" in succeed(*more).stderr
    run = tmp_path / "b" / "a"
    assert "last/" in [each["name"] for each in succeed("clean", run, "--all", "--json").result["removed"]]
    done = fae("run", recipe, "--out", run, "--set", "train.epochs=5")
    fault(done, "last, which is gone", "--replace")
