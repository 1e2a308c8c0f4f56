"""Epochs that were wanted later: 2 and then 2 more are 4, to the byte, wherever the training was killed."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest

import fae.training.runner as runner_module
from fae.artifacts.manifest import Plan
from fae.checkpoint.more_epochs import find_earlier_epochs
from fae.checkpoint.save_load import read_progress
from fae.core.config import to_table
from fae.core.files import remove_folder
from fae.training.config import TrainConfig
from train_setting import Setting

TIMES = {"samples_per_second", "seconds", "phase_seconds", "stage_seconds", "timed_seconds", "timed_inputs"}


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def tensors_of(checkpoint: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in checkpoint.rglob("*.safetensors")}
    assert len(found) == 5
    return found


def plan_of(config: TrainConfig) -> Plan:
    return Plan(
        kind="checkpoint", format_version=1, parameters={"train": to_table(config)}, parents={}, command="fae train"
    )


def train(setting: Setting, folder: Path, config: TrainConfig, epochs: int) -> dict[str, Any]:
    wanted = dataclasses.replace(config, epochs=epochs)
    return setting.trainer(folder, wanted, plan=plan_of(wanted)).fit()


def check_same(setting: Setting, folder: Path, config: TrainConfig, first: int, then: int) -> dict[str, Any]:
    whole = train(setting, folder / "whole", config, then)
    train(setting, folder / "parts", config, first)
    parts = train(setting, folder / "parts", config, then)
    assert without_times(parts) == without_times(whole)
    assert tensors_of(folder / "parts" / "checkpoint") == tensors_of(folder / "whole" / "checkpoint")
    progress = [without_times(read_progress(folder / name / "checkpoint")) for name in ("parts", "whole")]
    assert progress[0] == progress[1]
    return parts


@pytest.mark.parametrize(
    ("order", "placement", "optimizer"),
    [("interleaved", "tiered", "adam"), ("adaptive", "hybrid", "sgd"), ("shuffled", "device", "rowwise_adagrad")],
)
def test_two_and_two_are_four(tmp_path: Path, order: str, placement: str, optimizer: str) -> None:
    setting = Setting(tmp_path, mixed=order == "shuffled")
    config = TrainConfig(batch_size=32, order=order, placement=placement, optimizer=optimizer, adaptive_rate=20)
    found = check_same(setting, tmp_path, config, 2, 4)
    assert found["train"]["epochs"] == 4
    assert found["train"]["loss_curve"][-1][0] == found["train"]["num_inputs"]


def test_an_open_window_of_the_loss_curve_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of five batches, which no epoch is a multiple of."""
    monkeypatch.setattr("fae.training.trainer._CURVE_POINTS", 4)
    setting = Setting(tmp_path)
    assert setting.packed.train.num_batches % 5
    found = check_same(setting, tmp_path, TrainConfig(batch_size=32), 1, 3)
    ends = [inputs for inputs, _ in found["train"]["loss_curve"]]
    assert len(ends) < setting.packed.train.num_batches
    widths = [after - before for before, after in itertools.pairwise(ends)]
    assert widths[-2] > widths[0]


class Killed(Exception):
    """Simulates a kill: nothing is written when it comes."""


def test_killed_among_the_later_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting, config = Setting(tmp_path), TrainConfig(batch_size=32, checkpoint_batches=5)
    whole = train(setting, tmp_path / "whole", config, 3)
    train(setting, tmp_path / "parts", config, 1)
    real_step, calls = runner_module.train_step, []

    def killing_step(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) in (3, 14, 40):
            raise Killed
        return real_step(*arguments, **options)

    monkeypatch.setattr(runner_module, "train_step", killing_step)
    kills = 0
    while True:
        try:
            parts = train(setting, tmp_path / "parts", config, 3)
            break
        except Killed:
            kills += 1
    assert kills == 3
    assert without_times(parts) == without_times(whole)
    assert tensors_of(tmp_path / "parts" / "checkpoint") == tensors_of(tmp_path / "whole" / "checkpoint")


EARLY = TrainConfig(batch_size=32, learning_rate=0.9, optimizer="sgd", early_stopping=3)
"""Its validation loss soon rises, so the best epoch is not the last one."""


def test_early_stopping_continues_from_the_last_epoch_not_from_the_best(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    train(setting, tmp_path / "seen", EARLY, 6)
    losses = [each["log_loss"] for each in read_progress(tmp_path / "seen" / "checkpoint")["validation"]]
    best = losses.index(min(losses)) + 1
    first = best + 1
    assert first < len(losses), losses
    found = check_same(setting, tmp_path, EARLY, first, first + 1)
    assert found["train"]["epochs"] == first + 1
    assert not found["train"]["stopped_early"]


def test_killed_twice_before_the_best_weights_have_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first epochs behind a checkpoint, and in the later ones once ``best/`` is theirs, before a checkpoint."""
    setting, config = Setting(tmp_path), dataclasses.replace(EARLY, checkpoint_batches=5)
    whole = train(setting, tmp_path / "whole", config, 5)
    real_step, an_epoch, kill_at = runner_module.train_step, setting.packed.train.num_batches, [0]

    def killing_step(*arguments: Any, **options: Any) -> Any:
        kill_at[0] -= 1
        if kill_at[0] == 0:
            raise Killed
        return real_step(*arguments, **options)

    monkeypatch.setattr(runner_module, "train_step", killing_step)
    for epochs, steps in ((4, 2 * an_epoch + 7), (5, 1), (5, 2)):
        kill_at[0] = steps
        with pytest.raises(Killed):
            train(setting, tmp_path / "parts", config, epochs)
    kill_at[0] = -1
    parts = train(setting, tmp_path / "parts", config, 5)
    assert without_times(parts) == without_times(whole)
    assert tensors_of(tmp_path / "parts" / "checkpoint") == tensors_of(tmp_path / "whole" / "checkpoint")


def test_more_epochs_do_not_change_a_training_that_stopped_early(tmp_path: Path) -> None:
    setting, config = Setting(tmp_path), dataclasses.replace(EARLY, early_stopping=1)
    found = check_same(setting, tmp_path, config, 9, 12)
    assert found["train"]["stopped_early"]
    assert found["train"]["epochs"] < 9


def test_without_the_last_epoch_it_starts_anew(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    train(setting, tmp_path / "run", EARLY, 6)
    wanted = plan_of(dataclasses.replace(EARLY, epochs=7))
    earlier = find_earlier_epochs(tmp_path / "run", wanted)
    assert earlier is not None
    assert (earlier.epochs, earlier.trained, earlier.finished) == (
        6,
        read_progress(earlier.last_weights)["schedule"]["epoch"],
        True,
    )
    if not earlier.stopped_early:
        remove_folder(tmp_path / "run" / "last")
        assert earlier.last_is_gone
        assert not earlier.can_continue


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_rates_over_all_epochs_are_another_training(tmp_path: Path, schedule: str) -> None:
    setting = Setting(tmp_path)
    config = TrainConfig(batch_size=32, rate_schedule=schedule)
    train(setting, tmp_path / "run", config, 1)
    assert find_earlier_epochs(tmp_path / "run", plan_of(dataclasses.replace(config, epochs=2))) is None


def test_fewer_epochs_than_trained_are_too_few(tmp_path: Path) -> None:
    setting, config = Setting(tmp_path), TrainConfig(batch_size=32)
    train(setting, tmp_path / "run", config, 2)
    earlier = find_earlier_epochs(tmp_path / "run", plan_of(dataclasses.replace(config, epochs=1)))
    assert earlier is not None
    assert earlier.is_too_long
    assert not earlier.can_continue
