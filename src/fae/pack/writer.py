"""Files of a split, written while the number of batches is not yet known.

Hot and cold batches arrive alternately, each kind in its own order. Hot batches come first in the files, and their
number is known from the start, so that every batch has its place. `fae.core.npy.NpyWriter` writes a file's header last;
until then the file is not a valid array.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fae.artifacts.batch_arrays import BatchArrays
from fae.core.npy import NpyWriter
from fae.core.threads import run_ranges

Kind = tuple[type[np.generic], tuple[int, ...]]


class BatchFile(Protocol):
    """A file of a split: `fae.core.npy.NpyWriter`, or one that only counts."""

    def append(self, rows: npt.NDArray[Any]) -> object:
        """Write rows behind those that are there."""

    def write(self, first: int, rows: npt.NDArray[Any]) -> object:
        """Write rows from number `first` on."""

    def close(self) -> object:
        """Complete the file."""

    def abandon(self) -> object:
        """Leave it incomplete."""


OpenFile = Callable[[Path, type[np.generic], tuple[int, ...]], BatchFile]
"""Makes a file of a split from its path, the type of its numbers and the shape of a row."""


def _segment_files(kind: str) -> dict[str, Kind]:
    # Names on the disk say block for segment (formats/packed.md).
    return {f"{kind}_block_starts": (np.int32, ()), f"{kind}_block_addresses": (np.int32, ())}


class _ListFiles:
    """Lists of varying length, one file a group and name, with one file of offsets for all.

    Parameters
    ----------
    offsets
        Name of the file of offsets.
    names
        Type and shape of an entry, by name of the files.
    open_file
        As `SplitWriter` has it.
    """

    def __init__(
        self, folder: Path, offsets: str, names: dict[str, Kind], num_groups: int, open_file: OpenFile
    ) -> None:
        self._offsets = open_file(folder / f"{offsets}.npy", np.int64, (num_groups,))
        self._lists = [
            [open_file(folder / f"{name}_{group}.npy", *kind) for group in range(num_groups)]
            for name, kind in names.items()
        ]
        self._totals = np.zeros((1, num_groups), np.int64)
        self._offsets.append(self._totals)

    @property
    def files(self) -> list[BatchFile]:
        """All files."""
        return [self._offsets, *(file for lists in self._lists for file in lists)]

    def put_empty(self, count: int) -> None:
        """Append that many batches with empty lists."""
        self._offsets.append(np.repeat(self._totals, count, axis=0))

    def append(self, offsets: npt.NDArray[np.int64], *lists: Sequence[npt.NDArray[np.generic]]) -> None:
        """Append n batches: int64 ``[n + 1, G]`` offsets from 0, and for each name one list a group."""
        self._offsets.append(offsets[1:] + self._totals)
        self._totals = self._totals + offsets[-1]
        for files, parts in zip(self._lists, lists, strict=True):
            for file, part in zip(files, parts, strict=True):
                file.append(part)


class SplitWriter:
    """Writes the folder of one split; a context manager that completes its files, or abandons them after an error.

    Parameters
    ----------
    num_hot_batches
        Hot batches that will be written; cold batches come after them.
    with_order
        Whether `order` and segments are written.
    with_weights
        Whether inputs have weights.
    """

    def __init__(
        self, folder: Path, *, batch_size: int, num_slots: int, num_dense: int, num_groups: int,
        num_hot_batches: int, with_order: bool, with_weights: bool = False,
    ) -> None:  # fmt: skip
        open_file = self._begin(folder)
        self._next = {"hot": 0, "cold": num_hot_batches}
        self._files: dict[str, BatchFile] = {
            "addresses": open_file(folder / "addresses.npy", np.int32, (batch_size, num_slots)),
            "dense": open_file(folder / "dense.npy", np.float32, (batch_size, num_dense)),
            "inputs": open_file(folder / "inputs.npy", np.int64, (batch_size,)),
            "labels": open_file(folder / "labels.npy", np.float32, (batch_size,)),
            "num_inputs": open_file(folder / "num_inputs.npy", np.int32, ()),
        }
        if with_weights:
            self._files["weights"] = open_file(folder / "weights.npy", np.float32, (batch_size,))
        if with_order:
            # Last, so that two threads write the two large arrays.
            self._files["order"] = open_file(folder / "order.npy", np.int32, (batch_size * num_slots,))
        self._cold_rows = _ListFiles(folder, "cold_offsets", {"cold_rows": (np.int64, ())}, num_groups, open_file)
        # Hot batches have no cold rows, but entries before those of the cold batches.
        self._cold_rows.put_empty(num_hot_batches)
        # Hot and cold batches come alternately: each kind has files for its lists.
        self._segments = {
            kind: (
                _ListFiles(folder, f"{kind}_block_offsets", _segment_files(kind), num_groups, open_file),
                _ListFiles(
                    folder, f"{kind}_long_offsets", {f"{kind}_long_rows": (np.int32, (2,))}, num_groups, open_file
                ),
            )
            for kind in (("hot", "cold") if with_order else ())
        }

    def _begin(self, folder: Path) -> OpenFile:
        folder.mkdir()
        return NpyWriter

    def write(self, kind: str, arrays: BatchArrays) -> None:
        """Write the next ``"hot"`` or ``"cold"`` batches."""
        first = self._next[kind]
        self._next[kind] += len(arrays.num_inputs)
        names = list(self._files)

        def work(start: int, stop: int) -> None:
            for name in names[start:stop]:
                self._files[name].write(first, getattr(arrays, name))

        run_ranges(work, len(names))
        if kind == "cold":
            self._cold_rows.append(arrays.cold_offsets, arrays.cold_rows)
        if self._segments:
            lists, (segments, long_rows) = arrays.segments, self._segments[kind]
            assert lists is not None
            segments.append(lists.offsets, lists.starts, lists.addresses)
            long_rows.append(lists.long_offsets, lists.long_rows)

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lists = [self._cold_rows, *(files for pair in self._segments.values() for files in pair)]
        for file in [*self._files.values(), *(file for each in lists for file in each.files)]:
            if kind is None:
                file.close()
            else:
                file.abandon()
