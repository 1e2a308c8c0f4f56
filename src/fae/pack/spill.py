"""Inputs on the disk, sorted by bucket chunk by chunk: for training splits that do not fit into memory.

A chunk is written by several threads, a piece each, and the same buckets of all chunks are read back by several, a run
of one column each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.compiled import Int64
from fae.core.npy import NpyRows, NpyWriter
from fae.core.threads import run_jobs, run_ranges
from fae.pack.log_reader import LogInputs

_PIECE_INPUTS = 8192  # gathered and written at a time by a thread
_READ_INPUTS = 32768  # read at a time by a thread

Bools = npt.NDArray[np.bool_]


class Spill:
    """One file a column of inputs; made by the first chunk, and empty until then.

    Parameters
    ----------
    folder
        Where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kinds: dict[str, tuple[Any, tuple[int, ...]]] = {}
        self._files: dict[str, NpyWriter] = {}
        self._first = [0]  # of each chunk, the inputs before it
        self._begins: list[Int64] = []  # of each chunk, where each bucket begins in it

    def append(self, inputs: LogInputs, hot: Bools, positions: Int64, begins: Int64) -> None:
        """Write a chunk.

        Parameters
        ----------
        inputs, hot
            Its inputs, and which of them are hot.
        positions, begins
            Its order by bucket, and where each bucket begins in it.
        """
        if not self._files:
            for name, column in _columns(inputs.take(positions[:0]), hot[:0]).items():
                self._kinds[name] = (column.dtype, column.shape[1:])
                self._files[name] = NpyWriter(self._folder / f"spill_{name}", *self._kinds[name])
        before = self._first[-1]

        def work(start: int, stop: int) -> None:
            for first in range(start * _PIECE_INPUTS, min(stop * _PIECE_INPUTS, len(positions)), _PIECE_INPUTS):
                chosen = positions[first : first + _PIECE_INPUTS]
                for name, column in _columns(inputs.take(chosen), hot[chosen]).items():
                    self._files[name].write(before + first, column)

        run_ranges(work, -(-len(positions) // _PIECE_INPUTS))
        self._first.append(before + len(positions))
        self._begins.append(begins)

    def close(self) -> None:
        """End the writing."""
        for file in self._files.values():
            file.close()

    def abandon(self) -> None:
        """End the writing after an error."""
        for file in self._files.values():
            file.abandon()

    @property
    def sizes(self) -> Int64:
        """int64 ``[num_buckets]``: inputs of each bucket."""
        sizes: Int64 = np.sum([np.diff(begins) for begins in self._begins], axis=0)
        return sizes

    def read(self, first: int, last: int, room: int) -> tuple[LogInputs, Bools, Int64, Int64]:
        """Load the buckets ``[first, last)``, run behind run.

        Parameters
        ----------
        room
            Inputs of unknown content to leave before them.

        Returns
        -------
        Inputs, which of them are hot, and int64 ``[last - first, chunks]`` twice: where each chunk's part of each
        bucket begins among the inputs, and how long it is.
        """
        begins = np.stack(self._begins, axis=1)[first : last + 1]
        run_sizes = begins[-1] - begins[0]
        run_begins = room + np.cumsum(run_sizes) - run_sizes
        total = room + int(run_sizes.sum())
        loaded: dict[str, Any] = {
            name: np.empty((total, *shape), dtype) for name, (dtype, shape) in self._kinds.items()
        }

        def job(name: str, chunk: int) -> Callable[[], None]:
            def work() -> None:
                at, start = int(run_begins[chunk]), self._first[chunk] + int(begins[0, chunk])
                with NpyRows(self._folder / f"spill_{name}") as rows:
                    for done in range(0, int(run_sizes[chunk]), _READ_INPUTS):
                        count = min(_READ_INPUTS, int(run_sizes[chunk]) - done)
                        into = loaded[name][at + done : at + done + count]
                        into[...] = rows.read(start + done, start + done + count).reshape(into.shape)

            return work

        run_jobs([job(name, chunk) for name in loaded for chunk in range(len(run_sizes)) if run_sizes[chunk]])
        hot = loaded.pop("hot")
        return LogInputs(**loaded), hot, run_begins + begins[:-1] - begins[0], np.diff(begins, axis=0)

    def remove(self) -> None:
        """Remove the files."""
        for name in self._files:
            (self._folder / f"spill_{name}").unlink()


def _columns(inputs: LogInputs, hot: Bools) -> dict[str, npt.NDArray[Any]]:
    columns: dict[str, npt.NDArray[Any] | None] = {
        "ids": inputs.ids, "dense": inputs.dense, "labels": inputs.labels, "index": inputs.index, "hot": hot,
        "weights": inputs.weights,
    }  # fmt: skip
    return {name: column for name, column in columns.items() if column is not None}
