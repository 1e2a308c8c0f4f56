"""Training: resumed is uninterrupted, byte by byte; checkpoints load anywhere; early stopping keeps the best."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import fae.training.runner as runner_module
from fae.artifacts.row_layout import RowLayout
from fae.checkpoint.save_load import load_dense, load_tables, read_progress
from fae.core.errors import ArtifactError, RecipeError
from fae.embedding.placements import PLACEMENTS, make_embeddings
from fae.models.registry import build_model
from fae.streaming.row_store import RowOptimizer
from fae.training.config import TrainConfig
from fae.training.trainer import Trainer
from train_setting import MODEL, Setting, tensors_of

from cases import assert_same_bytes
from packs import stub_hot_set


class Killed(Exception):
    """Simulates a kill: nothing is written when it comes."""


def without_times(result: dict) -> dict:
    dropped = ("samples_per_second", "seconds", "phase_seconds", "traffic")  # loading a checkpoint moves rows, too
    return {**result, "train": {key: value for key, value in result["train"].items() if key not in dropped}}


@pytest.mark.parametrize(
    ("order", "optimizer", "placement"),
    [
        *[(order, optimizer, "tiered") for order in ("interleaved", "adaptive", "shuffled")
          for optimizer in ("sgd", "rowwise_adagrad", "adam")],
        ("interleaved", "adagrad", "tiered"),
        ("interleaved", "adam", "hybrid"),
        ("adaptive", "adam", "paper"),
        ("fixed_rate", "rowwise_adagrad", "tiered"),
    ],
)  # fmt: skip
def test_resumed_is_uninterrupted(tmp_path, monkeypatch, order, optimizer, placement):
    setting = Setting(tmp_path, mixed=order == "shuffled")
    config = TrainConfig(
        batch_size=32, epochs=2, order=order, optimizer=optimizer, placement=placement, checkpoint_batches=5,
        adaptive_rate=20, adaptive_tail=0.1 if order == "fixed_rate" else 0.0,
    )  # fmt: skip
    whole = setting.trainer(tmp_path / "whole", config)
    expected = whole.fit()

    real_step, calls = runner_module.train_step, []

    def killing_step(*arguments, **options):
        calls.append(1)
        if len(calls) in (3, 17, 25, 44):
            raise Killed
        return real_step(*arguments, **options)

    monkeypatch.setattr(runner_module, "train_step", killing_step)
    for _ in range(4):
        with pytest.raises(Killed):
            setting.trainer(tmp_path / "killed", config).fit()
    last = setting.trainer(tmp_path / "killed", config)
    assert without_times(last.fit()) == without_times(expected)
    assert_same_bytes(tensors_of(last), tensors_of(whole))
    assert len(calls) < 4 * setting.packed.train.num_batches, "it started over instead of continuing"
    for name in ("dense.safetensors", "tables/0.safetensors", "tables/3.safetensors"):
        assert (tmp_path / "killed/checkpoint" / name).read_bytes() == (
            tmp_path / "whole/checkpoint" / name
        ).read_bytes()


def test_the_step_count_travels_with_the_rows(tmp_path):
    setting = Setting(tmp_path)
    config = TrainConfig(batch_size=32, optimizer="adam")
    trained = setting.trainer(tmp_path, config)
    trained.fit()
    assert trained.embeddings.steps == setting.packed.train.num_batches
    loaded = setting.trainer(None, config, "paper")
    load_tables(tmp_path / "checkpoint", loaded.embeddings)
    assert loaded.embeddings.steps == trained.embeddings.steps
    loaded.embeddings.initialise(1)
    assert loaded.embeddings.steps == 0


def test_a_complete_run_is_not_trained_again(tmp_path, monkeypatch):
    setting = Setting(tmp_path)
    config = TrainConfig(batch_size=32)
    expected = setting.trainer(tmp_path, config).fit()
    monkeypatch.setattr(runner_module, "train_step", None)
    assert setting.trainer(tmp_path, config).fit() == expected


def test_traffic_is_counted_over_a_resume(tmp_path, monkeypatch):
    setting = Setting(tmp_path, share=0.6)  # so that there are hot batches, too
    config = TrainConfig(batch_size=32, placement="paper", checkpoint_batches=5)
    expected = setting.trainer(None, config).fit()["train"]["traffic"]
    assert expected["swaps"] > 2
    assert expected["swap_bytes_to_device"] + expected["swap_bytes_to_host"] > 0
    real_step, calls = runner_module.train_step, []

    def killing_step(*arguments, **options):
        calls.append(1)
        if len(calls) == 11:  # two checkpoints are written, nothing is lost
            raise Killed
        return real_step(*arguments, **options)

    monkeypatch.setattr(runner_module, "train_step", killing_step)
    with pytest.raises(Killed):
        setting.trainer(tmp_path / "killed", config).fit()
    traffic = setting.trainer(tmp_path / "killed", config).fit()["train"]["traffic"]
    assert traffic["gradient_bytes_to_host"] == expected["gradient_bytes_to_host"]
    assert expected["swaps"] <= traffic["swaps"] <= expected["swaps"] + 4  # exporting and loading may copy
    assert setting.trainer(None, TrainConfig(batch_size=32)).fit()["train"]["traffic"] == {}


def test_time_based_checkpoints(tmp_path):
    setting = Setting(tmp_path)
    config = TrainConfig(batch_size=32, checkpoint_minutes=1e-9)
    often = setting.trainer(tmp_path / "often", config)
    never = setting.trainer(None, TrainConfig(batch_size=32, checkpoint_minutes=0))
    assert without_times(often.fit()) == without_times(never.fit())
    assert_same_bytes(tensors_of(often), tensors_of(never))


def test_loads_under_another_budget_and_placement(tmp_path):
    setting = Setting(tmp_path)
    trained = setting.trainer(tmp_path, TrainConfig(batch_size=32))
    result = trained.fit()
    other = Setting(tmp_path, share=0.6, name="packed_60")
    for placement in PLACEMENTS:
        loaded = other.trainer(None, TrainConfig(batch_size=32), placement)
        load_tables(tmp_path / "checkpoint", loaded.embeddings)
        load_dense(tmp_path / "checkpoint", loaded.model)
        assert_same_bytes(tensors_of(loaded), tensors_of(trained))
        from fae.training.quality.evaluate import evaluate

        again = evaluate(loaded.model, loaded.embeddings, other.packed.test)
        assert again.auc == pytest.approx(result["test"]["auc"], abs=1e-9)


def test_tables_load_into_an_embedding_bag(tmp_path):
    setting = Setting(tmp_path)
    trained = setting.trainer(tmp_path, TrainConfig(batch_size=32))
    trained.fit()
    weight = load_file(tmp_path / "checkpoint/tables/1.safetensors")["weight"]
    bag = torch.nn.EmbeddingBag.from_pretrained(weight, mode="sum")
    ids = torch.from_numpy(np.asarray(setting.log.ids[:5, 1:2], np.int64))
    assert torch.equal(bag(ids), trained.embeddings.export_table(1)[0][ids[:, 0]])


def test_a_checkpoint_of_other_tables_is_refused(tmp_path):
    setting = Setting(tmp_path)
    setting.trainer(tmp_path, TrainConfig(batch_size=32)).fit()
    sgd = setting.trainer(None, TrainConfig(batch_size=32, optimizer="sgd"))
    with pytest.raises(ArtifactError, match="optimizer state"):
        load_tables(tmp_path / "checkpoint", sgd.embeddings)
    (tmp_path / "other").mkdir()
    other = Setting(tmp_path / "other")
    wider = make_embeddings(
        "cpu",
        stub_hot_set(RowLayout(other.log.features, [8] * 4, [1] * 4), batch_size=32),
        RowOptimizer(),
        device="cpu",
    )
    with pytest.raises(ArtifactError, match="expected 'C0' of 50 x 8"):
        load_tables(tmp_path / "checkpoint", wider)


def test_early_stopping_keeps_the_best(tmp_path, monkeypatch):
    setting = Setting(tmp_path)
    losses = iter([0.5, 0.4, 0.6, 0.7, 0.8])
    kept = []

    def scripted(self, **_):
        kept.append(tensors_of(self)[0].clone())
        return {"inputs": 0, "whole": True, "log_loss": next(losses), "auc": 0.5, "label_rate": 0.5}

    monkeypatch.setattr(Trainer, "_validate", scripted)
    trainer = setting.trainer(tmp_path, TrainConfig(batch_size=32, epochs=9, early_stopping=2))
    result = trainer.fit()
    assert result["train"]["epochs"] == 4
    assert result["train"]["stopped_early"]
    assert_same_bytes([tensors_of(trainer)[0]], [kept[1]])
    assert read_progress(tmp_path / "checkpoint")["complete"]


def test_training_learns(tmp_path):
    setting = Setting(tmp_path)
    labels = (np.asarray(setting.log.ids)[:, 2] < 2).astype(np.float32)
    result = None
    for name in ("train", "validation", "test"):
        batches = getattr(setting.packed, name)
        inputs = batches.inputs
        batches.arrays.__dict__["labels"] = np.where(inputs >= 0, labels[inputs], 0).astype(np.float32)
    result = setting.trainer(None, TrainConfig(batch_size=32, epochs=6)).fit()
    assert result["test"]["auc"] > 0.97
    curve = result["train"]["loss_curve"]
    assert curve[-1][1] < 0.5 * curve[0][1]
    assert curve[-1][0] == 6 * 700


def test_padding_contributes_nothing():
    from fae.streaming.batch_turn import BatchTurn
    from fae.streaming.ready_batch import ReadyBatch
    from fae.training.step import mean_loss

    class Packed:
        num_inputs, total_weight = 2, 2.0

    logits = torch.tensor([0.3, -0.2, 9.0], requires_grad=True)
    batch = ReadyBatch(
        packed=Packed(), dense=torch.zeros(3, 1), labels=torch.tensor([1.0, 0, 0]),
        slot=0, turn=BatchTurn(None),
    )  # fmt: skip
    loss = mean_loss(logits, batch)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:2], batch.labels[:2])
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert logits.grad[2] == 0


def test_dlrm_refuses_a_sequence():
    from fae.artifacts.columnar_log import FeatureSchema

    with pytest.raises(RecipeError, match="s: pooling = none keeps a sequence, and dlrm takes pooled"):
        build_model(MODEL, [FeatureSchema(name="s", num_embeddings=3, length=4, pooling="none")], 1, seed=1)
