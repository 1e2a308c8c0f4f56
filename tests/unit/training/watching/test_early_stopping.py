"""Early stopping: on the log loss or the AUC, with a minimum gain, inside epochs; resumed is uninterrupted."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

import fae.training.runner as runner_module
from fae.core.errors import RecipeError, TrainingError
from fae.training.config import TrainConfig
from fae.training.position import Position
from fae.training.watching.stop_rule import StopRule
from train_setting import Setting, tensors_of

from cases import assert_same_bytes


def judge(config: TrainConfig, values):
    """Epochs (from 1) that are gains, until the rule ends the training."""
    rule, position, gains = StopRule(config), Position(), []
    for number, (log_loss, auc) in enumerate(values, 1):
        if rule.judge({"log_loss": log_loss, "auc": auc, "label_rate": 0.3}, position):
            gains.append(number)
        if position.stopped_early:
            break
    return gains, number


def test_a_gain_is_one_of_the_metric():
    values = [(0.50, 0.70), (0.49, 0.69), (0.51, 0.71), (0.52, 0.705), (0.53, 0.704)]
    assert judge(TrainConfig(early_stopping=2), values) == ([1, 2], 4)
    assert judge(TrainConfig(early_stopping=2, stop_on="auc"), values) == ([1, 3], 5)


def test_a_minimum_gain_adds_up_over_epochs():
    values = [(0.5000, None), (0.4996, None), (0.4992, None), (0.4988, None), (0.4984, None)]
    assert judge(TrainConfig(early_stopping=2), values) == ([1, 2, 3, 4, 5], 5)
    assert judge(TrainConfig(early_stopping=2, min_gain=0.0007), values) == ([1, 3, 5], 5)
    assert judge(TrainConfig(early_stopping=2, min_gain=0.01), values) == ([1], 3)
    assert judge(TrainConfig(early_stopping=2), [(None, None), (None, None)]) == ([], 2)


def test_why_it_ended_counts_one_and_several():
    position, told = Position(), []
    for position.epochs_without_gain in (1, 2):
        told.append(StopRule(TrainConfig(early_stopping=1)).why(position))
    told.append(StopRule(TrainConfig(early_stopping=2, validate_batches=5, min_gain=0.1)).why(position))
    assert told == [
        "stopped early: no gain in 1 epoch",
        "stopped early: no gain in 2 epochs",
        "stopped early: no gain of more than 0.1 in 2 validations",
    ]


def test_an_auc_of_one_class_is_refused():
    rule = StopRule(TrainConfig(early_stopping=1, stop_on="auc"))
    with pytest.raises(TrainingError, match=r'stop_on = "auc" needs both labels in the validation split, .* is 0; set'):
        rule.judge({"log_loss": 0.1, "auc": None, "label_rate": 0.0}, Position())


def test_keys_that_nothing_reads_are_refused():
    with pytest.raises(RecipeError, match=r'stop_on = "auc" and min_gain = 0.1 is read by early_stopping, which is 0'):
        TrainConfig(stop_on="auc", min_gain=0.1)
    with pytest.raises(RecipeError, match=r"min_gain = -1.0 must be 0 or more"):
        TrainConfig(early_stopping=1, min_gain=-1.0)
    before = TrainConfig().to_parameters()
    assert not {"stop_on", "min_gain", "validate_batches", "group_by"} & before.keys()
    assert TrainConfig(group_by="user").to_parameters() == before
    assert TrainConfig(validate_batches=5).to_parameters() == {**before, "validate_batches": 5}


def test_validation_inside_epochs_changes_no_weight_and_is_resumed(tmp_path, monkeypatch):
    setting = Setting(tmp_path)
    config = TrainConfig(batch_size=32, epochs=2, checkpoint_batches=5)
    plain = setting.trainer(None, config)
    plain.fit()
    often = dataclasses.replace(config, validate_batches=7)
    whole = setting.trainer(tmp_path / "whole", often)
    expected = whole.fit()
    assert_same_bytes(tensors_of(whole), tensors_of(plain))
    batches = setting.packed.train.num_batches
    inside = [each for each in expected["train"]["validation_curve"] if not each.get("ends_epoch", True)]
    assert len(inside) == len([number for number in range(7, 2 * batches, 7) if number != batches])
    assert len(expected["train"]["validation_curve"]) == len(inside) + 2

    real_step, calls = runner_module.train_step, []

    class Killed(Exception):
        pass

    def killing_step(*arguments, **options):
        calls.append(1)
        if len(calls) in (8, 24):
            raise Killed
        return real_step(*arguments, **options)

    monkeypatch.setattr(runner_module, "train_step", killing_step)
    for _ in range(2):
        with pytest.raises(Killed):
            setting.trainer(tmp_path / "killed", often).fit()
    again = setting.trainer(tmp_path / "killed", often).fit()
    for key in ("validation_curve", "epoch_curve", "loss_curve"):
        assert again["train"][key] == expected["train"][key]


def test_training_ends_inside_an_epoch_on_its_best_weights(tmp_path):
    setting = Setting(tmp_path)
    config = TrainConfig(batch_size=32, epochs=9, early_stopping=3, validate_batches=4, learning_rate=0.3)
    for folder in (None, tmp_path / "run"):
        trainer = setting.trainer(folder, config)
        result = trainer.fit()
        curve = result["train"]["validation_curve"]
        assert result["train"]["stopped_early"]
        best = min(curve, key=lambda each: each["log_loss"])
        assert curve.index(best) == len(curve) - 4
        assert result["validation"]["log_loss"] == best["log_loss"]
        assert setting.trainer(folder, config).fit() == result or folder is None


def test_epochs_have_a_training_loss(tmp_path):
    setting = Setting(tmp_path)
    result = setting.trainer(None, TrainConfig(batch_size=32, epochs=3, learning_rate=0.2)).fit()
    first, second, third = result["train"]["epoch_curve"]
    windows = result["train"]["loss_curve"]
    sizes = [after - before for before, after in itertools.pairwise([0, *(end for end, _ in windows)])]
    total = sum(size * loss for size, (_, loss) in zip(sizes, windows, strict=True))
    assert [each["epoch"] for each in (first, second, third)] == [1, 2, 3]
    assert [each["inputs"] for each in (first, second, third)] == [700, 1400, 2100]
    assert 700 * (first["loss"] + second["loss"] + third["loss"]) == pytest.approx(total)
    whole = [each for each in result["train"]["validation_curve"] if each["whole"]]
    assert [each["validation_log_loss"] for each in (first, second, third)] == [each["log_loss"] for each in whole]
