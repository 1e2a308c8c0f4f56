"""Runs of `export_cases`, each trained and exported once for all tests here: read them, never write them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from export_cases import CASES
from fae.exporting.export_run import export

WITH_ONNX = ("deepfm", "dcnv2", "wide_deep", "tbsm")
"""Cases whose export has ONNX too, where its packages are there; tests compare the bytes of that of dlrm."""


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """From the name of a case to a folder with its log, its ``run`` and ``served``."""
    made: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            onnx = name in WITH_ONNX and all(importlib.util.find_spec(each) for each in ("onnxruntime", "onnxscript"))
            export(CASES[name].run(made[name]), made[name] / "served", onnx=onnx)
        return made[name]

    return find
