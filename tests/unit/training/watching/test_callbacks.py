"""Callbacks: what they see, that they change no byte, how they end a training, TensorBoard and Weights & Biases."""

from __future__ import annotations

import dataclasses
import json
import sys
import types

import numpy as np
import pytest
import torch

import fae
from fae.artifacts.manifest import Plan
from fae.checkpoint.save_load import COMMAND, FORMAT_VERSION, KIND
from fae.core.errors import RecipeError, TrainingError
from fae.training.config import TrainConfig
from fae.training.trainer import Trainer
from train_setting import Setting, tensors_of

from cases import assert_same_bytes

CONFIG = TrainConfig(batch_size=32, epochs=2, optimizer="adam", checkpoint_batches=10)


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    return Setting(tmp_path_factory.mktemp("setting"))


def with_callbacks(setting, folder, *callbacks, config=CONFIG) -> Trainer:
    """A trainer as `Setting` makes it, with callbacks and the log."""
    made = setting.trainer(None, dataclasses.replace(config, group_by=None))
    plan = Plan(
        kind=KIND, format_version=FORMAT_VERSION, parameters={"train": config.to_parameters()}, parents={},
        command=COMMAND,
    )  # fmt: skip
    return Trainer(
        made.model, made.embeddings, setting.packed, config, folder=folder, plan=plan if folder else None,
        log=setting.log, callbacks=callbacks,
    )  # fmt: skip


class Recorder(fae.Callback):
    """Keeps every event, and disturbs what it can."""

    def __init__(self, stop_at=None):
        self.events, self.closed, self.stop_at = [], 0, stop_at

    def keep(self, event):
        torch.manual_seed(5)
        torch.rand(3)
        self.events.append(event)

    on_start = on_validation = on_epoch = on_checkpoint = on_end = keep

    def on_window(self, window):
        self.keep(window)
        if window.batches == self.stop_at:
            self.stop("enough is seen")

    def close(self):
        self.closed += 1

    def of(self, name):
        return [event for event in self.events if event.event == name]


def test_callbacks_see_everything_and_change_no_byte(setting, tmp_path):
    plain = with_callbacks(setting, tmp_path / "plain")
    expected = plain.fit()
    seen = Recorder()
    watched = with_callbacks(setting, tmp_path / "watched", seen)
    found = watched.fit()
    assert_same_bytes(tensors_of(watched), tensors_of(plain))
    for name in ("tables/0.safetensors", "dense.safetensors"):
        assert (tmp_path / "watched/checkpoint" / name).read_bytes() == (
            tmp_path / "plain/checkpoint" / name
        ).read_bytes()
    assert found["test"] == expected["test"]
    assert seen.closed == 1
    (start,), (end,) = seen.of("start"), seen.of("end")
    assert (start.name, start.inputs, start.resumed, start.epochs) == ("watched", 0, False, 2)
    assert [[each.inputs, each.loss] for each in seen.of("window")] == found["train"]["loss_curve"]
    assert [each.metrics["auc"] for each in seen.of("validation")] == [
        each["auc"] for each in found["train"]["validation_curve"]
    ]
    assert [(each.epoch, each.inputs, each.loss) for each in seen.of("epoch")] == [
        (each["epoch"], each["inputs"], each["loss"]) for each in found["train"]["epoch_curve"]
    ]
    assert [each.batches for each in seen.of("checkpoint")] == [10, 20, 23, 30, 40, 46]
    assert end.result == found
    assert end.epoch == 2
    assert seen.events[0] is start
    assert seen.events[-1] is end
    assert all(each.learning_rate == CONFIG.learning_rate for each in seen.of("window"))


def test_a_callback_ends_the_training(setting, tmp_path):
    seen = Recorder(stop_at=13)
    result = with_callbacks(setting, tmp_path, seen).fit()
    assert result["train"]["stopped_early"]
    assert result["train"]["stopped_by"] == "Recorder: enough is seen"
    assert 13 <= result["train"]["num_batches"] < 20
    assert result["test"]["auc"] is not None
    assert seen.of("end")[0].stopped_by == "Recorder: enough is seen"
    assert with_callbacks(setting, tmp_path).fit() == result, "it is at its end"
    again = with_callbacks(setting, None, seen).fit()  # a callback may be used again
    assert again["train"]["num_batches"] == result["train"]["num_batches"]


def test_what_fails_is_named(setting, tmp_path):
    class Failing(fae.Callback):
        def on_epoch(self, epoch):
            raise KeyError("lost")

    seen = Recorder()
    with pytest.raises(TrainingError, match=r"Failing failed in on_epoch behind batch 23: KeyError: 'lost'; "):
        with_callbacks(setting, tmp_path, seen, Failing()).fit()
    assert seen.closed == 1
    assert not seen.of("end")
    resumed = Recorder()
    with_callbacks(setting, tmp_path, resumed).fit()
    assert (resumed.of("start")[0].resumed, resumed.of("start")[0].batches) == (True, 20)
    with pytest.raises(TrainingError, match="must be a subclass of fae"):
        with_callbacks(setting, None, print)
    with pytest.raises(TrainingError, match="must be an object"):
        with_callbacks(setting, None, Recorder)


