"""The list of measured cells: what is there is not measured again, and other settings are refused."""

from __future__ import annotations

import json
import math

import pytest

from fae.bench.cells import Cells
from fae.core.errors import ArtifactError


def test_a_second_start_measures_what_is_missing(tmp_path):
    path, calls = tmp_path / "study.json", []

    def work() -> dict[str, float]:
        calls.append(1)
        return {"seconds": float(len(calls)), "loss": math.nan}

    first = Cells(path, {"scale": 0.1, "sizes": (1, 2)}, header={"commit": "a"})
    assert first.missing(["x", "y"]) == ["x", "y"]
    assert first.measure("x", work)["seconds"] == 1.0
    again = Cells(path, {"scale": 0.1, "sizes": (1, 2)}, header={"commit": "b"})
    assert again.missing(["x", "y"]) == ["y"]
    assert again.measure("x", work)["seconds"] == 1.0
    assert again.measure("y", work)["seconds"] == 2.0
    assert list(again) == ["x", "y"]
    assert json.loads(path.read_text())["cells"]["x"] == {"seconds": 1.0, "loss": None}
    assert json.loads(path.read_text())["commit"] == "b"


def test_samples_are_saved_one_by_one(tmp_path):
    path = tmp_path / "study.json"
    cells = Cells(path, {})
    cells.add_sample("a", {"rate": 1.0})
    cells.sample_cell("b")["why"] = "no GPU"
    cells.add_sample("a", {"rate": 2.0})
    again = Cells(path, {})
    assert again["a"]["samples"] == [{"rate": 1.0}, {"rate": 2.0}]
    assert again["b"] == {"samples": [], "why": "no GPU"}
    assert again.missing(["a", "b", "c"], samples=2) == ["b", "c"]
    assert again.missing(["a", "b", "c"]) == ["c"]


def test_other_settings_are_refused(tmp_path):
    path = tmp_path / "study.json"
    Cells(path, {"seed": 1, "scale": 0.5}).put("a", {})
    with pytest.raises(ArtifactError, match="measured with seed = 1 and not 2; choose another --out"):
        Cells(path, {"seed": 2, "scale": 0.5})
    with pytest.raises(ArtifactError, match="measured with mode = None and not 'fast'"):
        Cells(path, {"seed": 1, "scale": 0.5, "mode": "fast"})
    older = Cells(path, {"seed": 1, "scale": 0.5, "mode": "fast"}, older_settings={"mode": "fast"})
    assert list(older) == ["a"]


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"settings": {}, "cells": []}'])
def test_a_foreign_file_is_refused(tmp_path, text):
    path = tmp_path / "study.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match="is no record of this study; choose another --out"):
        Cells(path, {}, what="record of this study")


def test_figures_that_follow_are_saved_with_the_cells(tmp_path):
    def total(record):
        record["total"] = sum(cell["seconds"] for cell in record["cells"].values())

    cells = Cells(tmp_path / "study.json", {}, before_saving=total)
    cells.put("a", {"seconds": 2})
    cells.put("b", {"seconds": 3})
    assert json.loads((tmp_path / "study.json").read_text())["total"] == 5


def test_the_time_limit(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    unlimited, limited = Cells(tmp_path / "a.json", {}), Cells(tmp_path / "b.json", {}, until_seconds=10)
    clock[0] = 111.0
    assert limited.late()
    assert not unlimited.late()
