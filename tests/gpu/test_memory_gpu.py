"""On a GPU: what torch allocates for rows keeps to the budget, and what is beside them to the memory plan."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch

from fae.artifacts.hot_set import HotSet
from fae.artifacts.packed import PackedDataset
from fae.calibrate.calibrate import calibrate
from fae.core.optimizers import OPTIMIZERS, row_bytes
from fae.embedding.memory_plan import MemoryPlan
from fae.embedding.placements import make_embeddings, plan_memory
from fae.embedding.working_memory import ROUNDED
from fae.models.config import DLRMConfig
from fae.models.registry import build_model
from fae.pack.pack import pack
from fae.profile.config import HotConfig
from fae.profile.profile import profile
from fae.streaming.row_store import RowOptimizer
from fae.training.dense import dense_bytes, make_dense_optimizer

from logs import zipf_log

DIM, BATCH_SIZE, SIZES = 16, 256, (300, 20_000, 40, 60_000)
CUDA = torch.device("cuda")


def allocated() -> int:
    """Bytes of all tensors on the GPU, as torch rounds them; these tests make no cuBLAS workspace."""
    gc.collect()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


def locked() -> int:
    """Bytes of page-locked memory that torch has from the driver."""
    return int(torch.cuda.memory.host_memory_stats().get("allocated_bytes.current", 0))


def prepared(folder: Path, optimizer: str, budget: int) -> tuple[HotSet, PackedDataset]:
    """A small log through profile, calibrate and pack, as `fae run` does it."""
    log = zipf_log(folder, num_inputs=30_000, sizes=SIZES, num_validation=2000, num_test=1000, skew=1.05)
    config = HotConfig(budget=budget, ring_depth=3, small_table="1KiB")
    hot_set = calibrate(
        log, profile(log, config, folder / "profile", seed=1), config, folder / "hot_set", optimizer=optimizer,
        embedding_dims=[DIM] * len(SIZES), batch_size=BATCH_SIZE, mixed=False, seed=1,
    )  # fmt: skip
    return hot_set, pack(log, hot_set, folder / "packed", seed=1)


def planned(placement: str, hot_set: HotSet, packed: PackedDataset, optimizer: str) -> MemoryPlan:
    splits = (packed.train, packed.validation, packed.test)
    return plan_memory(placement, hot_set, optimizer, splits, on_gpu=True)


def a_few_steps(embeddings, batches, count):
    """Open a stream, look up and update; the stream and its last batch."""
    stream = embeddings.stream(batches, np.arange(batches.num_batches)[::-1])  # the cold batches come first
    for number, batch in enumerate(stream):
        features = embeddings.lookup(batch)
        sum((features[f"C{table}"] ** 2).sum() for table in range(len(SIZES))).backward()
        embeddings.update(batch)
        if number + 1 == count:
            return stream, batch
    raise AssertionError("too few batches")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("share", [0.04, 0.08, 0.14])
def test_tiered_keeps_to_the_budget_and_to_what_was_stated(share, optimizer, tmp_path):
    budget = int(share * sum(SIZES) * row_bytes(optimizer, DIM))
    hot_set, packed = prepared(tmp_path, optimizer, budget)
    assert packed.train.has_cold_rows.any(), "without cold rows there is no ring"
    needs = planned("tiered", hot_set, packed, optimizer)
    assert needs.device_rows <= budget
    assert needs.device_rows == hot_set.summary["bytes"] + hot_set.summary["staging_bytes"]
    torch.zeros(1, device=CUDA)
    before, locked_before = allocated(), locked()

    embeddings = make_embeddings("tiered", hot_set, RowOptimizer(name=optimizer, learning_rate=0.01), device=CUDA)
    embeddings.initialise(1)
    made = allocated() - before
    assert embeddings.device_bytes == needs.device_rows
    # A bank and its state, each rounded by torch: the budget is kept but for that.
    banks = [tensor for store in embeddings.device_stores for tensor in (store.weight, store.state)]
    assert sum(tensor.untyped_storage().nbytes() for tensor in banks) == needs.device_rows
    assert needs.device_rows <= made <= needs.device_rows + needs.device_beside

    stream, batch = a_few_steps(embeddings, packed.train, 8)
    streaming = allocated() - before
    pinned = locked() - locked_before
    del batch
    stream.close()
    assert streaming <= needs.device_rows + needs.device_beside, (streaming, needs)
    assert streaming - needs.device_rows >= needs.device_inputs, "the input buffers exist, or something is not measured"
    assert pinned <= needs.host_buffers + needs.host_work, (pinned, needs)

    for batch in embeddings.stream_frozen(packed.validation, np.arange(packed.validation.num_batches)):
        embeddings.lookup(batch, requires_grad=False)["C0"].sum()
    del batch
    assert allocated() - before <= needs.device_rows + needs.device_beside
    del embeddings, banks, stream
    assert allocated() - before <= 8 * ROUNDED, "something outlives the embeddings"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("placement", ["device", "hybrid", "paper"])
def test_other_placements_keep_to_what_was_stated(placement, optimizer, tmp_path):
    budget = int(0.1 * sum(SIZES) * row_bytes(optimizer, DIM))
    hot_set, packed = prepared(tmp_path, optimizer, budget)
    needs = planned(placement, hot_set, packed, optimizer)
    torch.zeros(1, device=CUDA)
    before = allocated()
    embeddings = make_embeddings(placement, hot_set, RowOptimizer(name=optimizer, learning_rate=0.01), device=CUDA)
    embeddings.initialise(1)
    assert embeddings.device_bytes == needs.device_rows
    stream, batch = a_few_steps(embeddings, packed.train, 8)
    streaming = allocated() - before
    del batch
    stream.close()
    assert needs.device_rows <= streaming <= needs.device_rows + needs.device_beside, (streaming, needs)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_dense_weights_take_what_was_stated(optimizer, bf16, tmp_path):
    hot_set, packed = prepared(tmp_path, optimizer, int(0.1 * sum(SIZES) * row_bytes(optimizer, DIM)))
    config = DLRMConfig(embedding_dim=DIM, bottom_mlp=(64, 32), top_mlp=(64, 48))
    model = build_model(config, hot_set.layout.features, packed.num_dense, seed=1)
    stated = dense_bytes(optimizer, model, flat=True, bf16=bf16)
    before = allocated()
    model = model.to(CUDA)
    steps = make_dense_optimizer(optimizer, model, 0.01, flat=True, bf16=bf16)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    steps.step()
    taken = allocated() - before
    exact = sum(parameter.numel() for parameter in model.parameters())
    assert 2 * 4 * exact <= taken <= stated, (taken, stated)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
