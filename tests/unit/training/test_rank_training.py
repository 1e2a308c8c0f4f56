"""Ranks stay in step: who stops a training, what stops it early, and what they cannot train."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fae.core.errors import RecipeError
from fae.distributed.group import Group
from fae.distributed.launcher import launch
from fae.embedding.base import Embeddings, Engine
from fae.embedding.engines import slice_size
from fae.embedding.placements import find_placement
from fae.streaming.ready_batch import ReadyBatch
from fae.streaming.row_store import RowOptimizer
from fae.training.config import TrainConfig
from fae.training.ranks.decisions import RankDecisions
from train_setting import Setting, tensors_of

from rank_trainer_program import trainer_of

PROGRAM = Path(__file__).parents[2] / "support" / "rank_trainer_program.py"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = ("plain", "staged", "adaptive", "callback", "early stopping", "dropout", "reproducible")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[dict[str, Any], list[np.ndarray]]]]:
    """For each training, the result of each rank and what it ends with."""
    folder = tmp_path_factory.mktemp("ranks")
    assert launch([sys.executable, str(PROGRAM), str(folder), *NAMES], 2) == 0

    def of(name: str, rank: int) -> tuple[dict[str, Any], list[np.ndarray]]:
        arrays = np.load(folder / f"{name}.{rank}.npz")
        return json.loads((folder / f"{name}.{rank}.json").read_text()), [arrays[key] for key in arrays.files]

    return {name: [of(name, rank) for rank in range(2)] for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_all_ranks_end_alike(name: str, found: dict[str, Any], tmp_path: Path) -> None:
    (first, tensors), (second, others) = found[name]
    for one, other in zip(tensors, others, strict=True):
        assert one.tobytes() == other.tobytes()
    for part in ("validation", "test"):
        assert first[part] == second[part]
    alone = trainer_of(name, Setting(tmp_path))
    expected = alone.fit()["train"]
    for train in (first["train"], second["train"]):
        for key in ("num_batches", "num_inputs", "epochs", "stopped_early", "stopped_by"):
            assert train[key] == expected[key], key
        curve, wanted = np.array(train["loss_curve"]), np.array(expected["loss_curve"])
        np.testing.assert_allclose(curve, wanted, rtol=0.3 if name == "dropout" else 1e-4)
        assert train["reproducible"] == (name == "reproducible")
    assert first["train"]["ranks"] == 2


def test_what_the_trainings_are_for(found: dict[str, Any]) -> None:
    assert found["callback"][1][0]["train"]["stopped_by"] == "StopsAt: enough"
    assert found["early stopping"][1][0]["train"]["stopped_early"]
    assert found["early stopping"][1][0]["train"]["stopped_by"] is None
    curves = [found[name][0][0]["train"]["loss_curve"] for name in ("plain", "dropout")]
    assert curves[0] != curves[1], "no unit was dropped"


def test_reproducible_ranks_end_as_one(found: dict[str, Any], tmp_path: Path) -> None:
    """With dropout, early stopping, an order that follows losses and a schedule: weights, losses and metrics."""
    alone = trainer_of("reproducible", Setting(tmp_path))
    expected = json.loads(json.dumps(alone.fit()))
    (first, tensors), _ = found["reproducible"]
    assert [each.tobytes() for each in tensors] == [each.numpy().tobytes() for each in tensors_of(alone)]
    for part in ("validation", "test"):
        assert first[part] == expected[part]
    for key in ("loss_curve", "validation_curve", "epoch_curve", "schedule", "threads", "stopped_early"):
        assert first["train"][key] == expected["train"][key], key
    assert first["train"]["stopped_early"]


def test_embeddings_and_recipe_must_agree(tmp_path: Path) -> None:
    """Otherwise a training that says that it is reproducible is not."""
    setting = Setting(tmp_path)
    with pytest.raises(RecipeError, match=r"reproducible = true.*make_embeddings\(\.\.\., reproducible=True\)"):
        setting.trainer(None, TrainConfig(batch_size=32, reproducible=True))
    config = TrainConfig(batch_size=32)
    setting.trainer(None, config)
    with pytest.raises(RecipeError, match="reproducible = false"):
        RankDecisions(Group(reproducible=True)).require_fit(nn.Linear(1, 1))
    with pytest.raises(RecipeError, match=r"slices train one of dlrm.*leave out reproducible"):
        RankDecisions(Group(reproducible=True)).require_fit(nn.Linear(1, 1), reproducible=True)


@pytest.mark.parametrize(
    ("engine", "batch_size", "group"),
    [
        ("reference", 32, Group(reproducible=True)), ("reference", 32, Group(world=2, reproducible=True)),
        ("cpu", 36, Group(reproducible=True)), ("triton", 36, Group(reproducible=True)),
    ],
)  # fmt: skip
def test_slices_are_trained_by_all_kernels_but_those_of_torch(engine: str, batch_size: int, group: Group) -> None:
    with pytest.raises(ValueError, match=f"ranks cannot train {batch_size} inputs by 8 slices by engine '{engine}'"):
        slice_size(batch_size, group, engine)
    assert slice_size(32, group, "cpu") == slice_size(32, group, "triton") == 4
    assert slice_size(36, Group(), engine) == 36


@pytest.mark.parametrize("engine", ["cpu", "triton"])
def test_a_slice_that_is_not_kept_is_missed(engine: Engine, tmp_path: Path) -> None:
    """A loop of one's own that takes a batch of several slices for a whole one."""
    setting, group = Setting(tmp_path), Group(reproducible=True)
    if engine == "triton":
        pytest.importorskip("triton")
    embeddings = find_placement("device").make(
        setting.hot_set, RowOptimizer(), DEVICE if engine == "triton" else "cpu", engine=engine, group=group
    )
    embeddings.initialise(1)
    with closing(embeddings.stream(setting.packed.train, [0])) as stream:
        batch = next(stream)
        assert [len(part.labels) for part in batch.slices] == [4] * 8
        embeddings.lookup(batch.slices[1])["C0"].sum().backward()
        with pytest.raises(RuntimeError, match="slice 1 of a batch comes behind 0 slices"):
            embeddings.keep_gradients(batch.slices[1])
        with pytest.raises(RuntimeError, match=r"for each of batch\.slices call keep_gradients"):
            embeddings.update(batch)
        assert embeddings.steps == 0
    with closing(embeddings.stream(setting.packed.train, [0, 1])) as stream:
        first, second = keep_all(embeddings, next(stream)), None
        embeddings.update(first)
        second = next(stream)
        embeddings.lookup(second)["C0"].sum().backward()
        with pytest.raises(RuntimeError, match=r"for each of batch\.slices call keep_gradients"):
            embeddings.update(second, without_gradients=True)
        assert embeddings.steps == 1


