"""Numbers that training computed at commit 6836991, and a run folder of that commit: both must stay what they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from commands import STAGES, strict_json, succeed

GOLDEN = Path(__file__).parent / "golden"
LOSSES = json.loads((GOLDEN / "losses.json").read_text())
CLOSE = {"rel": 1e-4, "abs": 1e-5}
"""Another CPU sums in another order; on the machine that made the golden losses they are equal to the bit."""


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """As the golden losses were made."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def summed(curve: list[list[float]]) -> dict[int, float]:
    """The loss summed over all inputs up to each point of a curve, which does not depend on where its points are."""
    sums, before, total = {}, 0, 0.0
    for inputs, loss in curve:
        total += loss * (inputs - before)
        sums[int(inputs)] = total
        before = inputs
    return sums


def check(name: str, record: dict, *, same_points: bool = True) -> None:
    """Compare a run record with the golden losses."""
    golden = LOSSES[name]
    assert record["train"]["num_inputs"] == golden["num_inputs"]
    found, expected = summed(record["train"]["loss_curve"]), summed(golden["loss_curve"])
    common = sorted(found.keys() & expected.keys())
    assert len(common) > 20
    assert max(common) == golden["num_inputs"]
    if same_points:
        assert list(found) == list(expected)
    assert [found[inputs] for inputs in common] == pytest.approx([expected[inputs] for inputs in common], **CLOSE)
    for metric, value in golden["test"].items():
        assert record["test"][metric] == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("name", ["dlrm", "deepfm", "tbsm"])
def test_losses_are_those_of_the_reference(name: str, tmp_path: Path) -> None:
    done = succeed("run", GOLDEN / f"{name}.toml", "--out", tmp_path / "run", "--device", "cpu", "--json")
    check(name, strict_json(done.stdout))


@pytest.mark.parametrize("placement", ["tiered", "device", "cpu", "hybrid", "paper"])
def test_losses_do_not_depend_on_the_placement(placement: str, tmp_path: Path) -> None:
    recipe, change = GOLDEN / "dlrm.toml", f"train.placement={placement}"
    done = succeed("run", recipe, "--out", tmp_path / "run", "--device", "cpu", "--json", "--set", change)
    check("dlrm", strict_json(done.stdout))


def test_an_older_run_is_skipped_stage_by_stage_and_its_checkpoint_continues(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(GOLDEN / "run", run)
    kept = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and "checkpoint" not in path.parts}
    assert not strict_json((run / "checkpoint" / "progress.json").read_text())["complete"]
    changes = ("--set", "train.epochs=16", "--set", "train.checkpoint_batches=0")
    done = succeed("run", GOLDEN / "dlrm.toml", "--out", run, "--device", "cpu", "--json", *changes)
    for stage in STAGES[:-1]:
        assert f"{stage}: already there" in done.stderr
    assert {path: path.read_bytes() for path in kept} == kept
    # Since that commit the points of a curve follow from the epoch, no longer from the number of epochs.
    check("older", strict_json(done.stdout), same_points=False)
    again = succeed("run", GOLDEN / "dlrm.toml", "--out", run, "--device", "cpu", *changes)
    assert "train: already there" in again.stderr
