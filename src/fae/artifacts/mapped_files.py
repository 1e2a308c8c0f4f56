"""Check mapped files in one pass on all threads: their bytes by checksum, and their rows by what these may be."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.checksums import Files, is_verified, join_checksums
from fae.artifacts.crc_folding import crc32
from fae.core.npy import HEADER_BYTES
from fae.core.threads import run_jobs

RowCheck = Callable[[int, int, npt.NDArray[Any]], bool]
"""Whether rows ``[first, last)`` of an array, which are given, are what they may be."""

_STEP_BYTES = 2**20
"""Bytes that are summed and then looked at: they stay in the cache of a core."""
_RANGE_BYTES = 16 * 2**20
"""Bytes that a thread takes."""


@dataclass(frozen=True)
class MappedFile:
    """A ``.npy`` file of an artifact: its name there, its rows, and what these may be (None: anything)."""

    name: str
    array: npt.NDArray[Any]
    fits: RowCheck | None = None


def check_mapped(path: Path, files: Sequence[MappedFile], known: Files) -> Iterator[tuple[str, str]]:
    """Name each file that is damaged, and say what is wrong where the bytes are right.

    Parameters
    ----------
    path
        Folder of the artifact.
    known
        As its manifest has them. A checksum that this process has computed of the same file is not computed again.
    """
    checks = [_FileCheck(path / file.name, file, known.get(file.name, {}).get("crc32", "")) for file in files]
    run_jobs([job for check in checks for job in check.jobs()])
    yield from ((check.file.name, "") for check in checks if not check.is_whole())
    yield from (
        (check.file.name, "it has values out of their range") for check in checks if not check.has_possible_rows
    )


class _FileCheck:
    def __init__(self, path: Path, file: MappedFile, checksum: str) -> None:
        self._path, self.file, self._wanted = path, file, checksum
        self._is_verified = is_verified(path, checksum)
        self._parts: dict[int, tuple[int, int]] = {}  # checksum and bytes of the rows from a number on
        self.has_possible_rows = True

    def jobs(self) -> list[Callable[[], None]]:
        if self._is_verified and self.file.fits is None:
            return []
        count, step = len(self.file.array), self._rows_of(_RANGE_BYTES)
        return [partial(self._check, start, min(start + step, count)) for start in range(0, count, step)]

    def is_whole(self) -> bool:
        if self._is_verified:
            return True
        with self._path.open("rb") as file:
            header = zlib.crc32(file.read(HEADER_BYTES))
        parts = [(header, HEADER_BYTES), *(self._parts[start] for start in sorted(self._parts))]
        return f"{join_checksums(*zip(*parts, strict=True)):08x}" == self._wanted

    def _rows_of(self, size: int) -> int:
        array = self.file.array
        return max(1, size // max(1, array.nbytes // max(1, len(array))))

    def _check(self, start: int, stop: int) -> None:
        checksum, step, fits = 0, self._rows_of(_STEP_BYTES), self.file.fits
        for first in range(start, stop, step):
            last = min(first + step, stop)
            rows = self.file.array[first:last]
            if not self._is_verified:
                checksum = crc32(rows, checksum)
            if fits is not None and self.has_possible_rows and not fits(first, last, rows):
                self.has_possible_rows = False
        self._parts[start] = (checksum, self.file.array[start:stop].nbytes)


def within(low: float, high: float) -> RowCheck:
    """Rows of values from `low` to `high`; NaN is none."""

    def fits(first: int, last: int, rows: npt.NDArray[Any]) -> bool:
        del first, last
        return not rows.size or bool(rows.min() >= low and rows.max() <= high)

    return fits


def ascending(array: npt.NDArray[Any], offsets: npt.NDArray[np.int64], low: int, high: int) -> RowCheck:
    """Rows of one value, from `low` to `high`, that ascend, each once, in each of the lists that begin at `offsets`."""
    is_possible = within(low, high)

    def fits(first: int, last: int, rows: npt.NDArray[Any]) -> bool:
        if first:
            rows = array[first - 1 : last]
        falls = np.flatnonzero(rows[1:] <= rows[:-1]) + max(first, 1)
        begins = offsets[np.searchsorted(offsets, falls).clip(max=len(offsets) - 1)]
        return is_possible(first, last, rows) and bool((begins == falls).all())

    return fits


def below(limits: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> RowCheck:
    """Rows of one value, from 0 to below the limit of its list; the lists of `limits` ``[N]`` begin at `offsets`."""

    def fits(first: int, last: int, rows: npt.NDArray[Any]) -> bool:
        each = np.repeat(limits, np.diff(offsets.clip(first, last)))
        return bool(rows.min(initial=0) >= 0 and (rows < each).all())

    return fits
