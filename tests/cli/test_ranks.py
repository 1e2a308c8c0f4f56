"""`fae run --gpus N --device cpu`: ranks train what one process trains, end as one, and continue with any number."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fae.artifacts.checkpoint import read_progress
from fae.artifacts.packed import PackedDataset
from fae.cli.main import main
from fae.engine.processes import process_start
from fae.report.sentences.rank_lines import rank_lines
from started_runs import assert_same, nodes_of_torchrun, started, tensors, torchrun_of

from commands import fae, fault, succeed, write_log, write_recipe

TORCHRUN = torchrun_of(2)
INTERRUPTED = "fae: interrupted; the same command continues from here"
RECIPE = {
    "hot": {"budget": "8KiB"},
    "train": {"epochs": 3, "checkpoint_batches": 7, "optimizer": "adam"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log, a recipe, and the run `alone` of one process."""
    folder = tmp_path_factory.mktemp("ranks")
    write_log(folder, 2500)
    write_recipe(folder, **RECIPE)
    succeed("run", folder / "recipe.toml", "--out", folder / "alone", "--device", "cpu")
    return folder


@pytest.fixture(scope="module")
def two(made: Path) -> Path:
    """The same run by two ranks."""
    started(made, "two", "--gpus", "2").end()
    return made / "two"


def assert_close(one: Path, other: Path) -> None:
    """Two trainings that differ in how sums are rounded alone."""
    for (name, first), (_, second) in zip(tensors(one), tensors(other), strict=True):
        np.testing.assert_allclose(first, second, rtol=0.02, atol=2e-3, err_msg=name)
    first, second = (json.loads((out / "run.json").read_text()) for out in (one, other))
    np.testing.assert_allclose(first["train"]["loss_curve"], second["train"]["loss_curve"], rtol=1e-4)
    for split in ("validation", "test"):
        assert first[split]["log_loss"] == pytest.approx(second[split]["log_loss"], rel=1e-4)
    assert first["train"]["num_inputs"] == second["train"]["num_inputs"]
    assert first["fingerprints"] == second["fingerprints"]


def test_two_ranks_train_what_one_does(made: Path, two: Path) -> None:
    assert_close(two, made / "alone")
    record = json.loads((two / "run.json").read_text())
    assert (record["train"]["ranks"], record["train"]["wire"]) == (2, "gather")
    assert record["command"].endswith("--device cpu --gpus 2")
    alone = json.loads((made / "alone" / "run.json").read_text())["train"]
    assert (alone["ranks"], alone["wire"]) == (1, None)


def test_rows_may_be_anywhere(made: Path, two: Path) -> None:
    """The default placement, which has cold rows to stage here, ends with the same bytes."""
    assert PackedDataset(made / "alone" / "packed").train.has_cold_rows.any()
    started(made, "device", "--gpus", "2", "--set", "train.placement=device").end()
    assert_same(made / "device", two)


def test_each_rank_says_what_it_moved(made: Path, two: Path) -> None:
    """In the record, on the page, in the terminal; and a plan says as much before."""
    train = json.loads((two / "run.json").read_text())["train"]
    each = train["each_rank"]
    assert [one["rank"] for one in each] == [0, 1]
    assert sum(one["num_inputs"] for one in each) == train["num_inputs"]
    for one in each:
        assert one["received_bytes_per_input"] == one["received_bytes"] / one["num_inputs"]
        assert 0 < one["waited_seconds"] < train["seconds"]
    shown = fae("run", made / "recipe.toml", "--out", two, "--device", "cpu").stderr
    page = Path(succeed("report", two, "--json", "--out", made / "two.html").result["path"]).read_text()
    for rank, text in rank_lines(each):
        assert f"train: {rank}: {text}" in shown
        assert text in page
    alone = json.loads((made / "alone" / "run.json").read_text())
    assert alone["train"]["each_rank"] == []
    planned = succeed("plan", made / "recipe.toml", "--out", made / "none", "--gpu", "h100", "--json").result["gpus"]
    (row,) = [row for row in planned["strong"] if (row["gpus"], row["placement"]) == (2, "device")]
    received = sum(one["received_bytes"] for one in each) / train["num_inputs"]
    assert row["received_bytes_per_input"] == pytest.approx(received, rel=0.04)
    halved = succeed(
        "plan", made / "recipe.toml", "--out", made / "none", "--gpu", "h100", "--json", "--set", "train.batch_size=16"
    ).result["gpus"]
    (row,) = [row for row in halved["weak"] if (row["gpus"], row["placement"]) == (2, "device")]
    assert row["received_bytes_per_input"] == pytest.approx(received, rel=0.04)


