"""Checkpoints are written while tables are collected: the same files, little memory, and nothing after a failure."""

from __future__ import annotations

import errno
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fae.artifacts.checksums import describe_files
from fae.artifacts.columnar_log import FeatureSchema
from fae.artifacts.manifest import Plan
from fae.artifacts.row_layout import RowLayout
from fae.checkpoint import save_load
from fae.checkpoint.save_load import open_checkpoint, save_checkpoint
from fae.core.errors import ArtifactError
from fae.embedding import tiered
from fae.embedding.tiered import TieredEmbeddings
from fae.streaming.row_store import RowOptimizer

SIZES = (40, 3, 500, 7, 500, 90, 300, 1)


@pytest.fixture
def state(tmp_path):
    """What a checkpoint is made of; the rows of every table lie in another order than its ids."""
    random = np.random.default_rng(2)
    features = tuple(FeatureSchema(name=f"c{number}", num_embeddings=size) for number, size in enumerate(SIZES))
    orders = [random.permutation(size) for size in SIZES]
    layout = RowLayout(features, [4] * len(SIZES), [-(-size // 3) for size in SIZES], orders)
    embeddings = TieredEmbeddings(
        layout, RowOptimizer(name="adam"), 16, torch.device("cpu"), staging_rows=[10], ring_depth=2
    )
    embeddings.initialise(5)
    model = torch.nn.Linear(3, 2)
    return {
        "model": model,
        "dense_optimizer": torch.optim.Adagrad(model.parameters()),
        "embeddings": embeddings,
        "progress": {"epoch": 1},
    }


PLAN = Plan(kind=save_load.KIND, format_version=save_load.FORMAT_VERSION, parameters={}, parents={}, command="x")


@pytest.mark.parametrize("together", [1, 7, 1 << 14])
def test_every_table_is_in_its_file(state, tmp_path, monkeypatch, together):
    monkeypatch.setattr(tiered, "_ROWS_TOGETHER", together)
    path, embeddings = tmp_path / "checkpoint", state["embeddings"]
    save_checkpoint(path, PLAN, **state)
    manifest = open_checkpoint(path)
    (path / "manifest.json").unlink()
    assert manifest.files == describe_files(path)
    assert list(manifest.files) == sorted(manifest.files, key=lambda name: path / name)
    for table, size in enumerate(SIZES):
        saved = load_file(path / f"tables/{table}.safetensors")
        weight, kept = embeddings.export_table(table)
        assert torch.equal(saved["weight"], weight)
        assert saved["state"].shape == kept.shape == (size, 8)
        group = int(embeddings.layout.group_of_table[table])
        rows = embeddings.layout.row_numbers(table)
        for number in {0, size // 2, size - 1}:
            embeddings.import_table(table, torch.where(torch.arange(size)[:, None] == number, -1.5, weight), kept)
            tier = embeddings._tiers[group]
            first = tier.num_hot_rows
            there = tier.bank.weight[rows[number]] if rows[number] < first else tier.host.weight[rows[number] - first]
            assert there.tolist() == [-1.5] * 4
            assert embeddings.export_table(table)[0][number].tolist() == [-1.5] * 4
            embeddings.import_table(table, weight, kept)


def test_files_that_wait_take_no_more_than_the_largest(state, tmp_path, monkeypatch):
    lock, now, most = threading.Lock(), [0], [0]
    real = save_load._save_tensors

    def saved(path, tensors):
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        with lock:
            now[0] += size
            most[0] = max(most[0], now[0])
        real(path, tensors)
        with lock:
            now[0] -= size

    monkeypatch.setattr(save_load, "_save_tensors", saved)
    monkeypatch.setattr(save_load, "_dense_tensors", lambda *_: {"model.weight": torch.zeros(1)})
    save_checkpoint(tmp_path / "checkpoint", PLAN, **state)
    assert 0 < most[0] <= max(SIZES) * (4 + 8) * 4


@pytest.mark.parametrize("failing", [0, 4, len(SIZES) - 1])
def test_a_file_that_cannot_be_written_leaves_what_was_there(state, tmp_path, monkeypatch, failing):
    path = tmp_path / "checkpoint"
    save_checkpoint(path, PLAN, **state)
    before = describe_files(tmp_path)
    real = save_load._save_tensors

    def saved(file, tensors):
        if file.name == f"{failing}.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device", str(file))
        real(file, tensors)

    monkeypatch.setattr(save_load, "_save_tensors", saved)
    state["embeddings"].initialise(6)
    with pytest.raises(ArtifactError, match="No space left on device"):
        save_checkpoint(path, PLAN, **state)
    assert describe_files(tmp_path) == before
