"""Files of a split, written while their length is not yet known.

Place in the flow: hot and cold batches arrive at once, each kind in its own order; hot ones stand first, and how many
they will be is known, so every batch has its place. Invariant: a ``.npy`` header is written last, with the final
shape; until then the file is not a valid array. Writes go through the operating system's calls and not through a
writable map, because a full disk must be an error here and not a signal that ends the process.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from fae.artifacts.packed import BatchArrays
from fae.core.npy import npy_header, write_rows_at
from fae.core.threads import run_ranges


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
        write_rows_at(self._file, index, np.ascontiguousarray(values, self._kind))
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


Kind = tuple[type[np.generic], tuple[int, ...]]


def _segment_files(kind: str) -> dict[str, Kind]:
    return {f"{kind}_block_starts": (np.int32, ()), f"{kind}_block_addresses": (np.int32, ())}


class _ListFiles:
    """Lists of varying length, one file a group and name, with one file of offsets for all.

    Parameters
    ----------
    names
        Type and shape of an entry, by name.
    """

    def __init__(self, folder: Path, offsets: str, names: dict[str, Kind], num_groups: int) -> None:
        self._offsets = GrowingArray(folder / f"{offsets}.npy", np.int64, (num_groups,))
        self._lists = [
            [GrowingArray(folder / f"{name}_{group}.npy", *kind) for group in range(num_groups)]
            for name, kind in names.items()
        ]
        self._totals = np.zeros((1, num_groups), np.int64)
        self._offsets.append(self._totals)

    @property
    def files(self) -> list[GrowingArray]:
        """All of them."""
        return [self._offsets, *(file for lists in self._lists for file in lists)]

    def put_empty(self, count: int) -> None:
        """Batches whose lists are empty."""
        self._offsets.append(np.repeat(self._totals, count, axis=0))

    def append(self, offsets: npt.NDArray[np.int64], *lists: Sequence[npt.NDArray[np.generic]]) -> None:
        """The next batches: int64 ``[n + 1, G]`` offsets from 0, and per name a list a group."""
        self._offsets.append(offsets[1:] + self._totals)
        self._totals = self._totals + offsets[-1]
        for files, parts in zip(self._lists, lists, strict=True):
            for file, part in zip(files, parts, strict=True):
                file.append(part)


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
        self._cold_rows = _ListFiles(folder, "cold_offsets", {"cold_rows": (np.int64, ())}, num_groups)
        # Hot batches have no cold rows, but a place in front of those that have.
        self._cold_rows.put_empty(num_hot_batches)
        # Hot and cold batches come at once: their lists grow in files of their own.
        self._blocks = {
            kind: (
                _ListFiles(folder, f"{kind}_block_offsets", _segment_files(kind), num_groups),
                _ListFiles(folder, f"{kind}_long_offsets", {f"{kind}_long_rows": (np.int32, (2,))}, num_groups),
            )
            for kind in (("hot", "cold") if with_order else ())
        }

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
            self._cold_rows.append(arrays.cold_offsets, arrays.cold_rows)
        if self._blocks:
            lists, (blocks, long_rows) = arrays.segments, self._blocks[kind]
            assert lists is not None
            blocks.append(lists.offsets, lists.starts, lists.addresses)
            long_rows.append(lists.long_offsets, lists.long_rows)

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lists = [self._cold_rows, *(files for pair in self._blocks.values() for files in pair)]
        for file in [*self._files.values(), *(file for each in lists for file in each.files)]:
            if kind is None:
                file.close()
            else:
                file.abandon()
