"""What readers yield: chunks of typed columns of some consecutive inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.errors import LogError


class NoInputsError(LogError):
    """A file that is fine and holds no inputs, such as an empty part of a log."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some consecutive inputs of one file.

    Attributes
    ----------
    label
        Arrow array ``[n]`` of any type; None where the file is read without labels.
    dense, categorical
        Arrow arrays ``[n]`` in the order of ``LogConfig.dense_columns()`` and ``LogConfig.categorical_columns()``:
        float64 and text from text files, the stored types from Parquet.
    locate
        From a row of this chunk to its place in the file: ``"log.csv.gz, line 17"``. May read the file again.
    raw_bytes
        Bytes of the file, as it is on disk, that were read for this chunk.
    weight, time, split_key
        Arrow arrays ``[n]`` of the columns that ``[log] weight``, ``time`` and ``split_by`` name; None where they name
        none. Text from text files.
    days
        For Avazu: the day of each input, as text that sorts by time.
    split
        For Taobao: name of the split that the inputs belong to.
    """

    num_inputs: int
    label: Any
    dense: tuple[Any, ...]
    categorical: tuple[Any, ...]
    locate: Callable[[int], str]
    raw_bytes: int
    weight: Any = None
    time: Any = None
    split_key: Any = None
    days: Any = None
    split: str = ""


@dataclass(frozen=True, kw_only=True)
class CriteoChunk:
    """Some consecutive inputs of one Criteo file, n of them, already parsed.

    Attributes
    ----------
    labels, dense
        uint8 ``[n]``, None where the file is read without labels, and float32 ``[n, 13]``.
    is_transformed
        Whether `dense` is behind ``log1p``; else it holds the counts, 0 where they are missing.
    keys
        int64 ``[26, n]``: the ids as keys of `fae.ingest.hex_vocabulary`.
    missing
        uint8 ``[n, 2]``: bit j of a row, the lowest first, is 1 where count j is missing.
    raw_bytes
        Bytes of the file, as it is on disk, that were read for this chunk.
    """

    labels: npt.NDArray[np.uint8] | None
    dense: npt.NDArray[np.float32]
    keys: npt.NDArray[np.int64]
    missing: npt.NDArray[np.uint8]
    raw_bytes: int
    is_transformed: bool = True

    @property
    def num_inputs(self) -> int:
        """Number of inputs, n."""
        return len(self.dense)