def test_the_first_rank_alone_talks(made: Path) -> None:
    lines = started(made, "talk", "--gpus", "2").end()
    assert len(lines) == len(set(lines)), lines
    assert sum(line.startswith("epoch ") for line in lines) == 3
    assert (
        fae("run", made / "recipe.toml", "--out", made / "talk", "--device", "cpu").stderr.count("already there") == 5
    )


def test_under_torchrun(made: Path, two: Path) -> None:
    """The same bytes as those of our launcher; a second start finds nothing to train, and ends well."""
    started(made, "torchrun", starter=TORCHRUN).end()
    assert_same(made / "torchrun", two)
    lines = started(made, "torchrun", starter=TORCHRUN).end()
    assert sum("train: already there" in line for line in lines) == 1


def test_the_first_rank_of_torchrun_does_other_work_alone(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
    for name, value in names.items():
        monkeypatch.setenv(name, str(value))
    words = ("report", made / "alone", "--out", made / "of ranks.html")
    for rank, wrote in ((1, False), (0, True)):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        done = fae(*words)
        assert (done.status, bool(done.stderr), (made / "of ranks.html").exists()) == (0, wrote, wrote)


def test_four_ranks(made: Path) -> None:
    started(made, "four", "--gpus", "4").end()
    assert_close(made / "four", made / "alone")


@pytest.mark.slow
def test_two_nodes_of_torchrun_end_as_one_of_four_ranks(made: Path) -> None:
    """Both are this machine; the run folder is one that both see."""
    started(made, "one node", "--gpus", "4").end()
    for node in [started(made, "nodes", starter=starter) for starter in nodes_of_torchrun(2)]:
        node.end()
    assert_same(made / "nodes", made / "one node")
    assert json.loads((made / "nodes" / "run.json").read_text())["train"]["wire"] == "gather"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_behind_one_batch(number: int, made: Path, two: Path) -> None:
    """And the same command continues there, to the bytes of a training that was left alone."""
    name = f"signal{number}"
    running = started(made, name, "--gpus", "2")
    running.await_batches(7)
    running.process.send_signal(number)
    assert running.end(128 + number)[-1] == INTERRUPTED
    trained = read_progress(made / name / "checkpoint")
    assert trained["batches"] > 0
    assert not trained["complete"]
    started(made, name, "--gpus", "2").end()
    assert_same(made / name, two)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_all(rank: int, made: Path, two: Path) -> None:
    """Then one rank continues, or two."""
    running = started(made, f"killed{rank}", "--gpus", "2")
    pids = running.await_batches(7)
    os.kill(pids[rank], signal.SIGKILL)
    began = time.monotonic()
    assert running.end(2)[-1].startswith(f"fae: rank {rank} of 2 (process {pids[rank]}) was ended by SIGKILL")
    assert time.monotonic() - began < 30
    assert not any(process_start(pid) for pid in pids)
    assert not read_progress(running.out / "checkpoint")["complete"]
    shutil.copytree(running.out, made / f"then_one{rank}", symlinks=True)
    for out, words in ((running.out.name, ("--gpus", "2")), (f"then_one{rank}", ())):
        assert any(line.startswith("train: continues after batch ") for line in started(made, out, *words).end())
    assert_same(running.out, two)
    assert_close(made / f"then_one{rank}", made / "alone")


def test_more_epochs_on_another_number_of_ranks(made: Path, two: Path) -> None:
    """Two ranks continue what one has finished, and one what two have."""
    shutil.copytree(made / "alone", made / "one_then_two", symlinks=True)
    shutil.copytree(two, made / "two_then_one", symlinks=True)
    for out, words in (("one_then_two", ("--gpus", "2")), ("two_then_one", ())):
        lines = started(made, out, "--set", "train.epochs=4", *words).end()
        assert "train: 3 epochs are trained, 4 are wanted" in lines
    assert_close(made / "one_then_two", made / "two_then_one")


def test_early_stopping(made: Path) -> None:
    """All ranks stop at the same epoch, and end on the weights of the best one."""
    words = ("--set", "train.early_stopping=1", "--set", "train.epochs=12")
    found: dict[str, Any] = {}
    for out, ranks in (("stops_two", "2"), ("stops_one", "1")):
        started(made, out, "--gpus", ranks, *words).end()
        found[out] = json.loads((made / out / "run.json").read_text())["train"]
        assert found[out]["stopped_early"]
    assert found["stops_two"]["epochs"] == found["stops_one"]["epochs"] < 12
    assert_close(made / "stops_two", made / "stops_one")


def test_two_ranks_continue_another_run(made: Path) -> None:
    """From its rows and weights; what is measured beside the AUC is the same, too."""
    words = ("--set", f"train.from={made / 'alone'}", "--set", "train.group_by=user")
    for out, ranks in (("from_two", "2"), ("from_one", "1")):
        lines = started(made, out, "--gpus", ranks, *words).end()
        assert f"train: continuing {made / 'alone' / 'checkpoint'}" in lines
    assert_close(made / "from_two", made / "from_one")
    one, two = (json.loads((made / f"from_{name}" / "run.json").read_text()) for name in ("one", "two"))
    assert one["parent"]["test_before"] == two["parent"]["test_before"]
    assert one["test"]["group_auc"]["auc"] == pytest.approx(two["test"]["group_auc"]["auc"], abs=1e-3)


def test_a_loss_that_is_not_finite_is_said_once(made: Path) -> None:
    words = ("--set", "train.learning_rate=1e30", "--set", "train.optimizer=sgd")
    lines = started(made, "diverges", "--gpus", "2", *words).end(2)
    assert [line for line in lines if line.startswith("fae: ")] == lines[-1:]
    assert lines[-1].startswith("fae: training diverged: the loss of a batch up to number ")


REPRODUCIBLE = ("--set", "train.reproducible=true")


def test_reproducible_ranks_end_with_the_bytes_of_one(made: Path) -> None:
    """Killed in the middle, two ranks are continued by four and by one, to the same losses and metrics too."""
    started(made, "same_one", *REPRODUCIBLE).end()
    running = started(made, "same_four", *REPRODUCIBLE, "--gpus", "2")
    os.kill(running.await_batches(7)[1], signal.SIGKILL)
    running.end(2)
    shutil.copytree(running.out, made / "same_then_one", symlinks=True)
    for out, words in (("same_four", ("--gpus", "4")), ("same_then_one", ())):
        lines = started(made, out, *REPRODUCIBLE, *words).end()
        assert any(line.startswith("train: continues after batch ") for line in lines)
        assert_same(made / out, made / "same_one")
        one, other = (json.loads((made / name / "run.json").read_text()) for name in ("same_one", out))
        assert one["recipe"] == other["recipe"]
        for part in ("fingerprints", "validation", "test"):
            assert one[part] == other[part]
        for part in ("loss_curve", "validation_curve", "epoch_curve", "reproducible"):
            assert one["train"][part] == other["train"][part], part
    assert one["train"]["reproducible"]
    assert other["train"]["ranks"] == 1
    assert not json.loads((made / "alone" / "run.json").read_text())["train"]["reproducible"]


@pytest.mark.parametrize(
    ("verb", "ranks", "placement"),
    [("run", (), "hybrid"), ("run", ("--gpus", "2"), "paper"), ("train", ("--gpus", "2"), "hybrid")],
)
def test_reproducible_needs_the_rows_on_gpus(verb: str, ranks: tuple[str, ...], placement: str, made: Path) -> None:
    where = ("--device", "cuda", "--set", f"train.placement={placement}")
    words = (verb, made / "recipe.toml", "--out", made / "refused", *REPRODUCIBLE, *where)
    fault(fae(*words, *ranks), f'[train] placement = "{placement}" cannot be trained reproducibly on GPUs')
    assert not (made / "refused").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--gpus", "0"), "--gpus 0 must be 1, 2, 4 or 8"),
        (("--gpus", "3"), "--gpus 3 must be 1, 2, 4 or 8"),
        (("--gpus", "16"), "--gpus 16 must be 1, 2, 4 or 8"),
        (("--gpus", "2", "--device", "cuda"), "there is no CUDA device here"),
        (("--gpus", "4", "--set", "train.batch_size=34"), "set train.batch_size=36"),
        (("--set", "train.batch_size=34", "--set", "train.reproducible=true"), "set train.batch_size=40"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "train"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="one of them is refused where there is no GPU")
def test_what_ranks_do_not_train_yet(verb: str, words: tuple[str, ...], expected: str, made: Path) -> None:
    fault(fae(verb, made / "recipe.toml", "--out", made / "refused", "--device", "cpu", *words), expected)
    assert not (made / "refused").exists()


def test_one_rank_says_that_it_spreads_nothing(made: Path) -> None:
    words = ("run", made / "recipe.toml", "--out", made / "spread alone", "--device", "cpu")
    done = fae(*words, "--set", "train.placement=spread")
    assert done.status == 0, done.stderr
    assert 'with one rank "spread" keeps every row on its device, as "device" does' in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="it trains on GPUs")
