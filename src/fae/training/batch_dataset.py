"""Packed batches as a `torch.utils.data.Dataset`, for a training loop that has embeddings of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fae.artifacts.columnar_log import SPLITS, ColumnarLog, first_slots, model_features
from fae.artifacts.manifest import require_parent
from fae.artifacts.packed import BatchSet, PackedDataset
from fae.core.errors import RecipeError

BatchTensors = dict[str, Any]


class BatchDataset(Dataset[BatchTensors]):
    """The batches of one split, each with the vocabulary ids of its inputs instead of addresses.

    An item is a whole batch without its padding, so a `DataLoader` takes ``batch_size=None``; its worker processes
    open the files again. An item is a dictionary of

    * ``dense``: float32 ``[n, K]``;
    * ``ids``: per feature int64 ``[n]``, or ``[n, L]`` for a list column, -1 in unused places;
    * ``labels``: float32 ``[n]``;
    * ``weights``: float32 ``[n]``, 1 where the log has none;
    * ``inputs``: int64 ``[n]``, the inputs' places in the log.

    Parameters
    ----------
    packed
        Packed batches: the artifact or its folder.
    log
        The columnar log that they were packed from.
    split
        ``"train"``, ``"validation"`` or ``"test"``.

    Raises
    ------
    RecipeError
        For another split.
    ArtifactError
        If the batches were packed from another log, or an artifact is damaged.
    """

    def __init__(self, packed: PackedDataset | str | Path, log: ColumnarLog | str | Path, split: str = "train") -> None:
        if split not in SPLITS:
            raise RecipeError(f"split = {split!r} must be one of {', '.join(SPLITS)}")
        self._paths = (
            packed.path if isinstance(packed, PackedDataset) else Path(packed),
            log.path if isinstance(log, ColumnarLog) else Path(log),
        )
        self.split = split
        self._open()

    def _open(self) -> None:
        packed, log = PackedDataset(self._paths[0]), ColumnarLog(self._paths[1])
        require_parent(packed.manifest, log.manifest, command=packed.command)
        self._log = log
        self._batches: BatchSet = getattr(packed, self.split)
        features = model_features(log.features)
        first = first_slots(features)
        self._slots = [(each.name, start, each.length) for each, start in zip(features, first, strict=False)]

    def __getstate__(self) -> dict[str, Any]:
        return {"_paths": tuple(path.absolute() for path in self._paths), "split": self.split}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __repr__(self) -> str:
        return f"BatchDataset({str(self._paths[0])!r}, {self.split}: {self._batches!r})"

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[BatchTensors]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> BatchTensors:
        size = len(self)
        if not -size <= index < size:
            raise IndexError(f"batch {index} of {size}")
        batch = self._batches.batch(index % size)
        count = batch.num_inputs
        inputs = np.array(self._batches.inputs[index % size][:count])
        ids = torch.from_numpy(self._log.ids[inputs].astype(np.int64))
        weights = batch.weights
        return {
            "dense": _copied(batch.dense[:count]),
            "ids": {
                name: ids[:, first] if length == 1 else ids[:, first : first + length]
                for name, first, length in self._slots
            },
            "labels": _copied(batch.labels[:count]),
            "weights": torch.ones(count) if weights is None else _copied(weights[:count]),
            "inputs": torch.from_numpy(inputs),
        }


def _copied(array: Any) -> Tensor:
    """A tensor of its own: the file behind `array` is read-only."""
    return torch.from_numpy(np.array(array))
