"""Files of a split, written while their length is not yet known.

Place in the flow: hot and cold batches arrive at once, each kind in its own order; hot ones stand first, and how many
they will be is known, so every batch has its place. Invariant: a ``.npy`` header is written last, with the final
shape; until then the file is not a valid array. Writes go through the operating system's calls and not through a
writable map, because a full disk must be an error here and not a signal that ends the process.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from fae.core.threads import run_ranges
from fae.data.npy import npy_header, write_rows
from fae.packing.dataset import BatchArrays


class GrowingArray:
    """A ``.npy`` file whose first axis grows.

    Parameters
    ----------
    shape
        Of one entry.
    """

    def __init__(self, path: Path, kind: npt.DTypeLike, shape: tuple[int, ...] = ()) -> None:
        self._kind, self._shape = np.dtype(kind).newbyteorder("<"), shape
        self._file = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o666)
        self._length = 0

    def put(self, index: int, values: npt.NDArray[np.generic]) -> None:
        """Write entries ``[index, index + len(values))``."""
        write_rows(self._file, index, np.ascontiguousarray(values, self._kind))
        self._length = max(self._length, index + len(values))

    def append(self, values: npt.NDArray[np.generic]) -> None:
        """Write entries behind the last one."""
        self.put(self._length, values)

    def close(self) -> None:
        """Write the header and close the file."""
        os.pwrite(self._file, npy_header(self._kind, (self._length, *self._shape)), 0)
        self.abandon()

    def abandon(self) -> None:
        """Close the file as it is."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class SplitWriter:
    """The folder of one split; a context manager that finishes its files, or abandons them after an error.

    Parameters
    ----------
    num_hot_batches
        Batches that will come as hot: cold ones stand behind them.
    with_order
        Whether `order` is kept.
    """

    def __init__(
        self, folder: Path, *, batch_size: int, num_slots: int, num_dense: int, num_groups: int,
        num_hot_batches: int, with_order: bool,
    ) -> None:  # fmt: skip
        folder.mkdir()
        self._next = {"hot": 0, "cold": num_hot_batches}
        self._cold_totals = np.zeros(num_groups, np.int64)
        self._files = {
            "addresses": GrowingArray(folder / "addresses.npy", np.int32, (batch_size, num_slots)),
            "dense": GrowingArray(folder / "dense.npy", np.float32, (batch_size, num_dense)),
            "inputs": GrowingArray(folder / "inputs.npy", np.int64, (batch_size,)),
            "labels": GrowingArray(folder / "labels.npy", np.float32, (batch_size,)),
            "num_inputs": GrowingArray(folder / "num_inputs.npy", np.int32),
        }
        if with_order:
            # Last, so that two threads write the two large arrays.
            self._files["order"] = GrowingArray(folder / "order.npy", np.int32, (batch_size * num_slots,))
        self._cold_rows = [GrowingArray(folder / f"cold_rows_{group}.npy", np.int64) for group in range(num_groups)]
        self._cold_offsets = GrowingArray(folder / "cold_offsets.npy", np.int64, (num_groups,))
        self._cold_offsets.put(0, np.zeros((num_hot_batches + 1, num_groups), np.int64))

    def write(self, kind: str, arrays: BatchArrays) -> None:
        """Write the next ``"hot"`` or ``"cold"`` batches."""
        first = self._next[kind]
        self._next[kind] += len(arrays.num_inputs)
        names = list(self._files)

        def work(start: int, stop: int) -> None:
            for name in names[start:stop]:
                self._files[name].put(first, getattr(arrays, name))

        run_ranges(work, len(names))
        if kind == "cold":
            self._cold_offsets.put(first + 1, arrays.cold_offsets[1:] + self._cold_totals)
            self._cold_totals += arrays.cold_offsets[-1]
            for file, rows in zip(self._cold_rows, arrays.cold_rows, strict=True):
                file.append(rows)

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in [*self._files.values(), *self._cold_rows, self._cold_offsets]:
            if kind is None:
                file.close()
            else:
                file.abandon()
