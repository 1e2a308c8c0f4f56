"""Working arrays of ingest that may be larger than memory: the vocabularies and the counts.

Arrays held in memory never sum to more than the limit; the others are memory-mapped files in one folder. The disk
space of such a file is reserved when it is made, so that a full disk is an error there and not a crash later.
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
    """Allocates arrays: in memory while they fit, then in files.

    Parameters
    ----------
    folder
        Folder for the files, made with the first one.
    limit_bytes
        Largest sum of the bytes of arrays held in memory at once.

    Attributes
    ----------
    spilled_bytes
        Bytes of all files made so far.
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
        """Free an array from `array` or `grow`; it must not be used afterwards."""
        with self._lock:
            num_bytes, path = self._owned.pop(array.ctypes.data)
            if path is None:
                self._held_bytes -= num_bytes
        if path is not None:
            path.unlink()

    def close(self) -> None:
        """Remove the files; arrays that are still referenced keep their content."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _reserve(descriptor: int, num_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, num_bytes)
    else:  # macOS: sparse, no promise
        os.truncate(descriptor, num_bytes)
