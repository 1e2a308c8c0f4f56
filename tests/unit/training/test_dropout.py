"""Dropout: what it drops, when, and that kills, placements and threads draw no other mask."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import fae.training.runner as runner_module
from fae.artifacts.manifest import Plan
from fae.checkpoint.save_load import COMMAND, FORMAT_VERSION, KIND
from fae.core.errors import RecipeError
from fae.embedding.placements import PLACEMENTS
from fae.models.config import model_config
from fae.models.layers import MLP
from fae.models.registry import MODELS
from fae.training.config import TrainConfig
from fae.training.quality.evaluate import predict_split
from fae.training.step_controls import drops_units
from fae.training.trainer import Trainer
from train_setting import MODEL, Setting, tensors_of

from cases import assert_same_bytes
from model_cases import CASES, make_batch

PLAN = Plan(kind=KIND, format_version=FORMAT_VERSION, parameters={}, parents={}, command=COMMAND)
DROPPED = dataclasses.replace(MODEL, dropout=0.4)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LENGTHS = [6, 5, 2, 1, 6, 3, 4, 6]
every_model = pytest.mark.parametrize("name", [name for name in CASES if name != "dcnv2, cross layers alone, no dense"])


@every_model
def test_evaluation_is_that_of_the_model_without(name) -> None:
    case = CASES[name]
    dropped = dataclasses.replace(case, config=dataclasses.replace(case.config, dropout=0.5))
    plain, model, batch = case.build(), dropped.build(), make_batch(case, LENGTHS)
    assert_same_bytes(list(model.state_dict().values()), list(plain.state_dict().values()))
    assert list(model.state_dict()) == list(plain.state_dict())
    expected = plain(batch.dense, batch.embeddings)
    assert torch.equal(model.eval()(batch.dense, batch.embeddings), expected)
    model.train()
    torch.manual_seed(1)
    first = model(batch.dense, batch.embeddings)
    torch.manual_seed(1)
    assert torch.equal(model(batch.dense, batch.embeddings), first)
    assert not torch.equal(first, expected)
    assert not torch.equal(model(batch.dense, batch.embeddings), first)


def test_hidden_units_are_dropped_and_vectors_of_the_model_are_not() -> None:
    torch.manual_seed(1)
    x = torch.randn(4000, 6)
    hidden = MLP([6, 50, 3], final_relu=True, dropout=0.3)
    plain = MLP([6, 50, 3], final_relu=True)
    plain.load_state_dict(hidden.state_dict())
    before, after = (nn.Sequential(*list(block)[:2])(x) for block in (plain, hidden))
    alive = before > 0
    assert (after[alive] == 0).float().mean() == pytest.approx(0.3, abs=0.01)
    kept = alive & (after != 0)
    torch.testing.assert_close(after[kept], before[kept] / 0.7)
    assert [type(layer).__name__ for layer in hidden] == ["Linear", "DroppedReLU", "Linear", "ReLU"]
    whole = MLP([6, 50, 3], final_relu=True, dropout=0.3, drops_last=True)
    assert [type(layer).__name__ for layer in whole] == ["Linear", "DroppedReLU", "Linear", "DroppedReLU"]


def test_what_draws_masks() -> None:
    assert not drops_units(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0)))
    assert drops_units(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)))
    assert drops_units(nn.MultiheadAttention(4, 2, dropout=0.1))
    assert not drops_units(nn.GRU(4, 2, num_layers=2))
    assert drops_units(nn.GRU(4, 2, num_layers=2, dropout=0.1))


@pytest.mark.parametrize("share", [-0.1, 1.0])
@pytest.mark.parametrize("name", MODELS)
def test_a_share_is_less_than_one(name, share) -> None:
    with pytest.raises(RecipeError, match=rf"\[model\] dropout = {share} must be from 0 to less than 1"):
        model_config({"name": name, "dropout": share})
    assert "dropout" not in model_config({"name": name}).to_parameters()
    assert model_config({"name": name, "dropout": 0.5}).to_parameters()["dropout"] == 0.5


def resumed(setting, tmp_path, monkeypatch, config, make) -> tuple[Trainer, Trainer]:
    """A training that was killed twice, and one that was not."""
    whole = make(tmp_path / "whole")
    whole.fit()
    real_step, calls = runner_module.train_step, []

    class Killed(Exception):
        pass

    def killing_step(*arguments, **options):
        calls.append(1)
        if len(calls) in (7, 40):
            raise Killed
        return real_step(*arguments, **options)

    monkeypatch.setattr(runner_module, "train_step", killing_step)
    for _ in range(2):
        with pytest.raises(Killed):
            make(tmp_path / "killed").fit()
    last = make(tmp_path / "killed")
    last.fit()
    return last, whole


def test_resumed_is_uninterrupted(tmp_path, monkeypatch) -> None:
    setting = Setting(tmp_path)
    config = TrainConfig(
        batch_size=32, epochs=2, optimizer="adam", checkpoint_batches=5, rate_schedule="cosine", weight_decay=0.1,
        row_weight_decay=0.1,
    )  # fmt: skip
    last, whole = resumed(
        setting, tmp_path, monkeypatch, config, lambda folder: setting.trainer(folder, config, model=DROPPED)
    )
    assert_same_bytes(tensors_of(last), tensors_of(whole))
    for name in ("dense.safetensors", "tables/0.safetensors"):
        found = [(tmp_path / folder / "checkpoint" / name).read_bytes() for folder in ("killed", "whole")]
        assert found[0] == found[1]


class OwnModel(nn.Module):
    """A user's own, with dropout of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.deep = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, dense, embeddings):
        return self.deep(torch.cat([embeddings[name] for name in embeddings], 1)).squeeze(1)