def keep_all(embeddings: Embeddings, batch: ReadyBatch, *, slices: int = 8) -> ReadyBatch:
    """Sum the gradients of some of a batch's slices."""
    for part in batch.slices[:slices]:
        embeddings.lookup(part)["C0"].sum().backward()
        embeddings.keep_gradients(part)
    return batch


@pytest.mark.parametrize("slices", [3, 8])
@pytest.mark.parametrize("placement", ["device", "tiered"])
def test_slices_may_begin_again(placement: str, slices: int, tmp_path: Path) -> None:
    """Sums of a batch that was left, or looked up once more, change no row, of that batch or of the one before."""
    pytest.importorskip("triton")
    setting, group = Setting(tmp_path), Group(reproducible=True)
    found = []
    for again in (False, True):
        optimizer = RowOptimizer(name="sgd", learning_rate=0.1)
        embeddings = find_placement(placement).make(setting.hot_set, optimizer, DEVICE, engine="triton", group=group)
        embeddings.initialise(1)
        embeddings.rely_on_ends_of_steps()  # and no dense update: staged rows are stepped all the same
        with closing(embeddings.stream(setting.packed.train, [0, 1, 2])) as stream:
            for number, batch in enumerate(stream):
                if again and number == 1:
                    keep_all(embeddings, batch, slices=slices)
                embeddings.update(keep_all(embeddings, batch))
        found.append(embeddings.export_table(0)[0])
    assert torch.equal(*found)


def ended_with(name: str, folder: Path) -> str:
    """What two ranks say that fail in this training."""
    code = (
        f"import sys; from fae.distributed.launcher import launch; "
        f"sys.exit(launch([sys.executable, {str(PROGRAM)!r}, {str(folder)!r}, {name!r}], 2))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    return done.stderr


@pytest.mark.slow
def test_rank_0_takes_longer_than_a_collective_may(tmp_path: Path) -> None:
    """To write a checkpoint, to measure a validation, and to measure a split at the end; the others do none of it."""
    assert launch([sys.executable, str(PROGRAM), str(tmp_path), "slow"], 2) == 0
    slow = {path.name for path in tmp_path.iterdir() if path.suffix in (".0", ".1")}
    assert slow == {"save_checkpoint.0", "compute_metrics.0", "measure_quality.0"}
    first, second = (json.loads((tmp_path / f"slow.{rank}.json").read_text()) for rank in range(2))
    assert [first[part] for part in ("validation", "test")] == [second[part] for part in ("validation", "test")]


def test_a_callback_that_fails_ends_all_with_its_line(tmp_path: Path) -> None:
    said = ended_with("failing callback", tmp_path)
    assert said.count("the callback StopsAt failed in on_window behind batch 20: ValueError: no more") == 1


def test_a_model_of_ones_own() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    RankDecisions(Group()).require_fit(model)
    with pytest.raises(RecipeError, match="Sequential is a model of your own, which may look across the inputs"):
        RankDecisions(Group(world=2)).require_fit(model)


def test_ranks_with_other_weights_write_no_checkpoint(tmp_path: Path) -> None:
    """A rank whose weights have drifted is found before the checkpoint, and named once."""
    said = ended_with("drifting", tmp_path)
    assert said.count("ranks do not have the same weights behind batch ") == 1, said
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_one_other_row_in_host_memory_is_found(tmp_path: Path) -> None:
    said = ended_with("another cold row", tmp_path)
    assert said.count("ranks do not have the same training: they differ in weights") == 1, said
