"""The Python side as docs/guide/train.md shows it: a model and a loop of one's own, and what training may import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fae

from commands import write_log, write_recipe


class Wide(torch.nn.Module):
    """A model that is none of ours: a linear layer over the named embeddings."""

    def __init__(self, names: list[str], dim: int) -> None:
        super().__init__()
        self.names, self.out = names, torch.nn.Linear(len(names) * dim, 1)

    def forward(self, dense: torch.Tensor, embeddings: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.out(torch.cat([embeddings[name] for name in self.names], dim=1)).squeeze(1)


@pytest.fixture
def folder(tmp_path: Path) -> fae.RunFolder:
    recipe = fae.load_recipe(write_recipe(tmp_path))
    write_log(tmp_path, 400)
    folder = fae.RunFolder(recipe, tmp_path / "run", device="cpu")
    for stage in ("ingest", "profile", "calibrate", "pack"):
        folder.stage(stage)
    return folder


def make_model(folder: fae.RunFolder, embeddings: object) -> Wide:
    torch.manual_seed(3)
    return Wide([f.name for f in embeddings.layout.features], folder.recipe.model.embedding_dim)


def test_own_model(folder):
    embeddings, packed = folder.open_embeddings(), folder.open_packed()
    model = make_model(folder, embeddings)
    result = fae.Trainer(model, embeddings, packed, folder.recipe.train).fit()
    assert result["train"]["num_inputs"] == packed.train.num_inputs
    assert np.isfinite(result["test"]["log_loss"])


def test_own_loop_is_the_trainers(folder):
    packed = folder.open_packed()
    tables = []
    for own in (True, False):
        embeddings = folder.open_embeddings()
        model = make_model(folder, embeddings)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for batch in embeddings.stream(packed.train, range(packed.train.num_batches)):
            if not own:
                fae.train_step(model, embeddings, optimizer, batch)
                continue
            features = embeddings.lookup(batch)
            logits = model(batch.dense, features)
            losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.labels, reduction="none")
            loss = (losses * batch.real).sum() / batch.num_inputs
            optimizer.zero_grad()
            loss.backward()
            embeddings.update(batch)
            optimizer.step()
        tables.append(embeddings.export_table(0)[0])
    assert torch.equal(*tables)


def test_training_needs_no_table_library(folder):
    """From packed batches on: neither pyarrow nor what only earlier stages need."""
    program = (
        "import sys\n"
        "for name in ('pyarrow', 'polars', 'pandas', 'matplotlib', 'sklearn', 'scipy'): sys.modules[name] = None\n"
        "from fae.cli.main import main\n"
        "sys.exit(main(['train', sys.argv[1], '--out', sys.argv[2], '--device', 'cpu']))\n"
    )
    recipe = folder.recipe.base / "recipe.toml"
    done = subprocess.run(
        [sys.executable, "-c", program, str(recipe), str(folder.out)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "test AUC" in done.stderr


def test_everything_exported_is_there():
    for name in fae.__all__:
        assert getattr(fae, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fae.nothing  # noqa: B018
    assert "RunFolder" in dir(fae)
