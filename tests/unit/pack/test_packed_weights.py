"""Weights of inputs through pack: with the log in memory or spilled, beside the same batches as without weights."""

from __future__ import annotations

import numpy as np
import pytest

from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.row_layout import RowLayout
from fae.pack.pack import pack

from logs import zipf_log
from packs import stub_hot_set


@pytest.mark.parametrize("memory_bytes", [2**30, 4000])
def test_every_input_keeps_its_weight(tmp_path, memory_bytes):
    plain = zipf_log(tmp_path / "logs", num_inputs=900, num_validation=100, num_test=100, seed=3)
    log = ColumnarLog(plain.path)
    log.weight = "w"
    log.__dict__["weights"] = np.random.default_rng(1).uniform(0, 3, log.num_inputs).astype(np.float32)
    layout = RowLayout(log.features, [4] * 4, [round(0.1 * feature.num_embeddings) for feature in log.features])
    hot_set = stub_hot_set(layout, batch_size=32, mixed=False)
    without = pack(plain, hot_set, tmp_path / "without", seed=1)
    packed = pack(log, hot_set, tmp_path / "packed", seed=1, memory_bytes=memory_bytes)
    assert (packed.weighted, without.weighted) == (True, False)
    assert not list((tmp_path / "without").rglob("weights.npy"))
    for name in ("train", "validation", "test"):
        batches = getattr(packed, name)
        inputs, weights = batches.inputs, batches.arrays.weights
        assert np.array_equal(weights[inputs >= 0], log.weights[inputs[inputs >= 0]])
        assert not weights[inputs < 0].any()
        assert np.array_equal(inputs, getattr(without, name).inputs)
        for batch in batches:
            assert batch.total_weight == pytest.approx(float(batch.weights.sum(dtype=np.float64)))
