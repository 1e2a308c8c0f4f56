"""Write a Triton Inference Server model repository beside an exported model: raw inputs, and rows where there is ONNX.

``triton/<name>`` takes raw inputs, one JSON object each, through Triton's Python backend and the exported folder around
it. ``triton/<name>_rows`` is the ONNX model, for servers that look rows up themselves.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from fae.exporting.onnx_model import ONNX_FILE

_TYPES = {"float32": "TYPE_FP32", "int64": "TYPE_INT64", "float64": "TYPE_FP64"}
_BATCH_INPUTS = 2048


def write_repository(folder: Path, run: str, schema: Mapping[str, Any]) -> list[str]:
    """Write ``triton/`` in an exported folder; return the names of its models."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", run) or "model"
    place = folder / "triton" / name
    (place / "1").mkdir(parents=True)
    (place / "config.pbtxt").write_text(raw_config(name))
    source = package_files("fae.exporting.standalone").joinpath("triton_model.py").read_text()
    (place / "1" / "model.py").write_text(source.replace("fae.exporting.standalone.", ""))
    if not (folder / ONNX_FILE).exists():
        return [name]
    rows = folder / "triton" / f"{name}_rows"
    (rows / "1").mkdir(parents=True)
    (rows / "config.pbtxt").write_text(rows_config(f"{name}_rows", schema["model"]["inputs"]))
    shutil.copyfile(folder / ONNX_FILE, rows / "1" / ONNX_FILE)
    return [name, f"{name}_rows"]


def raw_config(name: str) -> str:
    """``config.pbtxt`` of the model that takes raw inputs."""
    return _config(
        name, "python", [_tensor("input", "TYPE_STRING", [1])],
        'instance_group [ { count: 1 kind: KIND_CPU } ]',
    )  # fmt: skip


def rows_config(name: str, inputs: Sequence[Mapping[str, Any]]) -> str:
    """``config.pbtxt`` of the ONNX model."""
    tensors = [_tensor(each["name"], _TYPES[each["dtype"]], each["shape"][1:]) for each in inputs]
    return _config(name, "onnxruntime", tensors, f'default_model_filename: "{ONNX_FILE}"')


def _config(name: str, backend: str, inputs: Sequence[str], more: str) -> str:
    score = _tensor("score", "TYPE_FP64", [1] if backend == "python" else [])
    tensors = ",\n".join(inputs)
    return (
        f"name: {json.dumps(name)}\nbackend: {json.dumps(backend)}\nmax_batch_size: {_BATCH_INPUTS}\n"
        f"input [\n{tensors}\n]\noutput [\n{score}\n]\ndynamic_batching {{ }}\n{more}\n"
    )


def _tensor(name: str, kind: str, dims: Sequence[int]) -> str:
    """One tensor without its batch dimension; one number an input has the dimensions [1] for Triton alone."""
    shape = f"dims: [ {', '.join(map(str, dims))} ]" if dims else "dims: [ 1 ]\n    reshape: { shape: [ ] }"
    return f"  {{\n    name: {json.dumps(name)}\n    data_type: {kind}\n    {shape}\n  }}"
