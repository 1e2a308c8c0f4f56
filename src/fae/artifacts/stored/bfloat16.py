"""Rounding of float32 to bfloat16, the bytes that torch and a GPU round to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NAN = 0x7FFF
"""bfloat16 bits of every NaN, as a GPU rounds it."""


def round_to_bfloat16(values: npt.NDArray[np.float32], out: npt.NDArray[np.uint16]) -> None:
    """Write the bits of each value, rounded to the nearest, ties to even; a NaN stays one.

    >>> bits = np.empty(4, np.uint16)
    >>> round_to_bfloat16(np.array([1, 1.00390625, -1.01171875, np.inf], np.float32), bits)
    >>> [hex(each) for each in bits]
    ['0x3f80', '0x3f80', '0xbf82', '0x7f80']
    """
    found = np.array(values, np.float32)  # passes over an array of a batch stay in a core's cache
    bits, is_nan = found.view(np.uint32), np.isnan(found)
    odd = (bits >> 16) & 1
    bits += odd
    bits += 0x7FFF
    np.right_shift(bits, 16, out=out, casting="unsafe")
    if is_nan.any():
        out[is_nan] = NAN
