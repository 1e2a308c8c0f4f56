"""Read provisional ids in blocks of which each thread has a share: long jobs, since short ones wait for one another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fae.core.threads import num_threads, run_ranges

_BYTES_PER_THREAD = 4 * 2**20


class IdRows(Protocol):
    """Rows of provisional ids, int32 ``[n, S]``, in a file (`fae.core.npy.NpyRows`) or in parts."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``n, S``."""

    @property
    def row_bytes(self) -> int:
        """``4 * S``."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> npt.NDArray[np.int32]:
        """Rows ``start .. stop - 1``."""

    def read_into(self, rows: npt.NDArray[np.int32], start: int) -> None:
        """Fill `rows` with those from `start` on."""


def id_blocks(ids: IdRows, start: int, stop: int) -> Iterator[npt.NDArray[np.int32]]:
    """The rows ``start .. stop - 1``, a few megabytes a thread at a time; a block is overwritten by the next one."""
    rows_per_thread = max(1, _BYTES_PER_THREAD // max(1, ids.row_bytes))
    size = min(rows_per_thread * num_threads(), max(stop - start, 0))
    buffer = np.empty((size, int(ids.shape[1])), np.int32)
    for begin in range(start, stop, max(size, 1)):
        block = buffer[: min(size, stop - begin)]

        def read(first: int, last: int, block: npt.NDArray[np.int32] = block, begin: int = begin) -> None:
            ids.read_into(block[first:last], begin + first)

        run_ranges(read, len(block), min_range=rows_per_thread // 4 + 1)
        yield block