def test_log_and_group_of_a_trainer(setting):
    made = setting.trainer(None, CONFIG)
    with pytest.raises(RecipeError, match=r"group_by = 'C1' needs the columnar log: fae.Trainer"):
        Trainer(made.model, made.embeddings, setting.packed, TrainConfig(batch_size=32, group_by="C1"))
    grouped = with_callbacks(setting, None, config=TrainConfig(batch_size=32, group_by="C1")).fit()
    assert grouped["test"]["group_auc"]["column"] == "C1"
    assert grouped["validation"]["context"]["best_column"]["auc"] > 0
    assert setting.trainer(None, TrainConfig(batch_size=32)).fit()["test"]["group_auc"] is None


def test_extras_that_are_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"--tensorboard\) needs tensorboard, .* `pip install tensorboard`"):
        fae.TensorBoardCallback("x")
    with pytest.raises(RecipeError, match=r"--wandb\) needs wandb, which is not installed here; `pip install wandb`"):
        fae.WandbCallback("x")


def test_tensorboard_reads_the_curves(setting, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    class Failing(fae.Callback):
        def on_window(self, window):
            if window.batches == 27:
                raise RuntimeError("killed")

    with pytest.raises(TrainingError, match="killed"):
        with_callbacks(setting, tmp_path / "run", fae.TensorBoardCallback(tmp_path / "tb"), Failing()).fit()
    result = with_callbacks(setting, tmp_path / "run", fae.TensorBoardCallback(tmp_path / "tb")).fit()
    reader = EventAccumulator(str(tmp_path / "tb"), size_guidance={"scalars": 0})
    reader.Reload()
    loss = reader.Scalars("train/loss")
    assert [each.step for each in loss] == [inputs for inputs, _ in result["train"]["loss_curve"]]
    assert np.allclose([each.value for each in loss], [value for _, value in result["train"]["loss_curve"]])
    whole = result["train"]["validation_curve"]
    assert [each.step for each in reader.Scalars("validation/auc")] == [each["inputs"] for each in whole]
    assert reader.Scalars("test/auc")[0].value == pytest.approx(result["test"]["auc"], abs=1e-6)
    assert reader.Scalars("test/calibration_ratio")[0].value > 0
    with_callbacks(setting, None, fae.TensorBoardCallback(tmp_path / "tb"), config=TrainConfig(batch_size=32)).fit()
    anew = EventAccumulator(str(tmp_path / "tb"), size_guidance={"scalars": 0})
    anew.Reload()
    assert [each.step for each in anew.Scalars("validation/auc")] == [700], "the earlier curves are hidden"


class FakeRun:
    def __init__(self, settings):
        self.settings, self.logged, self.summary, self.exit_code, self.axis = settings, [], {}, None, None

    def define_metric(self, name, step_metric):
        self.axis = (name, step_metric)

    def log(self, values):
        self.logged.append(values)

    def finish(self, exit_code):
        self.exit_code = exit_code


def test_wandb_gets_the_curves(setting, tmp_path, monkeypatch):
    runs = []
    module = types.ModuleType("wandb")
    module.init = lambda **settings: runs.append(FakeRun(settings)) or runs[-1]
    module.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "wandb", module)

    class Failing(fae.Callback):
        def on_window(self, window):
            if window.batches == 27:
                raise RuntimeError("killed")

    with pytest.raises(TrainingError, match="killed"):
        with_callbacks(setting, tmp_path / "run", fae.WandbCallback("clicks", tags=["a"]), Failing()).fit()
    result = with_callbacks(setting, tmp_path / "run", fae.WandbCallback("clicks", tags=["a"])).fit()
    first, second = runs
    assert first.settings["id"] == second.settings["id"] == json.loads((tmp_path / "run/wandb.json").read_text())["id"]
    assert first.settings["project"] == "clicks"
    assert (first.settings["name"], first.settings["tags"]) == ("run", ["a"])
    assert first.settings["config"]["optimizer"] == "adam"
    assert (first.exit_code, second.exit_code) == (1, 0)
    assert first.axis == ("*", "inputs")
    windows = [values for values in second.logged if "train/loss" in values]
    assert windows[0]["inputs"] > 600, "it continues"
    assert windows[-1]["train/loss"] == result["train"]["loss_curve"][-1][1]
    assert second.summary["test/auc"] == result["test"]["auc"]
    with_callbacks(setting, None, fae.WandbCallback("clicks")).fit()
    assert runs[2].settings["id"] != first.settings["id"]
