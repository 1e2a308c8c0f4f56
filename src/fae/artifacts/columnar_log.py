"""The artifact `log`: the columnar log that ingest writes and every later stage reads, memory-mapped.

Byte by byte: formats/columnar_log.md. Inputs are in log order; every split is one range of them, the training split
comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.manifest import Manifest, read_manifest
from fae.core.pooling import Pooling

KIND = "log"
FORMAT_VERSION = 2
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class FeatureSchema:
    """One categorical feature and its table.

    Attributes
    ----------
    num_embeddings
        Rows of the table, the reserved one included.
    length
        Slots of an input (L); 1 for a plain column.
    unknown_id
        The reserved id of rare and unknown values.
    encoded
        True: vocabulary ids are the log's own numbers. False: ids are in order of popularity; in a log that continues
        another, the ids of the other log come first, and new values follow in order of popularity.
    """

    name: str
    num_embeddings: int
    length: int = 1
    pooling: Pooling = "sum"
    unknown_id: int = -1
    encoded: bool = False


def first_slots(features: Sequence[FeatureSchema]) -> list[int]:
    """First slot of each feature; the last entry is the number of slots S.

    >>> first_slots([FeatureSchema(name="a", num_embeddings=3), FeatureSchema(name="b", num_embeddings=3, length=4)])
    [0, 1, 5]
    """
    slots = [0]
    for feature in features:
        slots.append(slots[-1] + feature.length)
    return slots


class ColumnarLog:
    """An opened columnar log. Arrays are read-only memory maps; opening reads no input.

    Raises
    ------
    ArtifactError
        If there is no columnar log at `path`, or it is damaged; the message names `command`.
    """

    def __init__(self, path: Path, *, command: str = "fae ingest RECIPE.toml") -> None:
        self.path = path
        self.manifest: Manifest = read_manifest(path, KIND, FORMAT_VERSION, command=command)
        summary: dict[str, Any] = self.manifest.summary
        self.features = tuple(FeatureSchema(**feature) for feature in summary["features"])
        self.dense_names: tuple[str, ...] = tuple(summary["dense"])
        self.num_inputs: int = summary["num_inputs"]
        self._splits: dict[str, list[int]] = summary["splits"]

    def split(self, name: str) -> tuple[int, int]:
        """``(start, stop)`` of ``"train"``, ``"validation"`` or ``"test"`` in log order."""
        start, stop = self._splits[name]
        return start, stop

    @cached_property
    def ids(self) -> npt.NDArray[np.int32]:
        """int32 ``[num_inputs, S]``, -1 in unused slots."""
        array: npt.NDArray[np.int32] = np.load(self.path / "ids.npy", mmap_mode="r")
        return array

    @cached_property
    def dense(self) -> npt.NDArray[np.float32]:
        """float32 ``[num_inputs, K]``."""
        array: npt.NDArray[np.float32] = np.load(self.path / "dense.npy", mmap_mode="r")
        return array

    @cached_property
    def labels(self) -> npt.NDArray[np.uint8]:
        """uint8 ``[num_inputs]``, 0 or 1."""
        array: npt.NDArray[np.uint8] = np.load(self.path / "labels.npy", mmap_mode="r")
        return array

    @cached_property
    def table_offsets(self) -> npt.NDArray[np.int64]:
        """int64 ``[F + 1]``: where each table begins in `counts`."""
        return np.concatenate([[0], np.cumsum([f.num_embeddings for f in self.features])]).astype(np.int64)

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """int64 ``[sum of num_embeddings]``: accesses in the training split."""
        array: npt.NDArray[np.int64] = np.load(self.path / "counts.npy", mmap_mode="r")
        return array
