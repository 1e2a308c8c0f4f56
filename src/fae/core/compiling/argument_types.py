"""numba's types of what compiled loops take: to compile them before they are called."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import fae.core.compiled  # noqa: F401 (imports numba, and spares it scipy)

import numba  # isort: skip

types: Any = numba.types
number, small_real, flag = types.int64, types.float32, types.boolean


def array_type(dtype: npt.DTypeLike, num_axes: int, *, is_file: bool = False) -> Any:
    """The type of a contiguous array; one that is read from a file cannot be written."""
    return types.Array(numba.from_dtype(np.dtype(dtype)), num_axes, "C", readonly=is_file)


def tuple_type(kind: Any, *members: Any) -> Any:
    """The type of a named tuple whose members have these types."""
    if len(set(members)) == 1:
        return types.NamedUniTuple(members[0], len(members), kind)
    return types.NamedTuple(members, kind)
