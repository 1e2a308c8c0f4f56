"""Files of a split, written by several threads while the number of batches is not yet known.

Hot and cold batches arrive in groups, each group with its place among the batches of its kind. Hot batches come first
in the files, and their number is known from the start, so that every batch has its place. Lists of varying length
follow those of earlier batches: a group's place in them is known when all earlier groups have been composed.
`fae.core.npy.NpyWriter` writes a file's header last; until then the file is not a valid array.
"""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fae.artifacts.batch_arrays import BatchArrays
from fae.artifacts.checksums import join_checksums
from fae.artifacts.crc_folding import crc32
from fae.artifacts.stored.order_planes import plane_types
from fae.core.compiled import Int64
from fae.core.npy import HEADER_BYTES, NpyWriter, npy_header
from fae.pack.running_totals import RunningTotals
from fae.pack.write_back import WriteBack

SYNC_BYTES = 64 * 2**20
"""Bytes of a file after which the system is told to write them to the disk."""

Rows = npt.NDArray[Any]


class BatchFile(Protocol):
    """A file of a split: `SummedFile`, or one that only counts."""

    def write(self, first: int, rows: Rows, *, wait: bool = True) -> bool:
        """Write rows from number `first` on; without `wait` only if no other thread writes, returns whether it did."""

    def close(self) -> object:
        """Complete the file."""

    def abandon(self) -> object:
        """Leave it incomplete."""


OpenFile = Callable[[Path, type[np.generic], tuple[int, ...]], BatchFile]
"""Makes a file of a split from its path, the type of its numbers and the shape of a row."""


class SummedFile:
    """A ``.npy`` file that several threads write, and its checksum, from the checksums of what they write.

    Parameters
    ----------
    write_back
        Told whenever much of the file waits for the disk.

    Attributes
    ----------
    path
        The file.
    """

    def __init__(self, write_back: WriteBack, path: Path, dtype: type[np.generic], row_shape: tuple[int, ...]) -> None:
        self._write_back, self._unsynced = write_back, 0
        self.path, self._dtype, self._row_shape = path, dtype, row_shape
        self._file = NpyWriter(path, dtype, row_shape)
        self._lock = threading.Lock()
        self._parts: list[tuple[int, int, int]] = []  # first row, checksum, bytes

    def write(self, first: int, rows: Rows, *, wait: bool = True) -> bool:
        """Write rows from number `first` on; without `wait` only if no other thread writes, returns whether it did."""
        rows = np.ascontiguousarray(rows, self._dtype)
        # The system lets one thread at a time write to a file; the others would spin.
        if not self._lock.acquire(blocking=wait):
            return False
        try:
            self._file.write(first, rows)
            self._unsynced += rows.nbytes
            if self._unsynced >= SYNC_BYTES:
                self._unsynced = 0
                self._write_back.start(self._file.sync)
        finally:
            self._lock.release()
        if rows.nbytes:
            self._parts.append((first, crc32(rows), rows.nbytes))
        return True

    @property
    def checksum(self) -> int:
        """crc32 of the whole file as `close` leaves it."""
        header = npy_header(self._dtype, (self._file.num_rows, *self._row_shape))
        parts = sorted(self._parts, key=itemgetter(0))
        return join_checksums(
            [zlib.crc32(header), *(checksum for _, checksum, _ in parts)], [HEADER_BYTES, *(size for *_, size in parts)]
        )

    def close(self) -> None:
        """Write the header and close the file."""
        self._file.close()

    def abandon(self) -> None:
        """Close the file without its header."""
        self._file.abandon()


class Part(NamedTuple):
    """Rows that are to be written to a file, from number `first` on."""

    file: BatchFile
    first: int
    rows: Rows


def write_parts(parts: Iterable[Part]) -> None:
    """Write parts of different files, first those of files that no other thread writes to."""
    waiting = deque(parts)
    refused = 0
    while waiting:
        part = waiting.popleft()
        if part.file.write(part.first, part.rows, wait=refused >= len(waiting)):
            refused = 0
        else:
            waiting.append(part)
            refused += 1


class _ListFiles:
    """Lists of varying length, one file a group of tables and name, with one file of offsets for all.

    Parameters
    ----------
    offsets
        Name of the file of offsets.
    names
        Type and shape of an entry, by name of the files.
    num_empty
        Batches with empty lists before the others.
    open_file
        As `SplitWriter` has it.
    """

    def __init__(
        self, folder: Path, offsets: str, names: dict[str, tuple[type[np.generic], tuple[int, ...]]],
        num_groups: int, num_empty: int, open_file: OpenFile,
    ) -> None:  # fmt: skip
        self._offsets = open_file(folder / f"{offsets}.npy", np.int64, (num_groups,))
        self._lists = [
            [open_file(folder / f"{name}_{group}.npy", *kind) for group in range(num_groups)]
            for name, kind in names.items()
        ]
        self._first = num_empty + 1
        self._offsets.write(0, np.zeros((self._first, num_groups), np.int64))

    @property
    def files(self) -> list[BatchFile]:
        """All files."""
        return [self._offsets, *(file for lists in self._lists for file in lists)]

    def parts(self, first: int, before: Int64, offsets: Int64, *lists: tuple[Rows, ...]) -> list[Part]:
        """What to write for n batches from number `first` on.

        Parameters
        ----------
        before
            int64 ``[G]``: entries of the lists of all batches before them.
        offsets, lists
            int64 ``[n + 1, G]``, from 0, and for each name one list a group of tables.
        """
        return [
            Part(self._offsets, self._first + first, offsets[1:] + before),
            *(
                Part(file, int(before[group]), rows)
                for files, of_groups in zip(self._lists, lists, strict=True)
                for group, (file, rows) in enumerate(zip(files, of_groups, strict=True))
            ),
        ]


