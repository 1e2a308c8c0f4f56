"""The model as it is served: from looked-up rows and dense features to the probability of label 1, by torch.export."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fae.artifacts.columnar_log import FeatureSchema
from fae.embedding.features import FeatureEmbeddings

_EXAMPLE_INPUTS = 3
"""Any number but 1, which torch.export would take for a constant."""


def model_inputs(features: Sequence[FeatureSchema], dims: Sequence[int], num_dense: int) -> list[dict[str, Any]]:
    """What the exported model takes, in order: name, what it holds, shape and type; also of the ONNX model.

    Parameters
    ----------
    features, dims
        The columns (`fae.artifacts.columnar_log.model_features`) and their widths.
    """
    dense = {"name": "dense", "holds": "dense", "shape": ["batch", num_dense], "dtype": "float32"}
    rows = [
        {
            "name": f"rows_{feature.name}", "holds": "rows", "feature": feature.name, "dtype": "float32",
            "shape": ["batch", feature.length, dim] if feature.pooling == "none" else ["batch", dim],
        }
        for feature, dim in zip(features, dims, strict=True)
    ]  # fmt: skip
    lengths = [
        {"name": f"length_{f.name}", "holds": "length", "feature": f.name, "dtype": "int64", "shape": ["batch"]}
        for f in features
        if f.pooling == "none"
    ]
    return [*([dense] if num_dense else []), *rows, *lengths]


def example_inputs(inputs: Sequence[Mapping[str, Any]], count: int = _EXAMPLE_INPUTS) -> dict[str, Tensor]:
    """Inputs of these names, shapes and types, always the same: small numbers, and lengths of 1."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for each in inputs:
        shape = [count, *each["shape"][1:]]
        ones = torch.ones(shape, dtype=torch.int64)
        found[each["name"]] = ones if each["dtype"] == "int64" else torch.randn(shape, generator=generator)
    return found


class ServedModel(nn.Module):
    """A trained model behind one mapping of named inputs (`model_inputs`)."""

    def __init__(self, model: nn.Module, features: Sequence[FeatureSchema]) -> None:
        super().__init__()
        self.model = model
        self._names = [feature.name for feature in features]
        self._sequences = [feature.name for feature in features if feature.pooling == "none"]

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Probability of label 1, float64 ``[B]``: in float32 high ones would all become 1."""
        rows = {name: inputs[f"rows_{name}"] for name in self._names}
        lengths = {name: inputs[f"length_{name}"] for name in self._sequences}
        first = rows[self._names[0]]
        dense = inputs["dense"] if "dense" in inputs else first.new_zeros((first.shape[0], 0))
        logits: Tensor = self.model(dense, _GivenRows(rows, lengths))
        return torch.sigmoid(logits.double())


class _GivenRows(FeatureEmbeddings):
    """Features that were looked up elsewhere; no buffer of a batch behind them, whose size would become a constant."""

    def __init__(self, rows: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> None:
        self._rows, self._given_lengths = rows, lengths

    def __getitem__(self, name: str) -> Tensor:
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def stacked(self) -> Tensor | None:
        return None

    def dot_interaction(self, dense: Tensor) -> Tensor | None:
        return None

    def lengths(self, name: str) -> Tensor:
        return self._given_lengths[name]


def export_program(served: ServedModel, inputs: Sequence[Mapping[str, Any]]) -> Any:
    """The exported program, with any number of inputs a batch from 1 on."""
    example = example_inputs(inputs)
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(
            served.eval(), (example,), dynamic_shapes=({name: {0: batch} for name in example},)
        )  # fmt: skip


def save_program(program: Any, path: Path) -> None:
    """Write ``model.pt2``. A full disk is an `OSError`, where torch's own writer would end in a trace of its stack."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, buffer)
    path.write_bytes(buffer.getbuffer())
