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


def write_rows(descriptor: int, first: int, rows: npt.NDArray[Any]) -> None:
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
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike, width: int | None) -> None:
        self.num_rows = 0
        self._dtype = np.dtype(dtype)
        self._width = width
        self._file = path.open("wb")
        self._file.write(npy_header(self._dtype, self._shape()))

    def _shape(self) -> tuple[int, ...]:
        return (self.num_rows,) if self._width is None else (self.num_rows, self._width)

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Write rows of the writer's dtype and width."""
        assert rows.dtype == self._dtype
        self._file.write(np.ascontiguousarray(rows).data)
        self.num_rows += len(rows)

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