def test_a_model_of_ones_own_resumes_too(tmp_path, monkeypatch) -> None:
    setting, config = Setting(tmp_path), TrainConfig(batch_size=32, epochs=2, checkpoint_batches=5)

    def make(folder):
        usual = setting.trainer(folder, config)
        torch.manual_seed(3)
        return Trainer(OwnModel(), usual.embeddings, setting.packed, config, folder=folder, plan=PLAN)

    last, whole = resumed(setting, tmp_path, monkeypatch, config, make)
    assert_same_bytes(tensors_of(last), tensors_of(whole))


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adam"])
def test_placement_and_threads_change_no_byte(tmp_path, optimizer) -> None:
    """With a schedule and decay of both kinds beside it."""
    setting = Setting(tmp_path, share=0.6)
    config = TrainConfig(
        batch_size=32, epochs=2, optimizer=optimizer, rate_schedule="plateau", weight_decay=0.1, row_weight_decay=0.1
    )
    trainers = [setting.trainer(None, config, placement, model=DROPPED) for placement in PLACEMENTS]
    for trainer in trainers:
        trainer.fit()
        assert_same_bytes(tensors_of(trainer), tensors_of(trainers[0]))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        torch.manual_seed(5)
        many = nn.functional.dropout(torch.ones(512, 300), 0.5)
    finally:
        torch.set_num_threads(threads)
    torch.manual_seed(5)
    assert torch.equal(nn.functional.dropout(torch.ones(512, 300), 0.5), many)


def test_predictions_drop_nothing(tmp_path) -> None:
    setting = Setting(tmp_path)
    trainer = setting.trainer(None, TrainConfig(batch_size=32), model=DROPPED)
    trainer.fit()
    first, again = (predict_split(trainer.model, trainer.embeddings, setting.packed.test)[1] for _ in range(2))
    assert (first == again).all()


@pytest.mark.parametrize(("widths", "final_relu", "drops_last"), [
    ((13, 32, 16, 1), False, False), ((13, 48, 16), True, False), ((13, 48, 16), True, True),
    ((13, 32, 32), False, False),
])  # fmt: skip
def test_the_fused_form_drops_the_same_units(widths, final_relu, drops_last) -> None:
    """In bfloat16, with the masks of the layers: logits, gradients of weights, gradients of inputs."""
    pytest.importorskip("triton")
    from fae.training.dense import make_dense_optimizer

    torch.manual_seed(2)
    options = {"final_relu": final_relu, "dropout": 0.4, "drops_last": drops_last}
    block, usual = MLP(widths, **options).to(DEVICE), MLP(widths, **options).to(DEVICE)
    usual.load_state_dict(block.state_dict())
    optimizer = make_dense_optimizer("sgd", block, 1.0, flat=True, bf16=True)
    before = [parameter.detach().clone() for parameter in block.parameters()]
    inputs = [torch.randn(200, 13, device=DEVICE).requires_grad_() for _ in range(2)]
    with torch.no_grad():
        inputs[1].copy_(inputs[0])
    outputs = []
    for x, form in zip(inputs, (block, usual), strict=True):
        torch.manual_seed(7)
        with torch.autocast(DEVICE.type, torch.bfloat16):
            outputs.append(form(x).float())
        (outputs[-1] ** 2).mean().backward()
    assert block.fused is not None
    if drops_last:
        assert torch.equal(outputs[0] == 0, outputs[1] == 0)
    torch.testing.assert_close(*outputs, rtol=0.05, atol=0.05)
    optimizer.step()
    gradients = [old - new.detach() for old, new in zip(before, block.parameters(), strict=True)]
    expected = [parameter.grad for parameter in usual.parameters()]
    for ours, theirs in zip([*gradients, inputs[0].grad], [*expected, inputs[1].grad], strict=True):
        assert torch.norm(ours - theirs) < 0.03 * torch.norm(theirs) + 1e-4
    evaluated = [form.eval()(inputs[0]).float() for form in (block, usual)]
    assert torch.equal(block(inputs[0]), block(inputs[0]))
    assert evaluated[0].shape == evaluated[1].shape
