"""A run folder in Python: what it prints, what it opens, and a calibration beside the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fae

from commands import contents, write_log, write_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> fae.RunFolder:
    base = tmp_path_factory.mktemp("run")
    write_log(base, 400)
    run = fae.RunFolder(fae.load_recipe(write_recipe(base)), base / "run", device="cpu")
    assert repr(run).endswith("artifacts of: none)")
    run.run()
    return run


def test_it_prints_what_it_has(folder: fae.RunFolder) -> None:
    assert "artifacts of: ingest, profile, calibrate, pack, train" in repr(folder)
    assert "placement='tiered'" in repr(folder)


def test_a_record_prints_as_one_line_and_is_json(folder: fae.RunFolder) -> None:
    record = folder.run()
    assert "\n" not in repr(record)
    assert f"test AUC {record['test']['auc']:.5f}" in repr(record)
    assert json.loads(json.dumps(record))["test"] == record["test"]


def test_a_calibration_beside_the_run_leaves_it_alone(folder: fae.RunFolder, tmp_path: Path) -> None:
    before = contents(folder.out)
    larger = fae.load_recipe(folder.recipe.base / "recipe.toml", ["hot.budget=6KiB"])
    summary = fae.RunFolder(larger, folder.out, device="cpu").calibrate_into(tmp_path / "hot_set")
    assert summary["budget_bytes"] == 6 * 1024
    assert folder.open_hot_set().summary["budget_bytes"] == 4 * 1024
    assert contents(folder.out) == before


def test_fresh_embeddings_take_the_runs_own_hot_set_and_device(folder: fae.RunFolder) -> None:
    embeddings = folder.open_embeddings(device="cpu")
    assert embeddings.device.type == "cpu"
    assert embeddings.layout.num_hot == folder.open_hot_set().layout.num_hot


def test_a_stage_returns_its_figures_beside_where_they_are(folder: fae.RunFolder) -> None:
    done = folder.stage("calibrate")
    assert sorted(done) == ["fingerprint", "path", "seconds", "skipped", "stage", "summary"]
    assert done["path"] == str(folder.out / "hot_set")
    assert done["summary"]["budget_bytes"] == folder.open_hot_set().summary["budget_bytes"]
    assert folder.stage("calibrate") == {**done, "skipped": True}


def test_a_stage_that_does_not_exist_is_named(folder: fae.RunFolder) -> None:
    with pytest.raises(fae.FaeError, match="no stage 'bake'; the stages are ingest, profile"):
        folder.stage("bake")