def test_without_gpus_it_says_that_ranks_are_processes(made: Path) -> None:
    words = ("run", str(made / "recipe.toml"), "--out", str(made / "no gpus"), "--gpus", "2")
    done = subprocess.run([sys.executable, "-m", "fae", *words], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.count("no GPU is found here, so 2 processes train on the CPU") == 1


def test_places_that_do_not_fit(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "MASTER_ADDR": "a", "MASTER_PORT": 1}
    for name, value in names.items():
        monkeypatch.setenv(name, str(value))
    words = ("run", made / "recipe.toml", "--out", made / "refused")
    fault(fae(*words, "--gpus", "4"), "--gpus 4 is not how many ranks there are (2: WORLD_SIZE is that of torchrun)")
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    done = fae(*words, "--gpus", "4")
    assert (done.status, done.stderr) == (2, ""), "its neighbour has said it"
    monkeypatch.setenv("RANK", "x")
    fault(fae(*words), "RANK = 'x' must be a number from 0 to 1")


def test_ranks_find_no_module_that_the_command_does_not(made: Path, tmp_path: Path) -> None:
    """A script's own folder is not where it was called; ``python -m`` looks there, and so do its ranks."""
    (tmp_path / "queue.py").write_text("raise SystemExit('a module of the current folder')")
    script = Path(sys.executable).with_name("fae")
    if not script.exists():
        pytest.skip("the command is not installed")
    words = ("run", made / "recipe.toml", "--out", made / "two_elsewhere", "--gpus", "2", "--device", "cpu")
    done = subprocess.run(
        [script, *words, "--set", "train.epochs=1"], cwd=tmp_path, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr


def test_the_status_is_returned(made: Path) -> None:
    words = ["run", str(made / "recipe.toml"), "--out", str(made / "two"), "--gpus", "2", "--device", "cpu"]
    assert main(words) == 0


def test_train_alone(made: Path) -> None:
    """The verb of one stage starts ranks as well."""
    running = started(made, "verb", "--gpus", "2")
    running.process.kill()
    running.process.communicate()
    command = [sys.executable, "-m", "fae", "train", str(made / "recipe.toml"), "--out", str(made / "verb")]
    done = subprocess.run([*command, "--device", "cpu", "--gpus", "2", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["summary"]["train"]["ranks"] == 2
