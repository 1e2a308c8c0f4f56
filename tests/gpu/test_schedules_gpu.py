"""On a GPU: rates that change, decay and dropout in captured steps; placements and kernel by kernel give one result."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fae.core.optimizers import OPTIMIZERS
from fae.models.config import DLRMConfig
from fae.training.config import TrainConfig
from train_setting import Setting, tensors_of

from cases import assert_same_bytes

MODEL = DLRMConfig(embedding_dim=4, bottom_mlp=(16,), top_mlp=(32, 16))
DROPPED = dataclasses.replace(MODEL, dropout=0.3)
CHANGES = {"rate_schedule": "cosine", "warmup_epochs": 0.3, "weight_decay": 0.1, "row_weight_decay": 0.1}
precisions = pytest.mark.parametrize("precision", ["fp32", "bf16"])


def trained(setting, config, placement="device", *, model=DROPPED, device="cuda", folder=None) -> list[torch.Tensor]:
    trainer = setting.trainer(folder, config, placement, model=model, device=device)
    trainer.fit()
    if device == "cuda" and config.capture:
        assert trainer._runner.not_captured == ""
        assert placement == "hybrid" or trainer._runner.graphs
    return [tensor.cpu() for tensor in tensors_of(trainer)]


@precisions
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_captured_steps_follow_rates_and_masks(tmp_path, optimizer, precision) -> None:
    setting = Setting(tmp_path, share=0.6)
    config = TrainConfig(batch_size=32, epochs=3, optimizer=optimizer, precision=precision, **CHANGES)
    expected = trained(setting, config)
    assert_same_bytes(trained(setting, dataclasses.replace(config, capture=False)), expected)
    assert_same_bytes(trained(setting, config, "tiered"), expected)
    often = dataclasses.replace(config, checkpoint_batches=7)  # streams begin anew at each
    assert_same_bytes(trained(setting, often, "tiered", folder=tmp_path / "often"), expected)


@precisions
@pytest.mark.parametrize("placement", ["hybrid", "paper"])
def test_captured_dense_parts_follow_them_too(tmp_path, placement, precision) -> None:
    setting = Setting(tmp_path, share=0.6)
    config = TrainConfig(batch_size=32, epochs=2, precision=precision, **CHANGES)
    captured = trained(setting, config, placement)
    assert_same_bytes(trained(setting, config, placement), captured)
    eager = trained(setting, dataclasses.replace(config, capture=False), placement)
    for one, other in zip(captured, eager, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rates_and_decay_are_those_of_the_cpu(tmp_path, optimizer) -> None:
    setting = Setting(tmp_path, share=0.6)
    config = TrainConfig(batch_size=32, epochs=2, optimizer=optimizer, **CHANGES)
    on_cpu = trained(setting, config, "cpu", model=MODEL, device="cpu")
    for placement in ("device", "tiered", "hybrid", "paper"):
        for one, other in zip(trained(setting, config, placement, model=MODEL), on_cpu, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_rate_of_zero_in_a_graph_moves_no_weight(tmp_path, monkeypatch, optimizer) -> None:
    """From the second epoch on the rates are 0; graphs were captured in the first one."""
    setting, seen = Setting(tmp_path), []
    config = TrainConfig(batch_size=32, epochs=2, optimizer=optimizer, rate_schedule="step", step_factor=1e-300)
    trainer = setting.trainer(None, config, "device", device="cuda")
    monkeypatch.setattr(
        trainer, "_save", lambda name: seen.append([tensor.cpu().clone() for tensor in tensors_of(trainer)])
    )
    trainer.fit()
    after = [tensor.cpu() for tensor in tensors_of(trainer)]
    weights = [number for number in range(len(after)) if number >= 8 or number % 2 == 0]
    assert_same_bytes([after[number] for number in weights], [seen[0][number] for number in weights])


def test_a_compiled_model_drops_the_same_units_in_every_process(tmp_path) -> None:
    setting = Setting(tmp_path)
    config = TrainConfig(batch_size=32, epochs=2, compile=True, **CHANGES)
    assert_same_bytes(trained(setting, config), trained(setting, config))
    assert_same_bytes(trained(setting, config, "tiered"), trained(setting, config))
