"""What is known of dense columns beside their numbers: what is missing, what log1p made 0, and how large they are.

Which values are missing is kept as bits beside the rows until the splits are known, in ``work/missing.npy`` of the
unfinished log: uint8 ``[n, ceil(K / 8)]``, bit j of a row, the lowest first, belongs to dense column j.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.npy import NpyRows

MISSING_ROWS = "work/missing"
"""Name of the array of rows."""
_ROWS_AT_ONCE = 1 << 18
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.int64)
"""int64 ``[256, 8]``: the bits of each byte."""


def num_missing_bytes(num_dense: int) -> int:
    """Bytes of a row of `MISSING_ROWS`.

    >>> num_missing_bytes(0), num_missing_bytes(8), num_missing_bytes(13)
    (0, 1, 2)
    """
    return -(-num_dense // 8)


def pack_missing(missing: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Bits of bool ``[n, K]`` as rows of `MISSING_ROWS`."""
    return np.packbits(missing, axis=1, bitorder="little")


def count_missing(rows: NpyRows, splits: Mapping[str, Sequence[int]], num_dense: int) -> dict[str, list[int]]:
    """How many inputs of each split lack each dense column."""
    return {name: _count_range(rows, start, stop, num_dense) for name, (start, stop) in splits.items()}


def _count_range(rows: NpyRows, start: int, stop: int, num_dense: int) -> list[int]:
    found = np.zeros(8 * num_missing_bytes(num_dense), np.int64)
    for begin in range(start, stop if num_dense else start, _ROWS_AT_ONCE):
        part = rows.read(begin, min(begin + _ROWS_AT_ONCE, stop))
        for place in range(part.shape[1]):
            found[8 * place : 8 * place + 8] += np.bincount(part[:, place], minlength=256) @ _BITS
    counted: list[int] = found[:num_dense].tolist()
    return counted


class DenseFacts:
    """Sums over all inputs that the first pass has read.

    Attributes
    ----------
    state
        JSON values, kept with the marks of ingest: for each dense column ``vanished``, how many negative values became
        0, and ``largest``, the largest absolute value behind the transform.
    """

    def __init__(self, num_dense: int, state: dict[str, Any] | None = None) -> None:
        self.state: dict[str, Any] = state or {"vanished": [0] * num_dense, "largest": [0.0] * num_dense}

    def add(self, vanished: npt.NDArray[np.int64], largest: npt.NDArray[np.float64]) -> None:
        """Take note of the next chunk: a number for each dense column, of its `DenseColumn`."""
        self.state["vanished"] = (np.array(self.state["vanished"], np.int64) + vanished).tolist()
        self.state["largest"] = np.maximum(self.state["largest"], largest).tolist()
