"""A ``.npy`` file whose number of rows is known only at its end.

Place in the flow: ingest's first pass writes rows as they come. Invariant: once closed, the file is an ordinary
C-ordered ``.npy`` array; memory does not grow with the rows.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

_HEADER_BYTES = 128


def npy_header(dtype: npt.DTypeLike, shape: tuple[int, ...]) -> bytes:
    """A ``.npy`` version 1.0 header of 128 bytes, whatever the shape: rows can follow before their number is known."""
    header: dict[str, Any] = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    text = io.BytesIO()
    np.lib.format.write_array_header_1_0(text, header)
    bare = text.getvalue().rstrip()
    padded = bare.ljust(_HEADER_BYTES - 1) + b"\n"
    assert len(padded) == _HEADER_BYTES
    return padded[:8] + (_HEADER_BYTES - 10).to_bytes(2, "little") + padded[10:]


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a ``.npy`` file; unlike with ``numpy.save``, a disk that fills up is an `OSError` with its number."""
    with path.open("wb") as file:
        file.write(npy_header(array.dtype, array.shape))
        file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def write_rows_at(descriptor: int, first: int, rows: npt.NDArray[Any]) -> None:
    """Write rows at their place in an open ``.npy`` file with a header of 128 bytes.

    Not through a writable memory map: there a full disk is no error but a signal that ends the process.
    """
    data = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
    at = _HEADER_BYTES + first * rows.itemsize * int(np.prod(rows.shape[1:], dtype=np.int64))
    while len(data):
        written = os.pwrite(descriptor, data, at)
        data, at = data[written:], at + written


class RowWriter:
    """Appends rows to a ``.npy`` file; use it in a ``with`` block.

    Parameters
    ----------
    width
        Entries of a row, or None for a one-dimensional array.
    num_rows
        Above 0: go on behind the first so many rows of a file that is there, leaving out what stands behind them.

    Raises
    ------
    OSError
        If the file cannot be opened, or has fewer rows.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike, width: int | None, *, num_rows: int = 0) -> None:
        self.num_rows = num_rows
        self._dtype = np.dtype(dtype)
        self._width = width
        self._file = path.open("r+b" if num_rows else "wb")
        if not num_rows:
            self._file.write(npy_header(self._dtype, self._shape()))
            return
        end = self.num_bytes
        if self._file.seek(0, os.SEEK_END) < end:
            self._file.close()
            raise OSError(f"{path} has fewer than {num_rows} rows")
        self._file.truncate(end)
        self._file.seek(end)

    def _shape(self) -> tuple[int, ...]:
        return (self.num_rows,) if self._width is None else (self.num_rows, self._width)

    @property
    def num_bytes(self) -> int:
        """Of the file, with its header."""
        return _HEADER_BYTES + self.num_rows * self._dtype.itemsize * (1 if self._width is None else self._width)

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Write rows of the writer's dtype and width."""
        assert rows.dtype == self._dtype
        self._file.write(np.ascontiguousarray(rows).data)
        self.num_rows += len(rows)

    def flush(self, *, durable: bool = False) -> None:
        """Hand what was appended to the system; `durable` waits until it is on the disk."""
        self._file.flush()
        if durable:
            os.fsync(self._file.fileno())

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._file.seek(0)
                self._file.write(npy_header(self._dtype, self._shape()))
        finally:
            self._file.close()


class RowFile:
    """Rows of a two-dimensional ``.npy`` file of ours, read and written where they stand.

    A memory map would do, but every page that was ever touched counts as memory of the process, so that what it needs
    cannot be told from what the system is free to drop.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self._file = path.open("r+b" if writable else "rb", buffering=0)
        version = np.lib.format.read_magic(self._file)
        assert version == (1, 0)
        self.shape, _, self._dtype = np.lib.format.read_array_header_1_0(self._file)
        self._row_bytes = self._dtype.itemsize * self.shape[1]

    def __len__(self) -> int:
        return int(self.shape[0])

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """A copy of rows ``start .. stop - 1``, as far as there are so many."""
        rows = np.empty((max(min(stop, len(self)) - start, 0), self.shape[1]), self._dtype)
        self._file.seek(_HEADER_BYTES + start * self._row_bytes)
        view = memoryview(rows.data).cast("B") if rows.size else memoryview(b"")
        while len(view):
            count = self._file.readinto(view)
            if not count:
                raise OSError(f"{self._file.name} ends before row {stop}")
            view = view[count:]
        return rows

    def write(self, start: int, rows: npt.NDArray[Any]) -> None:
        """Replace the rows from `start` on."""
        self._file.seek(_HEADER_BYTES + start * self._row_bytes)
        view = memoryview(np.ascontiguousarray(rows).data).cast("B") if rows.size else memoryview(b"")
        while len(view):
            view = view[self._file.write(view) :]

    def __enter__(self) -> RowFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
