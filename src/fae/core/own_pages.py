"""Arrays on memory pages of their own: mapped files, and copies in anonymous maps."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt


def owns_pages(array: npt.NDArray[Any]) -> bool:
    """Whether no other object's memory shares a page with the array's: it is a view of a map, or empty.

    Pages that a GPU may read are locked as wholes, and the driver refuses a copy from memory of which only a part is
    locked. So locking the pages of an array on the heap breaks copies from whatever lies beside it.

    >>> owns_pages(np.zeros(3)), owns_pages(in_own_pages(np.zeros(3)))
    (False, True)
    """
    if not array.nbytes:
        return True
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return isinstance(base, mmap.mmap)


def zeros_in_own_pages(dtype: npt.DTypeLike, *shape: int) -> npt.NDArray[Any]:
    """An array of zeros in memory that it shares with nothing, of no other process either."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not size:
        return np.zeros(shape, dtype)
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, dtype).reshape(shape)


def in_own_pages(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A read-only copy of an array in memory that it shares with nothing."""
    if not array.nbytes:
        return array
    copy = np.frombuffer(mmap.mmap(-1, array.nbytes), array.dtype, array.size).reshape(array.shape)
    copy[...] = array
    copy.setflags(write=False)
    return copy
