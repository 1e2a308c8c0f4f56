"""``.npy`` files written and edited piece by piece, with a full disk as an ordinary error.

All writing goes through ``pwrite``, never through a writable memory map: a full disk is then an `OSError` and not a
signal that ends the process. The header always takes 128 bytes, so that rows can be written before their number is
known.
"""

from __future__ import annotations

import ctypes
import functools
import io
import os
import re
import sys
import threading
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

HEADER_BYTES = 128
_SYNC_FILE_RANGE_WRITE = 2
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00v\x00\{ *'descr': *'([<|][fiub][0-9]{1,2})', *'fortran_order': *False, *'shape': *"
    rb"\(((?:[0-9]{1,18}, *)*(?:[0-9]{1,18})?)\),? *\} *\n"
)


def npy_header(dtype: npt.DTypeLike, shape: tuple[int, ...]) -> bytes:
    """A ``.npy`` version 1.0 header of 128 bytes, whatever the shape."""
    header: dict[str, Any] = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    text = io.BytesIO()
    np.lib.format.write_array_header_1_0(text, header)
    bare = text.getvalue().rstrip()
    padded = bare.ljust(HEADER_BYTES - 1) + b"\n"
    assert len(padded) == HEADER_BYTES
    return padded[:8] + (HEADER_BYTES - 10).to_bytes(2, "little") + padded[10:]


def read_header(file: BinaryIO) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Type and shape in a header as `npy_header` writes it; the file is then behind it.

    Not numpy's reader: that one parses any expression, and in Python 3.11 not from two threads at once.

    Raises
    ------
    ValueError
        If it is another header: of another length, version or order, or of a type that is no plain number.
    """
    data = file.read(HEADER_BYTES)
    found = _HEADER.fullmatch(data)
    if len(data) < HEADER_BYTES or found is None:
        raise ValueError("its header is not that of a plain array behind 128 bytes")
    return np.dtype(found[1].decode()), tuple(int(size) for size in found[2].split(b",") if size.strip())


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a ``.npy`` file; unlike with ``numpy.save``, a disk that fills up is an `OSError` with its number."""
    with NpyWriter(path, array.dtype, array.shape[1:]) as file:
        file.append(array)


class NpyWriter:
    """Writes a ``.npy`` file (C order, little-endian) whose number of rows is known only at its end.

    The header is written last, by `close`; until then the file is not a valid array. As a context manager it closes the
    file, or abandons it if the block raises.

    Parameters
    ----------
    row_shape
        Shape of one row; ``()`` makes a one-dimensional array.
    keeps_checksum
        Whether `append` keeps the crc32 of all rows.

    Attributes
    ----------
    path
        The file.
    checksum
        crc32 of the bytes of all rows, if the rows were written by `append` alone; 0 if it is not kept.
    num_rows
        Rows of the array so far: one more than the last row that was written.
    dtype, row_shape, row_bytes
        Type of the entries, shape and bytes of a row.

    Raises
    ------
    OSError
        If the file cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        dtype: npt.DTypeLike,
        row_shape: tuple[int, ...] = (),
        *,
        keeps_checksum: bool = False,
    ) -> None:
        self.path, self.num_rows = path, 0
        self.checksum, self._keeps_checksum = 0, keeps_checksum
        self.dtype, self.row_shape = np.dtype(dtype).newbyteorder("<"), row_shape
        self.row_bytes = self.dtype.itemsize * int(np.prod(row_shape, dtype=np.int64))
        self._lock = threading.Lock()
        self._descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            os.ftruncate(self._descriptor, self.num_bytes)
        except OSError:
            self.abandon()
            raise

    @property
    def num_bytes(self) -> int:
        """Bytes of the file with its header."""
        return HEADER_BYTES + self.num_rows * self.row_bytes

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Write rows behind the last one."""
        rows = np.ascontiguousarray(rows, self.dtype)
        self.write(self.num_rows, rows)
        if self._keeps_checksum:
            self.checksum = zlib.crc32(rows.reshape(-1).view(np.uint8).data, self.checksum)

    def write(self, first: int, rows: npt.NDArray[Any]) -> None:
        """Write rows ``first .. first + len(rows) - 1``. Several threads may write different rows at once."""
        _write_all(self._descriptor, np.ascontiguousarray(rows, self.dtype), HEADER_BYTES + first * self.row_bytes)
        with self._lock:
            self.num_rows = max(self.num_rows, first + len(rows))

    def start_write_back(self, first: int, num_rows: int) -> None:
        """Let the system begin to bring rows that were written to the disk, so that `sync` finds little to wait for."""
        _write_back(self._descriptor, HEADER_BYTES + first * self.row_bytes, num_rows * self.row_bytes)

    def sync(self) -> None:
        """Wait until everything that was written is on the disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Write the header and close the file."""
        header = np.frombuffer(npy_header(self.dtype, (self.num_rows, *self.row_shape)), np.uint8)
        try:
            _write_all(self._descriptor, header, 0)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the file without its header."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