class SplitWriter:
    """Writes the folder of one split; a context manager that completes its files, or abandons them after an error.

    Parameters
    ----------
    num_hot_batches
        Hot batches that will be written; cold batches come after them.
    with_order
        Whether `order` and segments are written; else `addresses`, which follow from them.
    with_weights
        Whether inputs have weights.

    Attributes
    ----------
    checksums
        crc32 of every file; complete when the files are.
    """

    def __init__(
        self, folder: Path, *, batch_size: int, num_slots: int, num_dense: int, num_groups: int,
        num_hot_batches: int, with_order: bool, with_weights: bool = False,
    ) -> None:  # fmt: skip
        self._write_back = WriteBack()
        open_file = self._begin(folder)
        self.checksums: dict[Path, int] = {}
        self._first = {"hot": 0, "cold": num_hot_batches}
        self._totals = {kind: RunningTotals(np.zeros((3, num_groups), np.int64)) for kind in self._first}
        self._files: dict[str, BatchFile] = {
            "dense": open_file(folder / "dense.npy", np.float32, (batch_size, num_dense)),
            "inputs": open_file(folder / "inputs.npy", np.int64, (batch_size,)),
            "labels": open_file(folder / "labels.npy", np.float32, (batch_size,)),
            "num_inputs": open_file(folder / "num_inputs.npy", np.int32, ()),
        }
        if with_weights:
            self._files["weights"] = open_file(folder / "weights.npy", np.float32, (batch_size,))
        if with_order:
            num_lookups = batch_size * num_slots
            for name, kind in plane_types(num_lookups).items():
                self._files[name] = open_file(folder / f"{name}.npy", kind, (num_lookups,))
        else:
            self._files["addresses"] = open_file(folder / "addresses.npy", np.int32, (batch_size, num_slots))

        def lists(offsets: str, names: dict[str, tuple[type[np.generic], tuple[int, ...]]], empty: int) -> _ListFiles:
            return _ListFiles(folder, offsets, names, num_groups, empty, open_file)

        # Hot batches have no cold rows, but entries before those of the cold batches.
        self._cold_rows = lists("cold_offsets", {"cold_rows": (np.int64, ())}, num_hot_batches)
        # Hot and cold batches come alternately: each kind has files for its lists. Names on the disk say block for
        # segment (formats/packed.md).
        self._segments = {
            kind: (
                lists(
                    f"{kind}_block_offsets",
                    {f"{kind}_block_starts": (np.int32, ()), f"{kind}_block_addresses": (np.int32, ())},
                    0,
                ),
                lists(f"{kind}_long_offsets", {f"{kind}_long_rows": (np.int32, (2,))}, 0),
            )
            for kind in (("hot", "cold") if with_order else ())
        }

    def _begin(self, folder: Path) -> OpenFile:
        folder.mkdir()
        return partial(SummedFile, self._write_back)

    def write(self, kind: str, group: int, first: int, arrays: BatchArrays) -> None:
        """Write a group of ``"hot"`` or ``"cold"`` batches. Several threads may write different groups.

        Parameters
        ----------
        group
            Its number among the groups of its kind, from 0: a thread must have begun each earlier group.
        first
            Batches of its kind before it.
        """
        totals, segments = self._totals[kind], arrays.segments
        assert segments is not None
        totals.put(group, np.stack([arrays.cold_offsets[-1], segments.offsets[-1], segments.long_offsets[-1]]))
        orders = {} if arrays.order is None else arrays.order.files
        write_parts(
            Part(file, self._first[kind] + first, orders[name] if name in orders else getattr(arrays, name))
            for name, file in self._files.items()
        )
        before = totals.take(group)
        parts: list[Part] = []
        if kind == "cold":
            parts += self._cold_rows.parts(first, before[0], arrays.cold_offsets, arrays.cold_rows)
        if self._segments:
            own, long_rows = self._segments[kind]
            parts += own.parts(first, before[1], segments.offsets, segments.starts, segments.addresses)
            parts += long_rows.parts(first, before[2], segments.long_offsets, segments.long_rows)
        write_parts(parts)

    def give_up(self, kind: str, fault: BaseException) -> None:
        """Say why a group of this kind will never be written: threads that wait for its length wait no longer."""
        self._totals[kind].give_up(fault)

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # What is left is waited for when the artifact is complete, by all threads.
            self._write_back.stop(at_once=True)
        except OSError:
            if kind is None:
                kind = OSError
                raise
        finally:
            self._close(is_complete=kind is None)

    def _close(self, *, is_complete: bool) -> None:
        lists = [self._cold_rows, *(files for pair in self._segments.values() for files in pair)]
        for file in [*self._files.values(), *(file for each in lists for file in each.files)]:
            if is_complete:
                file.close()
                if isinstance(file, SummedFile):
                    self.checksums[file.path] = file.checksum
            else:
                file.abandon()
