"""On a GPU: dense features that are sent in bfloat16 train and score the bytes of those that are rounded there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fae.streaming import input_ring
from fae.streaming.input_sources import MappedSource

from cases import Log, assert_same_bytes, mapped, random_log, train, wide_log
from packs import store_whole_order

CUDA = torch.device("cuda")


def with_dense(log: Log, num_dense: int) -> Log:
    """Dense features of many sizes, none of them a bfloat16."""
    random = np.random.default_rng(5)
    dense = random.normal(size=(len(log.ids), num_dense)) * 10.0 ** random.integers(-3, 3, (len(log.ids), num_dense))
    return dataclasses.replace(log, dense=dense.astype(np.float32))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("placement", ["device", "tiered", "paper"])
@pytest.mark.parametrize("name", ["fused", "fused, 16", "one by one"])
def test_rounded_features_train_the_same_bytes(name, placement, compiled):
    log = random_log(3, num_inputs=300, lists=name == "one by one")
    log = with_dense(log if name == "one by one" else wide_log(log), 16 if name == "fused, 16" else 13)
    if compiled and (name != "one by one" or placement != "device"):
        pytest.skip("only models without fused blocks are compiled")
    layout = log.layout(0.3, 1)
    kind = {"device": CUDA, "precision": "bf16", "epochs": 3, "with_loss": True, "compiled": compiled}
    for capture in (True, False):
        ends = [
            train(log, layout, "rowwise_adagrad", placement, capture=capture, rounds_dense=rounds, **kind)
            for rounds in (False, True)
        ]
        assert_same_bytes(*ends)


@pytest.mark.parametrize("placement", ["device", "tiered"])
def test_batches_that_are_copied_from_files(placement, tmp_path, monkeypatch):
    """Large ones: planes and rounded features are pieces of mapped memory; format 3 trains the same bytes."""
    log = with_dense(wide_log(random_log(4, num_inputs=5 * 32768, batch_size=32768)), 13)
    layout, sources = log.layout(0.3, 1), []
    packed = type(log).packed
    monkeypatch.setattr(
        input_ring, "MappedSource", lambda *arguments: sources.append(MappedSource(*arguments)) or sources[-1]
    )
    ends = []
    for number, (older, rounds) in enumerate(((True, False), (False, False), (False, True))):
        folder = tmp_path / str(number)
        folder.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(
                type(log), "packed",
                lambda self, layout, older=older, folder=folder: mapped(
                    store_whole_order(packed(self, layout)) if older else packed(self, layout), folder
                ),
            )  # fmt: skip
            found = train(
                log, layout, "sgd", placement, device=CUDA, precision="bf16", epochs=6, rounds_dense=rounds
            )  # fmt: skip
        ends.append(found)
    assert len(sources) == 3 * 6, "a device copied from the files"
    for other in ends[1:]:
        assert_same_bytes(other, ends[0])
