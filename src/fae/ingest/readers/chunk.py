"""What a reader yields: chunks of typed columns, and where the columns that a recipe names are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.config import nearest
from fae.core.errors import LogError
from fae.ingest.config import LogConfig


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some consecutive inputs of one file.

    Attributes
    ----------
    label
        Arrow array of any type.
    dense, categorical
        Arrow arrays in the order of ``LogConfig.dense_columns()`` and ``LogConfig.columns()``. Text files give float64
        and text; Parquet gives what it holds.
    locate
        From a row of this chunk to the place a person can open: ``"log.csv.gz, line 17"``. May read the file again.
    raw_bytes
        Bytes of the file, as it is on disk, that were read for this chunk.
    days
        Avazu: text that orders the inputs by day.
    split
        Taobao: the split that the inputs belong to.
    """

    num_inputs: int
    label: Any
    dense: tuple[Any, ...]
    categorical: tuple[Any, ...]
    locate: Callable[[int], str]
    raw_bytes: int
    days: Any = None
    split: str = ""


def column_positions(config: LogConfig, header: list[str], path: Path) -> list[int]:
    """Where the label, the dense and the categorical columns stand in `header`.

    Raises
    ------
    LogError
        If one is not there (naming its nearest neighbour) or is there more than once.
    """
    positions = []
    for name in (config.label_column(), *config.dense_columns(), *(column.name for column in config.columns())):
        count = header.count(name)
        if count == 0:
            raise LogError(f"{path}: there is no column {name!r}; {nearest(name, [cell for cell in header if cell])}")
        if count > 1:
            raise LogError(f"{path}: the column {name!r} stands {count} times in the header; give each its own name")
        positions.append(header.index(name))
    return positions


@dataclass(frozen=True, kw_only=True)
class CriteoChunk:
    """Some consecutive inputs of one file, n of them, parsed.

    Attributes
    ----------
    labels, dense
        uint8 ``[n]`` and float32 ``[n, 13]``, transformed: final.
    keys
        int64 ``[26, n]``: ids as `fae.ingest.hex_vocabulary` has them.
    raw_bytes
        Bytes of the file, as it is on disk, that were read for this chunk.
    """

    labels: npt.NDArray[np.uint8]
    dense: npt.NDArray[np.float32]
    keys: npt.NDArray[np.int64]
    raw_bytes: int

    @property
    def num_inputs(self) -> int:
        """n."""
        return len(self.labels)
