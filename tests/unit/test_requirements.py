"""Memory is counted before it is taken, and what cannot fit is refused with what would."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fae.core.errors import BudgetError
from fae.embedding.placements import PLACEMENTS
from fae.embedding.placements import make_embeddings as make
from fae.embedding.requirements import Requirements, require_memory, requirements
from fae.embedding.rows import RowOptimizer
from fae.popularity.memory import OPTIMIZERS

from cases import random_log

MIB = 2**20


def host_bytes(embeddings) -> int:
    """Rows and state in host memory beside the bank."""
    stores = [tier.host for tier in getattr(embeddings, "_tiers", [])]
    for side in (embeddings, getattr(embeddings, "_cold_side", None)):
        stores += getattr(side, "_stores", [])
    return sum(store.num_bytes for store in stores)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_counted_is_what_is_allocated(placement, optimizer):
    log = random_log(1, lists=True)
    layout = log.layout(0.4, 1)
    packed = log.packed(layout)
    hot_set = SimpleNamespace(
        layout=layout, ring_depth=3, batch_size=log.batch_size, staging_rows=tuple(packed.most_cold_rows)
    )
    needs = requirements(placement, hot_set, optimizer, [packed], on_gpu=False)
    embeddings = make(placement, hot_set, RowOptimizer(name=optimizer), device="cpu")
    if placement in ("cpu", "hybrid"):  # the whole is in host memory, whatever the device is
        assert needs.device_rows == 0
        assert needs.host_rows == host_bytes(embeddings)
        return
    assert needs.device_rows == embeddings.device_bytes
    if placement == "tiered":
        assert needs.host_buffers == embeddings._pipeline.buffer_bytes
        assert needs.host_rows == host_bytes(embeddings)


def test_feeds_are_counted_as_they_are_made():
    from fae.embedding.gpu_rows import GpuRows  # needs Triton

    log = random_log(1, lists=True)
    layout = log.layout(0.4, 1)
    packed = log.packed(layout)
    hot_set = SimpleNamespace(
        layout=layout, ring_depth=3, batch_size=log.batch_size, staging_rows=tuple(packed.most_cold_rows)
    )
    for placement, engine_bytes in (("device", 0), ("tiered", 8 * 3 * sum(packed.most_cold_rows))):
        needs = requirements(placement, hot_set, "sgd", [packed], on_gpu=True)
        embeddings = make(placement, hot_set, RowOptimizer(), device="cpu")
        rows = GpuRows(
            layout, embeddings.geometries, RowOptimizer(), log.batch_size, embeddings.device,
            staged=placement == "tiered",
        )  # fmt: skip
        import numpy as np

        order = np.arange(packed.num_batches)
        rows.feeds(packed, order, np.full(len(order), -1), hot_set.staging_rows, 1)
        assert needs.device_feeds == rows._feeds.device_bytes + engine_bytes


NEEDS = Requirements(device_rows=3000 * MIB, device_feeds=100 * MIB, host_rows=5000 * MIB, host_buffers=50 * MIB)


def test_refusals_name_what_would_fit():
    require_memory(NEEDS, "tiered", device_free=4000 * MIB, host_free=6000 * MIB)
    with pytest.raises(BudgetError, match=r"largest budget that fits is 1388MiB.*--budget 1388MiB"):
        require_memory(NEEDS, "tiered", device_free=2000 * MIB, host_free=6000 * MIB)
    with pytest.raises(BudgetError, match=r"smaller \[train\] batch_size"):
        require_memory(NEEDS, "tiered", device_free=300 * MIB, host_free=6000 * MIB)
    with pytest.raises(BudgetError, match=r"4.9 GiB of host memory.*1.0 GiB are available"):
        require_memory(NEEDS, "tiered", device_free=4000 * MIB, host_free=1024 * MIB)
    with pytest.raises(BudgetError, match=r"7\.9 GiB of host memory"):
        require_memory(NEEDS, "device", device_free=None, host_free=6000 * MIB)
    require_memory(NEEDS, "device", device_free=None, host_free=9000 * MIB)


def test_the_sentence_for_people():
    assert NEEDS.describe("the GPU") == (
        "on the GPU 2.9 GiB of rows, state and staging and 100.0 MiB of batches on their way; on the host 4.9 GiB of "
        "rows and state and 50.0 MiB of buffers"
    )
