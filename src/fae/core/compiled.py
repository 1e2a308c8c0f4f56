"""The decorator for loops that numba compiles, and the array type that most of them take.

Loops of ingest also run as plain Python with the same result (tests compare both): integer products stay below
2^63, so nothing overflows in either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

F = TypeVar("F", bound=Callable[..., Any])
Int64 = npt.NDArray[np.int64]


def compiled(function: F) -> F:
    """Compile with numba's ``njit``: cached on disk, run without the GIL. The function keeps its type for mypy."""
    return cast(F, njit(cache=True, nogil=True)(function))
