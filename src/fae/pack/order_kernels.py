"""The compiled loops that bring inputs into the order of their buckets, and tell apart the hot ones of that order.

Each runs on one thread and fills places that nobody else fills: `fae.pack.shuffle` spreads ranges and buckets over
threads.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fae.core.compiled import Int64, njit

Int32 = npt.NDArray[np.int32]


@njit(cache=True, nogil=True)
def count_buckets(buckets: Int32, counts: Int64) -> None:
    """Count the inputs of each bucket into `counts`, int64 ``[num_buckets]`` of zeros."""
    for bucket in buckets:
        counts[bucket] += 1


@njit(cache=True, nogil=True)
def place_by_bucket(buckets: Int32, first: int, places: Int64, positions: Int64) -> None:
    """Write the positions ``first, first + 1, ...`` of inputs to the places of their buckets.

    Parameters
    ----------
    buckets
        int32 ``[n]``: bucket of each of the inputs.
    places
        int64 ``[num_buckets]``: where in `positions` the next input of each bucket belongs; moved on.
    """
    for i in range(buckets.size):
        bucket = buckets[i]
        positions[places[bucket]] = first + i
        places[bucket] += 1


@njit(cache=True, nogil=True)
def count_hot(positions: Int64, hot: npt.NDArray[np.bool_]) -> int:
    """How many of the inputs at `positions` are hot."""
    count = 0
    for position in positions:
        if hot[position]:
            count += 1
    return count


@njit(cache=True, nogil=True)
def split_kinds(positions: Int64, hot: npt.NDArray[np.bool_], of_hot: Int64, of_cold: Int64) -> None:
    """Copy the positions of hot inputs to `of_hot` and the others to `of_cold`, each in the order they come in."""
    num_hot, num_cold = 0, 0
    for position in positions:
        if hot[position]:
            of_hot[num_hot] = position
            num_hot += 1
        else:
            of_cold[num_cold] = position
            num_cold += 1
