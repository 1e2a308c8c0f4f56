"""Learning-rate schedules are torch's own, and a resumed training has the rates of one that was not killed."""

from __future__ import annotations

import math

import pytest
import torch

import fae.training.runner as runner_module
from fae.core.errors import RecipeError
from fae.core.optimizers import OPTIMIZERS
from fae.embedding.placements import PLACEMENTS
from fae.training.config import TrainConfig
from fae.training.dense import FlatOptimizer, set_dense_rate
from fae.training.position import Position
from fae.training.step import train_step
from fae.training.step_controls import epoch_losses
from train_setting import Setting, tensors_of

from cases import assert_same_bytes

BATCHES = 20
PLATEAU = {"rate_schedule": "plateau", "step_factor": 0.25, "patience": 2}
SCHEDULES = {
    "warm-up alone": {"warmup_epochs": 0.6},
    "linear": {"rate_schedule": "linear", "warmup_epochs": 0.2, "final_rate": 0.1},
    "cosine": {"rate_schedule": "cosine", "warmup_epochs": 0.5, "final_rate": 0.05},
    "step": {"rate_schedule": "step", "step_epochs": 0.3, "step_factor": 0.5},
    "plateau": {"rate_schedule": "plateau", "step_factor": 0.5},
}
schedules = pytest.mark.parametrize("keys", SCHEDULES.values(), ids=SCHEDULES)


def factors_of_torch(make, count: int) -> list[float]:
    """What a scheduler of torch multiplies a rate of 1 by, step by step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, found = make(optimizer), []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def factors(epochs: int, **keys) -> list[float]:
    schedule = TrainConfig(epochs=epochs, **keys).rates(BATCHES)
    return [schedule.factor(batch) for batch in range(epochs * BATCHES)]


def after_warm_up(warmup: int, make):
    """Torch's schedulers, one after the other: a linear rise of `warmup` steps, and then another."""

    def made(optimizer):
        rise = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
        return torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, make(optimizer)], milestones=[warmup])

    return made


@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_rates_are_those_of_torch() -> None:
    lr, warmup, left = torch.optim.lr_scheduler, 10, 3 * BATCHES - 10
    cosine = after_warm_up(warmup, lambda optimizer: lr.CosineAnnealingLR(optimizer, left, eta_min=0.05))
    assert factors(3, rate_schedule="cosine", warmup_epochs=0.5, final_rate=0.05) == pytest.approx(
        factors_of_torch(cosine, 3 * BATCHES), abs=1e-12
    )
    linear = after_warm_up(
        warmup, lambda optimizer: lr.LinearLR(optimizer, start_factor=1.0, end_factor=0.1, total_iters=left)
    )
    assert factors(3, rate_schedule="linear", warmup_epochs=0.5, final_rate=0.1) == pytest.approx(
        factors_of_torch(linear, 3 * BATCHES), abs=1e-12
    )
    assert factors(3, rate_schedule="step", step_epochs=0.3, step_factor=0.5) == pytest.approx(
        factors_of_torch(lambda optimizer: lr.StepLR(optimizer, 6, gamma=0.5), 3 * BATCHES)
    )
    assert factors(2) == [1.0] * 2 * BATCHES


@pytest.mark.parametrize("min_gain", [0.0, 0.03])
@pytest.mark.parametrize("patience", [1, 2, 3])
def test_a_plateau_is_that_of_torch(patience, min_gain) -> None:
    losses = [0.7, 0.6, 0.65, 0.6, 0.61, 0.5, 0.5, 0.55, 0.4, 0.41, 0.42, 0.43, 0.44, 0.45]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    # Torch's patience is the number of epochs that it lets pass, ours the one after which it acts.
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.25, patience=patience - 1, threshold=min_gain, threshold_mode="abs",
        min_lr=0.25**3, eps=0,
    )  # fmt: skip
    keys = {"patience": patience, "min_gain": min_gain, "final_rate": 0.25**3}
    schedule = TrainConfig(**PLATEAU | keys).rates(BATCHES)
    for done, loss in enumerate(losses, 1):
        scheduler.step(loss)
        assert schedule.factor(done * BATCHES, losses[:done]) == optimizer.param_groups[0]["lr"]


