"""The format page suffices: scores of golden.parquet by numpy, from the page and schema.json, with no code of FAE."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import torch

Array = npt.NDArray[np.float32]


def text_of(value: Any, missing: list[str]) -> str:
    """Rules ``text`` and ``missing``."""
    if isinstance(value, bool) or value is None:
        return {None: "", True: "true", False: "false"}[value]
    text = str(int(value)) if isinstance(value, float) else str(value)
    return "" if text in missing else text


def read_weight(path: Path) -> Array:
    """The tensor ``weight`` of a safetensors file: the header's length, the header as JSON, then the bytes."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    facts = json.loads(data[8:start])["weight"]
    first, last = facts["data_offsets"]
    return np.frombuffer(data[start + first : start + last], "<f4").reshape(facts["shape"])


def dense_of(values: list[Any], feature: dict[str, Any], missing: list[str]) -> Array:
    """Rule ``dense``, of log1p."""
    known = [value is not None and str(value) not in missing for value in values]
    x = np.array([float(value) if here else 0.0 for value, here in zip(values, known, strict=True)])
    x = np.clip(x, feature["low"], feature["high"]) if feature["low"] is not None or feature["high"] is not None else x
    assert feature["transform"] == "log1p"
    return np.where(known, np.log1p(np.maximum(x, 0)), 0).astype(np.float32)


def layers(x: Array, weights: dict[str, Array], name: str, *, last_relu: bool) -> Array:
    numbers = sorted(int(key.split(".")[-2]) for key in weights if key.startswith(f"model.{name}.") and "bias" in key)
    for at in numbers:
        x = x @ weights[f"model.{name}.{at}.weight"].T + weights[f"model.{name}.{at}.bias"]
        x = np.maximum(x, 0) if at != numbers[-1] or last_relu else x
    return x


def dlrm_scores(folder: Path) -> npt.NDArray[np.float64]:
    schema = json.loads((folder / "schema.json").read_text())
    golden, missing = pq.read_table(folder / "golden.parquet").to_pydict(), schema["input"]["missing"]
    tables = {table["name"]: table for table in schema["tables"]}
    vectors = []
    for feature in schema["features"]:
        table = tables[feature["table"]]
        vocabulary = pq.read_table(folder / table["vocabulary"]).to_pydict()
        ids = dict(zip(vocabulary["value"], vocabulary["id"], strict=True))
        texts = [text_of(value, missing) for value in golden[feature["column"]]]
        vectors.append(read_weight(folder / table["rows"])[[ids.get(text, table["unknown_id"]) for text in texts]])
    dense = [dense_of(golden[each["column"]], each, missing) for each in schema["dense"]]
    program = torch.export.load(folder / schema["model"]["file"])
    weights = {name: tensor.detach().numpy() for name, tensor in program.state_dict.items()}
    direct = np.concatenate(vectors, 1)
    if dense:
        direct = layers(np.stack(dense, 1), weights, "bottom", last_relu=True)
        vectors = [direct, *vectors]
    stacked = np.stack(vectors, 1)
    products = stacked @ stacked.transpose(0, 2, 1)
    rows, columns = np.tril_indices(len(vectors), -1)
    logits = layers(np.concatenate([direct, products[:, rows, columns]], 1), weights, "top", last_relu=False)[:, 0]
    return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64))))


@pytest.mark.parametrize("name", ["dlrm", "frappe"])
def test_numpy_gives_the_golden_scores(exported: Callable[[str], Path], name: str) -> None:
    """`frappe` has that log's shape: ten columns of text and no dense feature."""
    folder = exported(name) / "served"
    found = dlrm_scores(folder)
    expected = pq.read_table(folder / "golden.parquet").column("score").to_numpy()
    assert len(found) > 20
    assert np.abs(found - expected).max() < 1e-6
