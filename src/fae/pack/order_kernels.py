"""The compiled loops that bring inputs into the order of their buckets, and tell apart the hot ones of that order.

Each runs on one thread and fills places that nobody else fills: `fae.pack.shuffle` spreads ranges and buckets over
threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.compiled import Int64, njit


@njit(cache=True, nogil=True)
def draw_bucket(position: Any, key: Any, num_buckets: Any) -> Any:
    """The bucket of the input at a position, all uint64: the finalizer of SplitMix64, a counter in, 64 well-mixed bits
    out. It wraps."""
    bits = position * np.uint64(0x9E3779B97F4A7C15) + key
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = (bits ^ (bits >> np.uint64(31))) >> np.uint64(32)
    return np.int64((bits * num_buckets) >> np.uint64(32))


@njit(cache=True, nogil=True)
def count_buckets(start: int, stop: int, key: Any, counts: Int64) -> None:
    """Count the inputs ``[start, stop)`` of each bucket into `counts`, int64 ``[num_buckets]`` of zeros."""
    num_buckets = np.uint64(counts.size)
    for position in range(start, stop):
        counts[draw_bucket(np.uint64(position), key, num_buckets)] += 1


@njit(cache=True, nogil=True)
def place_by_bucket(start: int, stop: int, first: int, key: Any, places: Int64, positions: Int64) -> None:
    """Write the positions of the inputs ``[start, stop)``, counted from `first`, to the places of their buckets.

    Parameters
    ----------
    places
        int64 ``[num_buckets]``: where in `positions` the next input of each bucket belongs; moved on.
    """
    num_buckets = np.uint64(places.size)
    for position in range(start, stop):
        bucket = draw_bucket(np.uint64(position), key, num_buckets)
        positions[places[bucket]] = position - first
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
