"""What pack would write is what it writes: batches, largest sizes, bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fae.artifacts.row_layout import RowLayout
from fae.pack.pack import pack
from fae.pack.packed_sizes import measure_packed

from logs import zipf_log
from packs import random_ranks, stub_hot_set


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("memory_bytes", [2**30, 2**14])
def test_sizes_are_those_of_the_packed_artifact(tmp_path: Path, mixed: bool, memory_bytes: int) -> None:
    log = zipf_log(tmp_path, num_inputs=3000, num_validation=130, num_test=270)
    ranks = random_ranks(np.random.default_rng(1), log.features)
    hot = [min(30, feature.num_embeddings) for feature in log.features]
    hot_set = stub_hot_set(RowLayout(log.features, [4, 8, 4, 8], hot, ranks), batch_size=48, mixed=mixed)
    (tmp_path / "empty").mkdir()
    sizes = measure_packed(log, hot_set, tmp_path / "empty", seed=3, memory_bytes=memory_bytes)
    assert not list((tmp_path / "empty").iterdir()), "nothing is left there"
    packed = pack(log, hot_set, tmp_path / "packed", seed=3, memory_bytes=memory_bytes)
    assert sizes.num_bytes == packed.summary["bytes"]
    for found, batches in zip(sizes.splits, (packed.train, packed.validation, packed.test), strict=True):
        for name in ("num_batches", "num_dense", "is_weighted", "most_segments", "most_cold_rows"):
            assert getattr(found, name) == getattr(batches, name), name
    assert {key: packed.summary[key] for key in sizes.summary if key != "split"} == {
        key: value for key, value in sizes.summary.items() if key != "split"
    }
