"""kill -9 and the same command again: the final checkpoint is that of an undisturbed run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from commands import artifacts, contents, fae, fault, strict_json, succeed, unfinished, write_log, write_recipe

TRAIN = {"epochs": 16, "checkpoint_batches": 5, "learning_rate": 0.01}
"""Some 220 batches and 60 checkpoints: a process takes a second or two for them."""


class Victim:
    """A run in another process."""

    def __init__(self, recipe: Path, run: Path) -> None:
        command = [sys.executable, "-m", "fae.cli.main", "run", str(recipe), "--out", str(run)]
        # One thread, as the tests of this folder have: another number of them may sum in another order.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def wait_for(self, path: Path, *, other_than: int | None = None) -> int:
        """Wait until `path` is there, as another file than the one with inode number `other_than`."""
        end = time.monotonic() + 120
        while time.monotonic() < end and self.process.poll() is None:
            try:
                inode = path.stat().st_ino
            except OSError:
                inode = other_than
            if inode != other_than and inode is not None:
                return inode
            time.sleep(0.002)
        self.process.kill()
        output = self.process.communicate()[0].decode()
        raise AssertionError(f"{path} did not come; the process said: {output}")

    def kill(self) -> None:
        """Kill it, which must find it alive."""
        assert self.process.poll() is None
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        assert self.process.returncode == -signal.SIGKILL


def tensors(run: Path) -> dict[str, bytes]:
    """All files of a run, except those that hold times."""
    return {name: data for name, data in contents(run).items() if "progress" not in name}


def test_killed_twice_in_training(tmp_path: Path) -> None:
    """In the order whose next phase depends most on what was before: the adaptive one."""
    moments = random.Random("moments of kills")
    write_log(tmp_path)
    recipe, run = write_recipe(tmp_path, train={**TRAIN, "order": "adaptive"}), tmp_path / "run"
    manifest = run / "checkpoint" / "manifest.json"
    seen = None
    batches = 0
    for _ in range(2):
        victim = Victim(recipe, run)
        seen = victim.wait_for(manifest, other_than=seen)
        time.sleep(moments.uniform(0, 0.15))
        victim.kill()
        succeed("pack", recipe, "--out", run)  # clears what the kill left, and does nothing to the checkpoint
        assert not unfinished(run)
        progress = strict_json((run / "checkpoint" / "progress.json").read_text())
        assert not progress["complete"], "killed before its end"
        assert progress["batches"] > batches, "the second process continued where the first one ended"
        batches = progress["batches"]
        seen = manifest.stat().st_ino
    done = succeed("run", recipe, "--out", run)
    assert f"train: continues after batch {batches}\n" in done.stderr
    assert done.stderr.count("already there") == 4

    other = tmp_path / "not killed" / "run"
    succeed("run", recipe, "--out", other, "--set", "train.checkpoint_batches=0")
    ours, theirs = tensors(run), tensors(other)
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} <= {"checkpoint/manifest.json"}
    records = [strict_json((folder / "run.json").read_text()) for folder in (run, other)]
    assert records[0]["test"] == records[1]["test"]
    assert records[0]["train"]["loss_curve"] == records[1]["train"]["loss_curve"]
    assert records[0]["train"]["validation_curve"] == records[1]["train"]["validation_curve"]


def test_killed_at_its_first_artifact(tmp_path: Path) -> None:
    """Somewhere after ingest: every folder under a final name is whole, and the next run continues from there."""
    write_log(tmp_path)
    recipe, run = write_recipe(tmp_path), tmp_path / "run"
    victim = Victim(recipe, run)
    victim.wait_for(run / "log" / "manifest.json")
    victim.kill()
    stages = artifacts(run)
    done = succeed("run", recipe, "--out", run)
    assert all(f"{stage}: already there" in done.stderr for stage in stages if stage != "train")
    assert not unfinished(run)


ROOT = Path(__file__).resolve().parents[2]
PLACES = ("ingest: first pass", "calibrate", "pack", "train: writing a checkpoint", "run.json")


@pytest.mark.slow
def test_killed_in_stage_after_stage(tmp_path: Path) -> None:
    """The short form of the script that kills everywhere: one folder, a kill in stage after stage, the same bytes."""
    script, out = ROOT / "tests" / "campaigns" / "kills.py", tmp_path / "kills.json"
    command = [sys.executable, str(script), "--kills", "0", "--chains", "1", "--inputs", "4000", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(tmp_path)}
    done = subprocess.run([*command, "--places", *PLACES], capture_output=True, text=True, env=environment, timeout=580)
    assert done.returncode == 0, done.stderr
    result = strict_json(out.read_text())
    assert result["num_kills"] >= len(PLACES)
    assert result["never_hit"] == [], "each place was hit, by the stack of the moment"
    assert result["all_same_bytes"]
    assert result["all_whole"]


def test_times_of_a_training_are_those_of_all_its_processes(tmp_path: Path) -> None:
    write_log(tmp_path)
    recipe, run = write_recipe(tmp_path, train=TRAIN), tmp_path / "run"
    victim = Victim(recipe, run)
    seen = victim.wait_for(run / "checkpoint" / "manifest.json")
    victim.wait_for(run / "checkpoint" / "manifest.json", other_than=seen)
    victim.kill()
    before = strict_json((run / "checkpoint" / "progress.json").read_text())["stage_seconds"]
    assert before > 0
    started = time.monotonic()
    record = succeed("run", recipe, "--out", run, "--json").result
    mine = time.monotonic() - started
    assert before < record["stage_seconds"]["train"] < before + mine
    assert record["stage_seconds"]["train"] > record["train"]["seconds"]
    again = succeed("run", recipe, "--out", run, "--json").result
    assert again["stage_seconds"] == record["stage_seconds"]


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training with early stopping, killed after its first best weights: read it, never write it."""
    folder = tmp_path_factory.mktemp("cut off")
    write_log(folder)
    recipe = write_recipe(folder, train={**TRAIN, "epochs": 40, "early_stopping": 30})
    run = folder / "run"
    victim = Victim(recipe, run)
    victim.wait_for(run / "best" / "manifest.json")
    seen = victim.wait_for(run / "checkpoint" / "manifest.json")
    for _ in range(2):  # the first of these is written behind the best weights, and knows of them
        seen = victim.wait_for(run / "checkpoint" / "manifest.json", other_than=seen)
    victim.kill()
    succeed("pack", recipe, "--out", run)
    return folder


