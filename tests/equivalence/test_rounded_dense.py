"""Dense features that are sent in bfloat16 train and score the same bytes, in models that round them first."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fae.artifacts.stored.bfloat16 import round_to_bfloat16
from fae.models.config import DCNv2Config, DeepFMConfig, DLRMConfig, WideDeepConfig
from fae.models.dlrm import DLRM
from fae.models.registry import build_model
from fae.streaming.row_store import RowOptimizer
from fae.training import real_inputs
from fae.training.config import TrainConfig
from fae.training.quality.evaluate import predict_split
from train_setting import Setting, tensors_of

from cases import CPU, Log, as_evaluated, assert_same_bytes, make_embeddings, random_log, train, wide_log

SPECIAL = np.array(
    [0, 0x80000000, 1, 0x807FFFFF, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7F800001, 0xFFFFFFFF, 0x7FFF8000, 0x3F808000,
     0x3F818000, 0x3F808001, 0x3F807FFF], np.uint32,
)  # fmt: skip
"""Both zeros, subnormals, what rounds to infinity, infinities, NaNs, ties to even and their neighbours."""


@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_values_are_rounded_as_torch_rounds_them(seed: int, count: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 2**32, count, np.uint32, endpoint=False)
    values = np.concatenate([SPECIAL, bits]).view(np.float32)
    found = np.empty(len(values), np.uint16)
    round_to_bfloat16(values, found)
    expected = torch.from_numpy(values.copy()).to(torch.bfloat16)
    is_nan = np.isnan(values)
    assert np.array_equal(found[~is_nan], expected.view(torch.int16).numpy().view(np.uint16)[~is_nan])
    assert torch.from_numpy(found.view(np.int16)).view(torch.bfloat16)[torch.from_numpy(is_nan)].isnan().all()


def unround_log(make: Any) -> Log:
    """Dense features that no bfloat16 is, some large, some subnormal."""
    log: Log = make()
    random = np.random.default_rng(5)
    dense = random.normal(size=(len(log.ids), 13)) * 10.0 ** random.integers(-3, 3, (len(log.ids), 13))
    dense[random.random(dense.shape) < 0.02] = 1e-40
    return dataclasses.replace(log, dense=dense.astype(np.float32))


LOGS = {
    "fused": lambda: wide_log(random_log(3, num_inputs=60)),
    "one by one": lambda: random_log(3, num_inputs=60, lists=True),
}


@pytest.mark.parametrize("placement", ["device", "tiered", "paper"])
@pytest.mark.parametrize("name", LOGS)
def test_rounded_features_train_the_same_bytes(name: str, placement: str) -> None:
    pytest.importorskip("triton")
    log = unround_log(LOGS[name])
    layout = log.layout(0.3, 1)
    kind: dict[str, Any] = {"engine": "triton", "device": CPU, "precision": "bf16", "with_loss": True}
    ends = [train(log, layout, "adagrad", placement, rounds_dense=rounds, **kind) for rounds in (False, True)]
    assert_same_bytes(*ends)


def test_input_buffers_have_the_rounded_features_and_fewer_bytes() -> None:
    pytest.importorskip("triton")
    log = unround_log(LOGS["fused"])
    layout, found = log.layout(0.3, 1), {}
    packed = log.packed(layout)
    embeddings = make_embeddings("device", log, layout, RowOptimizer(name="sgd"), device=CPU, engine="triton")
    for rounds in (False, True, False):
        embeddings.round_dense(rounds=rounds)
        before = embeddings._gpu.generation
        with closing(embeddings.stream_frozen(packed, [1])) as stream:
            batch = next(stream)
            found[rounds] = batch.dense.clone(), embeddings._gpu._rings.device_bytes
            assert embeddings._gpu.generation > before, "a captured graph has other buffers"
    assert [found[rounds][0].dtype for rounds in (False, True)] == [torch.float32, torch.bfloat16]
    assert torch.equal(found[False][0].to(torch.bfloat16), found[True][0])
    assert 0 < found[False][1] - found[True][1] <= 8 * 2 * (13 * log.batch_size + 64)
    assert packed.arrays.rounded_dense is packed.arrays.rounded_dense


DLRM_OF_4 = DLRMConfig(embedding_dim=4, bottom_mlp=(8,), top_mlp=(8,))


class OwnDLRM(DLRM):
    """A model of a user's own, which might read dense features in float32."""


def test_only_models_that_round_first_get_them() -> None:
    log = random_log(1)
    configs = (
        DLRMConfig(embedding_dim=8), DCNv2Config(name="dcnv2", embedding_dim=8),
        DeepFMConfig(name="deepfm", embedding_dim=8), WideDeepConfig(name="wide_deep", embedding_dim=8),
    )  # fmt: skip
    for config in configs:
        model = build_model(config, log.features, 3, seed=1)
        assert real_inputs.rounds_dense(model, "bf16") == config.rounds_dense == (config.name == "dlrm")
        assert not real_inputs.rounds_dense(model, "fp32")
    assert not real_inputs.rounds_dense(OwnDLRM(configs[0], log.features, 3), "bf16")
    without = build_model(configs[0], log.features, 0, seed=1)
    assert not real_inputs.rounds_dense(without, "bf16")
    other = build_model(configs[0], log.features, 3, seed=1)
    other.bottom = torch.nn.LayerNorm(3)
    assert not real_inputs.rounds_dense(other, "bf16")


def test_an_evaluation_in_float32_gets_whole_features() -> None:
    pytest.importorskip("triton")
    log = unround_log(LOGS["one by one"])
    layout, found = log.layout(0.3, 1), []
    for rounds in (False, True):
        embeddings = make_embeddings("device", log, layout, RowOptimizer(name="sgd"), device=CPU, engine="triton")
        embeddings.initialise(3)
        embeddings.round_dense(rounds=rounds)
        model = build_model(log.config(), log.features, 13, seed=2)
        found.append(torch.from_numpy(predict_split(model, embeddings, as_evaluated(log.packed(layout)))[1]))
    assert_same_bytes(found[:1], found[1:])


def test_a_training_sends_them_rounded_where_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[bool] = []
    setting = Setting(tmp_path)
    packed = setting.packed
    needed = 2 * 2 * 32 * sum(split.num_batches for split in (packed.train, packed.validation, packed.test))
    monkeypatch.setattr("fae.training.trainer.honoured_precision", lambda device, precision: precision)
    ends = []
    for free in (8 * needed, 8 * needed - 1, 0):  # 0: the system does not say
        monkeypatch.setattr(real_inputs, "available_bytes", lambda free=free: free)
        trainer = setting.trainer(None, TrainConfig(batch_size=32, epochs=1, precision="bf16"), model=DLRM_OF_4)
        monkeypatch.setattr(trainer.embeddings, "round_dense", lambda *, rounds: said.append(rounds))
        trainer.fit()
        ends.append(tensors_of(trainer))
    assert said == [True, False, False, False, True, False], "and in float32 behind each training"
    assert_same_bytes(ends[0], ends[1])
