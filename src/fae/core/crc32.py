"""The crc32 of bytes that were written in pieces, from the crc32 of each piece.

Appending a byte to a text multiplies the remainder of its polynomial; so the crc32 of two texts one after the other is
that of the first, moved by the length of the second, exclusive or that of the second. Moving by n bytes takes about
log2 n products of 32 x 32 bit matrices (Mark Adler's method in zlib, which Python's zlib does not offer).
"""

from __future__ import annotations

import functools

_POLYNOMIAL = 0xEDB88320
Matrix = tuple[int, ...]


def _times(matrix: Matrix, vector: int) -> int:
    total, row = 0, 0
    while vector:
        if vector & 1:
            total ^= matrix[row]
        vector >>= 1
        row += 1
    return total


@functools.lru_cache(maxsize=64)
def _moved(power: int) -> Matrix:
    """The matrix that moves a crc32 by ``2 ** power`` zero bits."""
    if power == 0:
        return (_POLYNOMIAL, *(1 << row for row in range(31)))
    half = _moved(power - 1)
    return tuple(_times(half, row) for row in half)


def combine_crc32(first: int, second: int, num_bytes: int) -> int:
    """The crc32 of two texts one after the other.

    Parameters
    ----------
    first, second
        crc32 of each.
    num_bytes
        Length of the second.

    Examples
    --------
    >>> import zlib
    >>> combine_crc32(zlib.crc32(b"ab"), zlib.crc32(b"cde"), 3) == zlib.crc32(b"abcde")
    True
    """
    power, bits = 0, 8 * num_bytes
    while bits:
        if bits & 1:
            first = _times(_moved(power), first)
        bits >>= 1
        power += 1
    return first ^ second
