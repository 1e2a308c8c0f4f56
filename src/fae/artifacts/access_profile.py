"""The access profile: accesses of every row by a sample of the training inputs, memory-mapped.

The bytes are described in ``formats/access_profile.md``.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fae.artifacts.checksums import check_contents, damaged
from fae.artifacts.columnar_log import MOST_ROWS, ColumnarLog
from fae.artifacts.manifest import Manifest, read_manifest
from fae.artifacts.schema import Fields, open_array
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
        self._command = command
        fields = Fields(self.manifest.summary, "summary", path, command)
        self.num_inputs: int = fields.whole("num_inputs")
        self.is_exact: bool = fields.flag("is_exact")
        self._split = fields.wholes("training_split", count=2)
        fields.whole("num_training_inputs", self.num_inputs)
        self._num_rows = 0
        for table in fields.parts("tables"):
            table.text("name"), table.whole("accesses"), table.whole("num_accessed_rows")
            self._num_rows += table.whole("num_embeddings", 1, MOST_ROWS)

    def __repr__(self) -> str:
        summary = self.manifest.summary
        total = format_count(summary["num_training_inputs"])
        read = f"all {total}" if self.is_exact else f"{format_count(self.num_inputs)} of {total}"
        return f"AccessProfile({str(self.path)!r}: {read} training inputs, {len(summary['tables'])} tables)"

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """int64 ``[sum of num_embeddings]``: accesses of each row by the sample, table by table."""
        array: npt.NDArray[np.int64] = self._open("counts.npy", self._num_rows)
        if array.size and array.min() < 0:
            raise damaged(self.path, "counts.npy", self._command, "it has counts below 0")
        return array

    @cached_property
    def indices(self) -> npt.NDArray[np.int64]:
        """int64 ``[num_inputs]``, ascending: the inputs of the log that were read."""
        if self.is_exact:
            return np.arange(*self._split, dtype=np.int64)
        array: npt.NDArray[np.int64] = self._open("indices.npy", self.num_inputs)
        start, stop = self._split
        if array.size and (array[0] < start or array[-1] >= stop or (np.diff(array) <= 0).any()):
            raise damaged(self.path, "indices.npy", self._command, "its inputs do not ascend in the training split")
        return array

    def check_match(self, log: ColumnarLog) -> None:
        """Refuse a profile of other inputs or tables than the log's.

        Raises
        ------
        ArtifactError
            If they differ.
        """
        rows = sum(feature.num_embeddings for feature in log.features)
        if (tuple(self._split), self._num_rows) != (log.split("train"), rows):
            raise damaged(self.path, "manifest.json", self._command, f"it is of other inputs or tables than {log.path}")

    def _open(self, name: str, length: int) -> npt.NDArray[np.int64]:
        array = open_array(self.path, name, np.int64, (length,), self._command)
        check_contents(self.path, self.manifest.files, name, command=self._command)
        return array