def test_gains_of_a_plateau_are_those_of_whole_epochs() -> None:
    entry = {"whole": True, "log_loss": 0.5, "auc": 0.75}
    position = Position(
        validation=[
            {**entry, "whole": False}, entry, {**entry, "ends_epoch": False, "log_loss": 0.1},
            {**entry, "log_loss": None, "auc": None},
        ]
    )  # fmt: skip
    assert epoch_losses(position) == [0.5, math.inf]
    assert epoch_losses(position, "auc") == [0.25, math.inf]
    with pytest.raises(RecipeError, match="stop_on"):
        TrainConfig(stop_on="auc", rate_schedule="step")


def test_a_fall_has_a_floor() -> None:
    assert min(factors(5, rate_schedule="step", step_factor=0.1, final_rate=0.02)) == 0.02


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"warmup_epochs": -0.5}, "warmup_epochs = -0.5 must be 0 or more"),
        ({"rate_schedule": "cosine", "warmup_epochs": 1}, "warmup_epochs = 1 leaves nothing of 1 epochs"),
        ({"rate_schedule": "cosine", "final_rate": 1.5}, "final_rate = 1.5 must be from 0 to 1: it is a share"),
        ({"rate_schedule": "step", "step_epochs": 0.0}, "step_epochs = 0.0 must be more than 0"),
        ({"rate_schedule": "step", "step_factor": 1.0}, "step_factor = 1.0 must be between 0 and 1"),
        ({"rate_schedule": "plateau", "patience": 0}, "patience = 0 must be 1 or more"),
        ({"rate_schedule": "plateau", "patience": 3, "early_stopping": 3}, "make early_stopping more than patience"),
        ({"rate_schedule": "plateau", "early_stopping": 1}, "make early_stopping more than patience"),
        ({"warmup_epochs": 1e300}, "warmup_epochs = 1e+300 is more than 1,000,000"),
        ({"rate_schedule": "step", "step_epochs": 1e300}, "step_epochs = 1e+300 is more than 1,000,000"),
        ({"group_by": ""}, "group_by is empty"),
        ({"final_rate": 0.1}, "final_rate is read by rate_schedule = 'linear' or 'cosine' or 'step' or 'plateau'"),
        ({"rate_schedule": "step", "patience": 3}, "patience is read by rate_schedule = 'plateau', and the schedule"),
        ({"rate_schedule": "cos"}, "rate_schedule = 'cos' is not one of"),
    ],
)
def test_what_a_schedule_refuses(keys, message) -> None:
    with pytest.raises(RecipeError) as refused:
        TrainConfig(**keys)
    assert message in str(refused.value)


def test_only_what_is_set_names_a_training() -> None:
    assert not {"rate_schedule", "warmup_epochs", "final_rate"} & set(TrainConfig().to_parameters())
    assert TrainConfig(rate_schedule="cosine").to_parameters()["rate_schedule"] == "cosine"


@schedules
def test_resumed_is_uninterrupted(tmp_path, monkeypatch, keys) -> None:
    setting = Setting(tmp_path)
    config = TrainConfig(batch_size=32, epochs=3, optimizer="adam", checkpoint_batches=5, **keys)
    whole = setting.trainer(tmp_path / "whole", config)
    whole.fit()
    real_step, calls = runner_module.train_step, []

    class Killed(Exception):
        pass

    def killing_step(*arguments, **options):
        calls.append(1)
        if len(calls) in (7, 50):
            raise Killed
        return real_step(*arguments, **options)

    monkeypatch.setattr(runner_module, "train_step", killing_step)
    for _ in range(2):
        with pytest.raises(Killed):
            setting.trainer(tmp_path / "killed", config).fit()
    last = setting.trainer(tmp_path / "killed", config)
    last.fit()
    assert_same_bytes(tensors_of(last), tensors_of(whole))
    assert last._controls.factor(3 * setting.packed.train.num_batches - 1) < 1 or "warmup_epochs" in keys


