"""More epochs, and the parent's test before training, on a GPU: the same bytes as at once, also behind graphs."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from commands import strict_json, succeed, write_log, write_recipe


@pytest.mark.parametrize("placement", ["tiered", "device", "hybrid"])
def test_two_epochs_and_two_more_are_four(tmp_path: Path, placement: str) -> None:
    write_log(tmp_path)
    recipe = write_recipe(tmp_path, train={"placement": placement})
    runs = {name: tmp_path / name / "run" for name in ("whole", "parts")}
    for name, epochs in (("whole", (4,)), ("parts", (2, 4))):
        for wanted in epochs:
            command = ("run", recipe, "--out", runs[name], "--device", "cuda", "--set", f"train.epochs={wanted}")
            succeed(*command)
    files = sorted(path.relative_to(runs["whole"]) for path in (runs["whole"] / "checkpoint").rglob("*.safetensors"))
    assert len(files) == 4
    for file in files:
        ours, theirs = (load_file(run / file) for run in runs.values())
        assert ours.keys() == theirs.keys()
        assert all(ours[key].equal(theirs[key]) for key in ours), file
    curves = [strict_json((run / "run.json").read_text())["train"]["loss_curve"] for run in runs.values()]
    assert curves[0] == curves[1]


def test_the_parent_is_tested_before_training(tmp_path: Path) -> None:
    write_log(tmp_path)
    succeed("run", write_recipe(tmp_path), "--out", tmp_path / "day1", "--device", "cuda")
    recipe = write_recipe(tmp_path, "day2.toml", train={"from": "day1"})
    succeed("run", recipe, "--out", tmp_path / "day2", "--device", "cuda")
    parent = strict_json((tmp_path / "day2" / "run.json").read_text())["parent"]
    for figure in ("auc", "log_loss"):
        assert parent["test_before"][figure] == pytest.approx(parent["test"][figure], abs=1e-5)
