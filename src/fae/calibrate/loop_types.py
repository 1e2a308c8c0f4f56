"""The compiled loops of profile and calibrate with the types they are called with, to be compiled before they are.

In a fresh environment compiling them takes as long as the two stages take on 4 million inputs. They are those of a log
of which a sample is read; a log that is read whole is mapped, and two of them are compiled again for what cannot be
written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fae.calibrate.peel_kernels import incidence_kernel, order_rows_kernel, remove_rows_kernel
from fae.calibrate.staging_rows import unique_rows_kernel
from fae.profile.counting import classify_kernel, count_kernel


def calibration_loops() -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Each loop with numba's types of its arguments, in the order of their first calls: for ``loop.compile(types)``."""
    from numba import types  # numba is imported by `fae.core.compiled`, which spares it scipy

    def array(dtype: type, num_axes: int) -> Any:
        return types.Array(getattr(types, np.dtype(dtype).name), num_axes, "C")

    number = types.int64
    numbers, pairs, small = array(np.int64, 1), array(np.int64, 2), array(np.int32, 1)
    ids, flags = array(np.int32, 2), types.Array(types.boolean, 1, "C")
    kept_ids = types.Array(types.int32, 2, "C", readonly=True)
    share = (number, number, number, number)
    yield count_kernel, (kept_ids, numbers, numbers, *share)
    yield classify_kernel, (kept_ids, numbers, small, numbers, small, small, number, number)
    yield unique_rows_kernel, (
        ids, pairs, numbers, numbers, numbers, array(np.uint8, 2), pairs, number, number,
    )  # fmt: skip
    yield incidence_kernel, (ids, numbers, small, *share)
    yield order_rows_kernel, (numbers, numbers, small, pairs, numbers)
    yield remove_rows_kernel, (ids, numbers, small, numbers, small, pairs, numbers, flags)