class NpyRows:
    """Rows of a finished ``.npy`` file of `NpyWriter`, read and replaced in place; thread-safe.

    A one-dimensional file has rows of one entry.

    A memory map would also do, but every page that was ever touched counts as memory of the process, and what the
    process needs could not be told from what the system is free to drop.

    Attributes
    ----------
    dtype
        Type of the entries.
    shape
        Rows, and entries of a row.
    is_flat
        Whether the file is one-dimensional.
    row_bytes
        Bytes of a row.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self._path = path
        with path.open("rb") as file:
            self.dtype, shape = read_header(file)
            self.is_flat = len(shape) == 1
            self.shape = shape if len(shape) == 2 else (*shape, 1)
        self.row_bytes = self.dtype.itemsize * self.shape[1]
        self._descriptor = os.open(path, os.O_RDWR if writable else os.O_RDONLY)

    def __len__(self) -> int:
        return int(self.shape[0])

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """A copy of rows ``start .. stop - 1``; shorter where the file has fewer rows."""
        rows = np.empty((max(min(stop, len(self)) - start, 0), self.shape[1]), self.dtype)
        self.read_into(rows, start)
        return rows

    def read_into(self, rows: npt.NDArray[Any], start: int) -> None:
        """Fill contiguous `rows` with those from `start` on: an array that is used again costs no new memory."""
        view = rows.reshape(-1).view(np.uint8).data
        position = HEADER_BYTES + start * self.row_bytes
        while len(view):
            count = os.preadv(self._descriptor, [view], position)
            if not count:
                raise OSError(f"{self._path} ends before row {start + len(rows)}")
            view, position = view[count:], position + count

    def write(self, start: int, rows: npt.NDArray[Any]) -> None:
        """Replace the rows from `start` on."""
        _write_all(self._descriptor, np.ascontiguousarray(rows, self.dtype), HEADER_BYTES + start * self.row_bytes)

    def start_write_back(self, start: int, num_rows: int) -> None:
        """Let the system begin to bring rows that were written to the disk, so that `sync` finds little to wait for."""
        _write_back(self._descriptor, HEADER_BYTES + start * self.row_bytes, num_rows * self.row_bytes)

    def __enter__(self) -> NpyRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


def _write_all(descriptor: int, array: npt.NDArray[Any], position: int) -> None:
    """Write the bytes of a contiguous array at a position of the file."""
    data = array.reshape(-1).view(np.uint8).data
    while len(data):
        written = os.pwrite(descriptor, data, position)
        data, position = data[written:], position + written


@functools.cache
def _sync_file_range() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return function


def _write_back(descriptor: int, first: int, num_bytes: int) -> None:
    """Begin to write the bytes ``[first, first + num_bytes)`` of an open file to the disk, where the system can.

    Errors are not told here: the file is waited for before it counts (`os.fsync`), which tells them.
    """
    function = _sync_file_range()
    if function is not None and num_bytes > 0:
        function(descriptor, first, num_bytes, _SYNC_FILE_RANGE_WRITE)
