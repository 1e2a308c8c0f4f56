"""Batches of formats 2 (addresses), 3 (a whole order) and 4 (planes) train the same bytes; runs keep their names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fae.artifacts.packed import PackedDataset
from fae.training.config import TrainConfig
from train_setting import Setting, tensors_of

from cases import CPU, assert_same_bytes, history_log, random_log, train
from commands import csv_text, fae, fault, succeed, write_recipe, zipf_inputs
from packs import store_addresses, store_whole_order, write_older


@pytest.mark.parametrize("make", [random_log, history_log])
@pytest.mark.parametrize(
    ("placement", "engine"),
    [("cpu", "cpu"), ("device", "reference"), ("device", "triton"), ("tiered", "triton"), ("tiered", "cpu"),
     ("hybrid", None), ("paper", "triton"), ("paper", "cpu")],
)  # fmt: skip
def test_stored_addresses_train_the_same_bytes(
    make: Any, placement: str, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "triton":
        pytest.importorskip("triton")
        from fae.embedding.gpu_rows import GpuRows
    log = make(3, num_inputs=90)
    layout, packed = log.layout(0.3, 2), type(log).packed

    def trained() -> list[torch.Tensor]:
        return train(log, layout, "adagrad", placement, engine=engine, device=CPU, epochs=2)

    derived = trained()
    for older in (store_whole_order, store_addresses):
        with monkeypatch.context() as patch:
            patch.setattr(type(log), "packed", lambda self, layout, older=older: older(packed(self, layout)))
            assert_same_bytes(trained(), derived)
    if engine != "triton":
        return

    def take_stored(self: Any, buffer: Any, banks: Any, *, is_first: bool) -> None:
        addresses, order = waiting.pop(0)
        self._derived.addresses.copy_(torch.from_numpy(addresses))
        self._derived.order.copy_(torch.from_numpy(order))

    waiting = [
        (batch.addresses.copy(), batch.order.copy())
        for batch in log.packed(layout)
        if placement != "paper" or not batch.has_cold_rows
    ]
    waiting *= 2
    monkeypatch.setattr(GpuRows, "_begin_slice", take_stored)
    assert_same_bytes(trained(), derived)
    assert not waiting


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("mixed", [False, True])
def test_an_older_artifact_trains_and_scores_the_same(mixed: bool, version: int, tmp_path: Path) -> None:
    setting = Setting(tmp_path, mixed=mixed)
    older = write_older(setting.packed, tmp_path / "older", version)
    assert (older.manifest.format_version, setting.packed.manifest.format_version) == (version, 4)
    assert older.fingerprints[0] == older.manifest.fingerprint
    assert set(older.fingerprints) == set(setting.packed.fingerprints)
    config, found = TrainConfig(batch_size=32, epochs=2, optimizer="adam"), []
    for packed in (setting.packed, older):
        setting.packed = packed
        trainer = setting.trainer(None, config)
        found.append((trainer.fit(), tensors_of(trainer)))
    assert_same_bytes(found[0][1], found[1][1])
    assert found[0][0]["test"] == found[1][0]["test"]


@pytest.fixture(scope="module", params=[2, 3])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe and its run, whose batches are of an older format, and a training of them."""
    folder = tmp_path_factory.mktemp("older")
    (folder / "log.csv").write_text(csv_text(zipf_inputs(500)))
    log = {"categorical": ["user", "item"], "dense": ["price"], "train": "log.csv"}
    recipe = write_recipe(folder, "recipe.toml", log=log, hot={"budget": "64KiB"})
    run = folder / "run"
    for stage in ("ingest", "profile", "calibrate", "pack"):
        succeed(stage, recipe, "--out", run)
    write_older(PackedDataset(run / "packed"), folder / "older", request.param)
    shutil.rmtree(run / "packed")
    (folder / "older").rename(run / "packed")
    said = succeed("run", recipe, "--out", run).stderr
    assert "pack: already there" in said
    return folder


def facts(run: Path, kind: str) -> Any:
    return json.loads((run / kind / "manifest.json").read_text())


def test_older_batches_are_used_as_they_are(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    recipe, run = tmp_path / "copy" / "recipe.toml", tmp_path / "copy" / "run"
    packed, checkpoint = facts(run, "packed"), facts(run, "checkpoint")
    assert packed["format_version"] in (2, 3)
    assert checkpoint["parents"]["packed"] == packed["fingerprint"]
    assert "upgrade: nothing to do" in succeed("upgrade", run).stderr
    assert succeed("run", recipe, "--out", run).stderr.count("already there") == 5
    # Made again, they are of format 4; what was trained stays, under its name.
    shutil.rmtree(run / "packed")
    said = succeed("run", recipe, "--out", run).stderr
    assert said.count("already there") == 4
    assert "train: already there" in said
    assert facts(run, "packed")["format_version"] == 4
    kept = {file.name for file in (run / "packed" / "train").iterdir()}
    assert "order_low.npy" in kept
    assert not kept & {"order.npy", "addresses.npy", "order_high.npy"}
    assert facts(run, "checkpoint") == checkpoint
    # Two epochs more continue it.
    said = succeed("run", recipe, "--out", run, "--set", "train.epochs=3", "--json")
    assert facts(run, "checkpoint")["parents"]["packed"] == packed["fingerprint"]
    assert json.loads(said.stdout)["train"]["num_inputs"] == 3 * facts(run, "packed")["summary"]["num_inputs"]


def test_older_batches_of_another_recipe_are_replaced(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    recipe, run = tmp_path / "copy" / "recipe.toml", tmp_path / "copy" / "run"
    change = ("--set", "hot.budget=32KiB")
    fault(fae("run", recipe, "--out", run, *change), "replace it with --replace")
    succeed("run", recipe, "--out", run, *change, "--replace")
    assert facts(run, "packed")["format_version"] == 4
    assert facts(run, "checkpoint")["parents"]["packed"] == facts(run, "packed")["fingerprint"]


def test_format_1_is_still_refused(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    path = tmp_path / "copy" / "run" / "packed" / "manifest.json"
    path.write_text(json.dumps({**facts(tmp_path / "copy" / "run", "packed"), "format_version": 1}))
    refused = fae("run", tmp_path / "copy" / "recipe.toml", "--out", tmp_path / "copy" / "run")
    fault(refused, "packed format 1, expected packed format 4")
