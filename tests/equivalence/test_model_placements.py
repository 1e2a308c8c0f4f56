"""Placement never changes the mathematics, whatever the model: histories with pads, and models of pooled features."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fae.core.optimizers import OPTIMIZERS
from fae.embedding.placements import PLACEMENTS
from fae.models.config import DCNv2Config, DeepFMConfig, TBSMConfig, WideDeepConfig
from fae.models.registry import MODELS, build_model
from fae.streaming.row_store import RowOptimizer
from fae.streaming.staging import FaultInjection
from fae.training.plain import PlainEmbeddings, PlainTrainer

from cases import assert_same_bytes, history_log, make_embeddings, random_log, train

OTHERS = tuple(name for name in PLACEMENTS if name != "cpu")
optimizers = pytest.mark.parametrize("optimizer", OPTIMIZERS)


@optimizers
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0])
def test_histories(optimizer, share):
    log = history_log(1)
    layout = log.layout(share, 2)
    expected = train(log, layout, optimizer, "cpu")
    for placement in OTHERS:
        assert_same_bytes(train(log, layout, optimizer, placement, depth=3), expected)


@pytest.mark.parametrize("attention", ["softmax", "dot"])
def test_other_attentions(attention):
    model = TBSMConfig(embedding_dim=8, attention=attention, inner="indefinite", final_mlp=(11,))
    log = history_log(3, model=model)
    expected = train(log, log.layout(1.0, 0), "adagrad", "cpu")
    for share in (0.05, 0.5):
        assert_same_bytes(train(log, log.layout(share, 4), "adagrad", "tiered", depth=4), expected)


def test_histories_under_delays_and_nan_in_free_slots():
    """A pad or a freed slot that is read by mistake shows as NaN."""
    log = history_log(5, num_inputs=200, batch_size=8)
    layout = log.layout(0.1, 5)
    faults = FaultInjection(max_delay_seconds=0.004, fill_with_nan=True, seed=5)
    ours = train(log, layout, "adagrad", "tiered", depth=3, faults=faults)
    assert_same_bytes(ours, train(log, layout, "adagrad", "cpu"))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_lengths_are_those_of_the_log(placement):
    log = history_log(6)
    layout = log.layout(0.3, 1)
    embeddings = make_embeddings(placement, log, layout, RowOptimizer(name="sgd"))
    embeddings.initialise(7)
    packed = log.packed(layout)
    for index, batch in enumerate(embeddings.stream(packed, range(packed.num_batches))):
        features = embeddings.lookup(batch)
        inputs = log.groups[index]
        for name, first in (("item", 1), ("category", 6)):
            expected = (log.ids[inputs, first : first + 5] >= 0).sum(1)
            lengths = features.lengths(name).numpy()
            assert np.array_equal(lengths[: len(inputs)], expected)
            assert not lengths[len(inputs) :].any()
        with pytest.raises(KeyError):
            features.lengths("user")
        sum(features[name].sum() for name in features).backward()
        embeddings.update(batch)


POOLED = {
    "deepfm": DeepFMConfig(embedding_dim=8, embedding_dims={"b": 1}, deep_mlp=(8,)),
    "dcnv2": DCNv2Config(embedding_dim=8, embedding_dims={"b": 4}, cross_rank=3, deep_mlp=(8,)),
    "wide_deep": WideDeepConfig(embedding_dim=8, embedding_dims={"b": 1}, wide=("a", "b"), deep_mlp=(8,)),
}


def test_every_model_is_compared():
    """TBSM is compared above; DLRM in the other suites of equivalence."""
    assert {*POOLED, "tbsm", "dlrm"} == set(MODELS)


@pytest.mark.parametrize("name", POOLED)
def test_models_of_pooled_features(name):
    log = random_log(4)
    log = dataclasses.replace(log, model=POOLED[name], embedding_dims=tuple(POOLED[name].dims(["a", "b", "c"])))
    layout = log.layout(0.2, 3)
    expected = train(log, layout, "rowwise_adagrad", "cpu")
    for placement in OTHERS:
        assert_same_bytes(train(log, layout, "rowwise_adagrad", placement, depth=2), expected)


@optimizers
def test_plain_tables_agree_within_rounding(optimizer):
    log = history_log(8)
    ours = train(log, log.layout(0.2, 4), optimizer, "tiered", depth=4)
    plain = PlainEmbeddings(log.features, log.embedding_dims, seed=7)
    model = build_model(log.config(), log.features, 0, seed=7)
    trainer = PlainTrainer(
        model, plain, RowOptimizer(name=optimizer, learning_rate=0.1), dense_learning_rate=log.dense_rate
    )
    for group in log.groups:
        trainer.step(
            torch.from_numpy(log.ids[group].astype(np.int64)),
            torch.from_numpy(log.dense[group]),
            torch.from_numpy(log.labels[group].astype(np.float32)),
        )
    tables = [parameter.detach() for parameter in plain.parameters()]
    for one, other in zip(ours[:6:2], tables, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-5)
    for one, other in zip(ours[6:], model.parameters(), strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=2e-4, atol=2e-5)
