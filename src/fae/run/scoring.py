"""A finished run as a function: from ids and dense features to logits, with the rows and weights it was tested with.

Rows are read where they are: tables are memory-mapped, and only the rows that inputs look up come into memory, so no
table has to fit anywhere. Rows are pooled by the CPU kernels of training; the model runs on the CPU or a GPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fae.artifacts.checksums import check_contents, make_again
from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema, feature_tables, first_slots, model_features
from fae.artifacts.manifest import Manifest
from fae.checkpoint.save_load import load_dense
from fae.core.errors import ArtifactError
from fae.embedding.features import FeatureEmbeddings, FeatureViews, SequenceLengths
from fae.kernels.cpu import CpuGroupKernels
from fae.kernels.geometry import group_geometries
from fae.models.config import model_config
from fae.models.registry import build_model, embedding_dims
from fae.run.context import choose_device
from fae.training.dense_threads import dense_threads
from fae.training.step import Precision, autocast, honoured_precision

BATCH_INPUTS = 2048
"""Inputs scored together. A constant: what a batch holds then depends on the inputs alone, and so do the last bits."""


class Scorer:
    """The model of a finished run, with the rows and weights that its test metrics were computed with.

    Parameters
    ----------
    checkpoint, manifest
        Folder and manifest of the finished training.
    log
        The columnar log it was trained on, for its features.
    device
        Where the model runs: ``"cpu"`` or ``"cuda"``; None takes a GPU where there is one.
    command
        The command that makes the run again, for error messages.
    precision
        Precision of the arithmetic in the model; None takes that of the training.

    Attributes
    ----------
    threads
        Threads for torch while it scores, so that the last bits do not depend on the machine's cores; 0 on a GPU.

    Raises
    ------
    ArtifactError
        If the checkpoint is damaged, or is not of a model of the registry.
    DeviceError
        If a GPU was requested and there is none.
    """

    def __init__(
        self,
        checkpoint: Path,
        manifest: Manifest,
        log: ColumnarLog,
        *,
        device: str | None,
        command: str,
        precision: Precision | None = None,
    ) -> None:
        self.device = torch.device(choose_device(device))
        made_with = manifest.parameters
        if not {"model", "train"} <= made_with.keys():
            raise ArtifactError(
                f"{checkpoint} was not made by `fae run` or `fae train`, so its model is not known; score it in Python "
                "(fae.training.quality.evaluate.predict_split)"
            )
        config, features = model_config(made_with["model"]), log.features
        dims = embedding_dims(config, features)
        columns, owners = model_features(features), feature_tables(features)
        self._slots = first_slots(columns)
        self._lookups = [_TableLookup(column, dims[table]) for column, table in zip(columns, owners, strict=True)]
        tables = map_tables(checkpoint, manifest, log, command=command)
        self._tables = [tables[table] for table in owners]
        self._views = FeatureViews(
            [column.name for column in columns],
            [[index] for index in range(len(columns))],
            [lookup.geometry for lookup in self._lookups],
        )
        self._sequences = SequenceLengths(
            [
                (column.name, first, column.length)
                for column, first in zip(columns, self._slots, strict=False)
                if column.pooling == "none"
            ]
        )
        model = build_model(config, features, len(log.dense_names), seed=0)
        try:
            load_dense(checkpoint, model)
        except (RuntimeError, ValueError, SafetensorError) as error:
            raise ArtifactError(f"the dense weights of {checkpoint} do not fit the model: {error}") from error
        self._model = model.to(self.device).eval()
        self._precision = honoured_precision(self.device, precision or made_with["train"].get("precision", "fp32"))
        asked = int(made_with["train"].get("threads", 0))
        self.threads = dense_threads(self._model, BATCH_INPUTS, asked) if self.device.type == "cpu" else 0

    def logits(self, ids: npt.NDArray[np.int32], dense: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits, float32 ``[n]``, of inputs with ids ``[n, S]`` and dense features ``[n, K]``; n <= `BATCH_INPUTS`."""
        count = len(ids)
        # Padded to one size: a product of another size may add in another order.
        all_ids = np.full((BATCH_INPUTS, self._slots[-1]), -1, np.int32)
        all_dense = np.zeros((BATCH_INPUTS, dense.shape[1]), np.float32)
        all_ids[:count], all_dense[:count] = ids, dense
        buffers = [
            lookup(np.ascontiguousarray(all_ids[:, first:last]), weight).to(self.device)
            for lookup, weight, first, last in zip(
                self._lookups, self._tables, self._slots[:-1], self._slots[1:], strict=True
            )
        ]
        features = FeatureEmbeddings(self._views, buffers, self._sequences.read(all_ids, self.device))
        with torch.no_grad(), autocast(self.device, self._precision):
            output = self._model(torch.from_numpy(all_dense).to(self.device), features)
        result: npt.NDArray[np.float32] = output[:count].float().cpu().numpy().copy()
        return result


class _TableLookup:
    """Reads and pools the rows of one feature."""

    def __init__(self, feature: FeatureSchema, dim: int) -> None:
        (self.geometry,) = group_geometries([feature.length], [feature.pooling], [dim])
        self._kernels = CpuGroupKernels(self.geometry, BATCH_INPUTS, "sgd")
        self._size = feature.num_embeddings
        self._out = torch.zeros((BATCH_INPUTS, self.geometry.width))

    def __call__(self, ids: npt.NDArray[np.int32], weight: Tensor) -> Tensor:
        """Pooled rows, float32 ``[B, W]``, of ids ``[B, L]``; valid until the next call."""
        # Every row counts as hot: its number is its address.
        self._kernels.lookup(ids, self._size, weight, self._out, shift=0, cold_rows=np.zeros(0, np.int64))
        return self._out


def map_tables(checkpoint: Path, manifest: Manifest, log: ColumnarLog, *, command: str) -> list[Tensor]:
    """The rows of every table of a finished run, float32 ``[num_embeddings, D]``, memory-mapped.

    Raises
    ------
    ArtifactError
        If a file of the checkpoint is damaged.
    """
    check_contents(checkpoint, manifest.files, "", command=command)
    dims = embedding_dims(model_config(manifest.parameters["model"]), log.features)
    return [
        _open_table(checkpoint / "tables" / f"{index}.safetensors", feature, dim, command)
        for index, (feature, dim) in enumerate(zip(log.features, dims, strict=True))
    ]


def _open_table(path: Path, feature: FeatureSchema, dim: int, command: str) -> Tensor:
    """The rows of a table, float32 ``[num_embeddings, D]``, memory-mapped."""
    try:
        with safe_open(path, framework="pt") as file:
            weight: Tensor = file.get_tensor("weight")
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); {make_again(path.parents[1], command)}") from error
    if weight.dtype != torch.float32 or tuple(weight.shape) != (feature.num_embeddings, dim):
        raise ArtifactError(
            f"{path} holds {weight.dtype} {list(weight.shape)} for {feature.name!r}, expected torch.float32 "
            f"[{feature.num_embeddings}, {dim}]; {make_again(path.parents[1], command)}"
        )
    return weight


def unknown_counts(
    ids: npt.NDArray[np.int32], features: Sequence[FeatureSchema]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Lookups of each feature in ``ids [n, S]``, and how many of them have the reserved id: int64 ``[F]`` twice."""
    slots = first_slots(features)
    parts = [ids[:, first:last] for first, last in itertools.pairwise(slots)]
    used = [np.count_nonzero(part >= 0) for part in parts]
    unknown = [np.count_nonzero(part == feature.unknown_id) for part, feature in zip(parts, features, strict=True)]
    return np.array(used, np.int64), np.array(unknown, np.int64)
