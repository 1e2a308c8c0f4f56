"""The work of a step, counted in a sample and in packed batches: what both say of the same log and hot set."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fae.artifacts.columnar_log import FeatureSchema
from fae.artifacts.manifest import Manifest
from fae.artifacts.row_layout import RowLayout
from fae.models.config import DLRMConfig
from fae.pack.pack import pack
from fae.planning.step_work import StepSettings, StepWork

from logs import make_log

FEATURES = (
    FeatureSchema(name="a", num_embeddings=3000),
    FeatureSchema(name="b", num_embeddings=40),
    FeatureSchema(name="c", num_embeddings=500, length=3),
)
DIMS = (16, 4, 16)
NUM_HOT = (50, 40, 20)


def settings_of(*, batch_size: int = 256, mixed: bool = True) -> StepSettings:
    return StepSettings(
        model=DLRMConfig(name="dlrm", embedding_dim=16, embedding_dims={"b": 4}), features=FEATURES,
        embedding_dims=DIMS, num_dense=2, optimizer="rowwise_adagrad", batch_size=batch_size, mixed=mixed,
    )  # fmt: skip


def skewed_ids(count: int) -> np.ndarray:
    """Ids of all slots, small ones often; the last slot of the list is used by half of the inputs."""
    random = np.random.default_rng(5)
    sizes = [3000, 40, 500, 500, 500]
    ids = np.stack([(size * random.random(count) ** 4).astype(np.int32) for size in sizes], axis=1)
    ids[: count // 2, 4] = -1
    random.shuffle(ids)
    return ids


@pytest.mark.parametrize("mixed", [True, False])
def test_a_sample_and_packed_batches_tell_the_same_work(tmp_path: Path, *, mixed: bool) -> None:
    ids = skewed_ids(4096)
    log = make_log(tmp_path, ids, np.zeros(4096), np.zeros((4096, 2)), FEATURES)
    layout = RowLayout(FEATURES, DIMS, NUM_HOT)
    hot = SimpleNamespace(
        layout=layout, ring_depth=4, batch_size=256, mixed=mixed, optimizer="rowwise_adagrad",
        staging_rows=(256, 1024), manifest=Manifest(kind="hot_set", format_version=1, fingerprint="5" * 32),
    )  # fmt: skip
    packed = pack(log, hot, tmp_path / "packed", seed=1)
    settings = settings_of(mixed=mixed)
    exact = StepWork.from_packed(settings, packed, hot)
    sampled = StepWork.from_sample(settings, ids, NUM_HOT, ring_depth=4)
    assert [width.embedding_dim for width in exact.widths] == [4, 16]
    assert [width.pooled_floats for width in exact.widths] == [4, 32]
    assert [width.num_rows for width in exact.widths] == [40, 3500]
    assert [width.num_hot_rows for width in exact.widths] == [40, 70]
    assert exact.lookups == pytest.approx(sampled.lookups, rel=0.02)
    assert exact.cold_rows == pytest.approx(sampled.cold_rows, rel=0.1)
    assert exact.cold_batch_share == pytest.approx(sampled.cold_batch_share, abs=0.1)
    if mixed:
        for each, other in zip(exact.widths, sampled.widths, strict=True):
            assert each.unique_rows == pytest.approx(other.unique_rows, rel=0.05)
            assert each.unique_cold_rows <= each.unique_rows
    # 68 bytes a row of 16 with row-wise Adagrad; every row of width 4 is hot.
    assert exact.cold_bytes == pytest.approx(68 * exact.widths[1].unique_cold_rows)
    assert exact.pooled_bytes == 4 * 256 * 36


def test_rows_are_counted_one_by_one() -> None:
    ranks = np.array([[0, 0, 0, 1, -1], [60, 1, 0, 20, 21], [60, 1, 2, 499, -1], [0, 1, 2, 21, -1]], np.int32)
    work = StepWork.from_sample(settings_of(batch_size=4), ranks, NUM_HOT)
    narrow, wide = work.widths
    assert (narrow.lookups, narrow.unique_rows, narrow.unique_cold_rows) == (4, 2, 0)
    # Of a: 0 and 60; of c: 0, 1, 2, 20, 21, 499. Cold are 60, and 20, 21, 499.
    assert (wide.lookups, wide.unique_rows, wide.unique_cold_rows) == (13, 8, 4)
    assert work.cold_batch_share == 1.0
    apart = StepWork.from_sample(settings_of(batch_size=2, mixed=False), ranks, NUM_HOT)
    assert apart.cold_batch_share == 0.75


def test_fewer_inputs_than_a_batch_are_extrapolated() -> None:
    ids = skewed_ids(16384)
    whole = StepWork.from_sample(settings_of(batch_size=16384), ids, NUM_HOT)
    part = StepWork.from_sample(settings_of(batch_size=16384), ids[:8192], NUM_HOT)
    assert part.lookups == pytest.approx(whole.lookups, rel=0.02)
    assert part.cold_rows == pytest.approx(whole.cold_rows, rel=0.15)
    assert part.cold_rows <= 3500 - 70
