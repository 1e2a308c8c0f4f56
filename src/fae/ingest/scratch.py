"""Working arrays of ingest that may be larger than memory.

Place in the flow: under the vocabularies and the counts. Invariant: the arrays that are held in memory never sum to
more than the limit; what is beyond it lives in memory-mapped files of one folder, which the owner removes. The disk
space of such a file is reserved when it is made, so that a full disk is an error here and not a crash later.
"""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class Scratch:
    """Gives arrays, in memory as long as they fit and in files after that.

    Parameters
    ----------
    folder
        Where files go; made when the first one is.
    limit_bytes
        Most bytes of arrays held in memory at once.

    Attributes
    ----------
    spilled_bytes
        Bytes of all files made so far, for tests and for the curious.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._num_files = 0
        self._owned: dict[int, tuple[int, Path | None]] = {}  # by address of the first element
        self._lock = threading.Lock()
        self.spilled_bytes = 0

    def array(self, size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A new array ``[size]`` of unspecified content."""
        num_bytes = max(1, size) * np.dtype(dtype).itemsize
        with self._lock:
            fits = self._held_bytes + num_bytes <= self._limit_bytes
            if fits:
                self._held_bytes += num_bytes
            else:
                self._num_files += 1
                self.spilled_bytes += num_bytes
            path = None if fits else self._folder / f"{self._num_files}.bin"
        array: npt.NDArray[Any]
        if path is None:
            array = np.empty(max(1, size), dtype)
        else:
            self._folder.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                _reserve(file.fileno(), num_bytes)
            array = np.memmap(path, dtype, mode="r+", shape=(max(1, size),))
        with self._lock:
            self._owned[array.ctypes.data] = (num_bytes, path)
        return array[:size]

    def grow(self, array: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
        """A larger array that begins with `array`, which is released."""
        larger = self.array(size, array.dtype)
        larger[: len(array)] = array
        self.release(array)
        return larger

    def release(self, array: npt.NDArray[Any]) -> None:
        """Give up an array from `array` or `grow`; it must not be used any more."""
        with self._lock:
            num_bytes, path = self._owned.pop(array.ctypes.data)
            if path is None:
                self._held_bytes -= num_bytes
        if path is not None:
            path.unlink()

    def close(self) -> None:
        """Remove the files; arrays that are still held keep their content until they are dropped."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _reserve(descriptor: int, num_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, num_bytes)
    else:  # macOS: sparse, no promise
        os.truncate(descriptor, num_bytes)