@schedules
@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adam"])
def test_placement_changes_no_byte(tmp_path, keys, optimizer) -> None:
    setting = Setting(tmp_path, share=0.6)  # hot batches as well
    config = TrainConfig(batch_size=32, epochs=2, optimizer=optimizer, **keys)
    trainers = {placement: setting.trainer(None, config, placement) for placement in PLACEMENTS}
    for trainer in trainers.values():
        trainer.fit()
    for placement, trainer in trainers.items():
        assert_same_bytes(tensors_of(trainer), tensors_of(trainers["cpu"])), placement


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_rate_follows_the_schedule(tmp_path, monkeypatch, optimizer) -> None:
    """A rate of 0 from the first fall on: rows and dense weights end as they were then."""
    setting, seen = Setting(tmp_path), []
    config = TrainConfig(
        batch_size=32, epochs=2, optimizer=optimizer, rate_schedule="step", step_epochs=1.0, step_factor=1e-300
    )
    trainer = setting.trainer(None, config)
    monkeypatch.setattr(trainer, "_save", lambda name: seen.append([each.clone() for each in tensors_of(trainer)]))
    trainer.fit()
    end_of_first = seen[0]
    weights = [each for number, each in enumerate(tensors_of(trainer)) if number >= 8 or number % 2 == 0]
    assert_same_bytes(weights, [each for number, each in enumerate(end_of_first) if number >= 8 or number % 2 == 0])
    constant = setting.trainer(None, TrainConfig(batch_size=32, epochs=1, optimizer=optimizer))
    constant.fit()
    assert_same_bytes(tensors_of(constant), end_of_first)


def test_a_loop_of_ones_own_follows_a_schedule(tmp_path) -> None:
    """As docs/guide/train.md says it: the bytes of the trainer."""
    setting = Setting(tmp_path)
    config = TrainConfig(batch_size=32, epochs=2, row_weight_decay=0.1, **SCHEDULES["cosine"])
    trained, own = setting.trainer(None, config), setting.trainer(None, config)
    trained.fit()
    schedule = config.rates(setting.packed.train.num_batches)
    own.embeddings.follow_rates(lambda step: schedule.factor(step - 1))
    optimizer, number = torch.optim.Adagrad(own.model.parameters()), 0
    while not own.schedule.done:
        for batch in own.embeddings.stream(setting.packed.train, own.schedule.next_segment().batches):
            for group in optimizer.param_groups:
                group["lr"] = config.dense_rate * schedule.factor(number)
            train_step(own.model, own.embeddings, optimizer, batch)
            number += 1
    assert_same_bytes(tensors_of(own), tensors_of(trained))


def test_two_epochs_and_two_more_are_four() -> None:
    """Every schedule but those that know their end."""
    for keys in SCHEDULES.values():
        short, long = (TrainConfig(epochs=epochs, **keys).rates(BATCHES) for epochs in (2, 4))
        same = [short.factor(batch, [0.5, 0.5]) == long.factor(batch, [0.5, 0.5]) for batch in range(2 * BATCHES)]
        assert all(same) == (not short.knows_its_end)


def test_the_flat_optimizer_follows_a_rate_that_changes() -> None:
    pytest.importorskip("triton")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(1)
    for name, reference in (("sgd", torch.optim.SGD), ("adagrad", torch.optim.Adagrad), ("adam", torch.optim.Adam)):
        model, plain = (torch.nn.Linear(5, 3).to(device) for _ in range(2))
        plain.load_state_dict(model.state_dict())
        flat, expected = FlatOptimizer(name, model, 0.1, bf16=False), reference(plain.parameters(), lr=0.1)
        for rate in (0.1, 0.03, 0.4):
            x = torch.randn(7, 5, device=device)
            for optimizer, each in ((flat, model), (expected, plain)):
                set_dense_rate(optimizer, rate)
                optimizer.zero_grad()
                each(x).square().sum().backward()
                optimizer.step()
        for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours.data, theirs.data, rtol=1e-5, atol=1e-6)