def edit(file: Path) -> None:
    """Change a manifest by hand."""
    text = file.read_text()
    assert '"seed": 7' in text
    file.write_text(text.replace('"seed": 7', '"seed": 8'))


@pytest.mark.parametrize(
    "spoil",
    [
        shutil.rmtree,
        lambda best: edit(best / "manifest.json"),
        lambda best: (best / "dense.safetensors").write_bytes((best / "dense.safetensors").read_bytes()[:-1]),
        lambda best: (shutil.rmtree(best), shutil.copytree(best.with_name("packed"), best)),
    ],
    ids=["gone", "edited", "damaged", "another artifact"],
)
def test_continuing_without_the_best_weights(cut_off: Path, tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    """Early stopping returns to them at the end: a run without them fails at once and names the fix."""
    recipe, run = cut_off / "recipe.toml", tmp_path / "run"
    shutil.copytree(cut_off / "run", run)
    spoil(run / "best")
    before = contents(run)
    fault(fae("train", recipe, "--out", run), str(run / "best"), "move both away and run `fae train RECIPE.toml`")
    assert contents(run) == before
    if spoil is shutil.rmtree:
        shutil.rmtree(run / "checkpoint")
        assert "continues after" not in succeed("train", recipe, "--out", run, "--set", "train.epochs=1").stderr


def criteo_day(folder: Path, day: int, num_inputs: int = 25_000) -> None:
    """A file of Criteo's format whose values are partly those of the day before."""
    numbers = np.random.default_rng(day).zipf(1.2, (num_inputs, 26)) % 100_000 + 20_000 * day
    lines = (f"{i % 2}\t{i % 50}" + "\t1" * 12 + "".join(f"\t{n:08x}" for n in row) for i, row in enumerate(numbers))
    (folder / f"day_{day}.tsv").write_text("\n".join(lines) + "\n")


def test_ingest_killed_in_a_later_day_continues_with_that_day(tmp_path: Path) -> None:
    for day in range(5):
        criteo_day(tmp_path, day)
    log = {"format": "criteo_terabyte", "train": "day_*.tsv"} | dict.fromkeys(
        ["label", "categorical", "dense", "test_fraction", "validation_fraction"]
    )
    recipe, run = write_recipe(tmp_path, log=log, hot={"budget": "1MiB"}), tmp_path / "run"
    victim = Victim(recipe, run)
    parts = run / ".log.partial" / "work" / "parts"
    while not [path for path in parts.glob("*") if path.suffix != ".tmp"] and victim.process.poll() is None:
        time.sleep(0.002)
    victim.kill()
    num_read = len([path for path in parts.iterdir() if path.suffix != ".tmp"])
    assert 1 <= num_read <= 5
    assert not (run / "log").exists()
    done = succeed("ingest", recipe, "--out", run)
    parts_are = "1 part of the log is" if num_read == 1 else f"{num_read} parts of the log are"
    assert f"ingest: continuing; {parts_are} read\n" in done.stderr
    other = tmp_path / "other" / "run"  # not beside the first, whose log it would use
    succeed("ingest", recipe, "--out", other)
    assert contents(run) == contents(other)
    assert not [path for path in run.iterdir() if "partial" in path.name or "writing" in path.name]
    assert "ingest: already there" in succeed("ingest", recipe, "--out", run).stderr


def test_a_signal_at_the_end_of_the_process_is_no_traceback() -> None:
    """Python itself would print one where SIGINT comes while it shuts down."""
    code = (
        "import os, signal, sys; from fae.cli.main import main; sys.argv = ['fae', '--version']; main(); "
        "os.kill(os.getpid(), signal.SIGINT)"
    )
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
    assert done.stdout.startswith("fae ")
