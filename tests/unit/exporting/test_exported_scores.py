"""An exported folder scores raw files as `fae predict` does: every model, format, list, transform and unknown value."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from export_cases import CASES
from fae.exporting.standalone.scoring.exported_model import ExportedModel
from fae.run.predictions import predict


def scores_of(folder: Path, path: Path) -> list[float]:
    model = ExportedModel(folder / "served")
    return [score for columns in model.files(path) for score in model.score(columns).tolist()]


@pytest.mark.parametrize("name", CASES)
def test_the_folder_scores_as_the_run_does(exported: Callable[[str], Path], name: str) -> None:
    folder, case = exported(name), CASES[name]
    found = scores_of(folder, folder / case.file)
    expected = predict(folder / "run", [folder / case.file])["scores"]
    assert np.abs(np.array(found) - expected).max() < 1e-6
    assert np.ptp(expected) > 0.05
    if case.odd:
        odd = case.odd_file(folder)
        assert np.abs(np.array(scores_of(folder, odd)) - predict(folder / "run", [odd])["scores"]).max() < 1e-6


@pytest.mark.parametrize("name", CASES)
def test_ids_and_dense_features_are_those_of_the_log(exported: Callable[[str], Path], name: str) -> None:
    from fae.artifacts.columnar_log import ColumnarLog

    folder = exported(name)
    log, model = ColumnarLog(folder / "run" / "log"), ExportedModel(folder / "served")
    encoded = [model.encode(columns) for columns in model.files(folder / CASES[name].file)]
    assert np.array_equal(torch.cat([ids for ids, _ in encoded]).numpy(), log.ids)
    assert np.abs(torch.cat([dense for _, dense in encoded]).numpy() - log.dense).max(initial=0) < 1e-6


@pytest.mark.parametrize("name", CASES)
def test_metrics_and_golden_inputs_are_those_of_the_run(exported: Callable[[str], Path], name: str) -> None:
    folder = exported(name)
    manifest = json.loads((folder / "served" / "manifest.json").read_text())
    test = json.loads((folder / "run" / "run.json").read_text())["test"]
    assert manifest["test"]["exported"]["auc"] == pytest.approx(test["auc"], abs=1e-9)
    assert manifest["test"]["exported"]["log_loss"] == pytest.approx(test["log_loss"], abs=1e-7)
    assert manifest["golden"]["origin"] == ("raw files" if CASES[name].is_old else "vocabulary")
    golden = pq.read_table(folder / "served" / "golden.parquet")
    assert golden.num_rows == manifest["golden"]["num_inputs"] > 20
    assert golden.column("score").to_pylist() == golden.column("run_score").to_pylist()
