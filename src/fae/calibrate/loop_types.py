"""The compiled loops of profile and calibrate with the types they are called with, to be compiled before they are.

In a fresh environment compiling them takes as long as the two stages take on 4 million inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fae.calibrate.peel_kernels import incidence_kernel, order_rows_kernel, remove_rows_kernel
from fae.calibrate.unique_cold_rows import mark_rows_kernel, unique_rows_kernel
from fae.core.compiling.argument_types import array_type, number
from fae.profile.counting import classify_kernel, count_kernel


def calibration_loops() -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Each loop with numba's types of its arguments, in the order of their first calls: for ``loop.compile(types)``."""
    numbers, pairs, small = array_type(np.int64, 1), array_type(np.int64, 2), array_type(np.int32, 1)
    ids, kept_ids, flags = array_type(np.int32, 2), array_type(np.int32, 2, is_file=True), array_type(np.bool_, 1)
    share = (number, number, number, number)
    yield count_kernel, (kept_ids, numbers, numbers, *share)
    yield mark_rows_kernel, (ids, numbers, array_type(np.uint8, 1))
    yield unique_rows_kernel, (
        ids, pairs, numbers, numbers, numbers, array_type(np.uint8, 2), pairs, number, number,
    )  # fmt: skip
    yield incidence_kernel, (ids, numbers, small, *share)
    yield order_rows_kernel, (numbers, numbers, small, ids, small)
    yield remove_rows_kernel, (ids, numbers, small, numbers, small, ids, small, flags)
    yield classify_kernel, (kept_ids, numbers, small, numbers, small, small, number, number)
