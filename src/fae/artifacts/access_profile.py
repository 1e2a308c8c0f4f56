"""The access profile: accesses of every row by a sample of the training inputs, memory-mapped.

The bytes are described in ``formats/access_profile.md``.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fae.artifacts.manifest import Manifest, read_manifest
from fae.core.units import format_count

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

    Raises
    ------
    ArtifactError
        If it is missing, damaged or of another format.
    """

    def __init__(self, path: Path, *, command: str = COMMAND) -> None:
        self.path = path
        self.manifest: Manifest = read_manifest(path, KIND, FORMAT_VERSION, command=command)
        self.num_inputs: int = self.manifest.summary["num_inputs"]
        self.is_exact: bool = self.manifest.summary["is_exact"]

    def __repr__(self) -> str:
        summary = self.manifest.summary
        total = format_count(summary["num_training_inputs"])
        read = f"all {total}" if self.is_exact else f"{format_count(self.num_inputs)} of {total}"
        return f"AccessProfile({str(self.path)!r}: {read} training inputs, {len(summary['tables'])} tables)"

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
