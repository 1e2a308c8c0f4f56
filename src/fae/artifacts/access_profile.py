"""The access profile: accesses of every row by a sample of the training inputs, memory-mapped.

Files of the artifact ``profile`` (format version 1): ``counts.npy`` int64 ``[sum of num_embeddings]``, accesses of each
row by the sample, table by table; ``indices.npy`` int64, the sampled inputs, ascending, left out where all were read.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fae.artifacts.manifest import Manifest, read_manifest

KIND = "profile"


FORMAT_VERSION = 1


COMMAND = "fae profile RECIPE.toml"


class AccessProfile:
    """An opened access profile. Arrays are read-only memory maps.

    Attributes
    ----------
    num_inputs
        Inputs of the sample.
    is_exact
        Whether every training input was read.
    """

    def __init__(self, path: Path, *, command: str = COMMAND) -> None:
        self.path = path
        self.manifest: Manifest = read_manifest(path, KIND, FORMAT_VERSION, command=command)
        self.num_inputs: int = self.manifest.summary["num_inputs"]
        self.is_exact: bool = self.manifest.summary["is_exact"]

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """int64 ``[sum of num_embeddings]``: accesses of each row by the sample, table by table."""
        array: npt.NDArray[np.int64] = np.load(self.path / "counts.npy", mmap_mode="r")
        return array

    @cached_property
    def indices(self) -> npt.NDArray[np.int64]:
        """int64 ``[num_inputs]``, ascending: the inputs of the log that were read."""
        if self.is_exact:
            start, stop = self.manifest.summary["training_split"]
            return np.arange(start, stop, dtype=np.int64)
        array: npt.NDArray[np.int64] = np.load(self.path / "indices.npy", mmap_mode="r")
        return array
