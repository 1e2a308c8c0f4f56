"""What the time, memory and disk of the data stages grow with: bytes, inputs, distinct values; no machine in it."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

_MOST_SHARDS = 65536
"""Shards are put on workers one by one up to here; beyond it they share the bytes to within a thousandth."""


@dataclass(frozen=True, kw_only=True)
class LogCounts:
    """A log, or a sample of one, by what work on it grows with.

    Attributes
    ----------
    raw_bytes
        Bytes of the raw files as they are.
    text_bytes
        Bytes of text in them, unpacked.
    inputs, training, held_out
        Inputs, and those of the training split and of the two others.
    values, largest_values
        Distinct values of all columns together, before rare ones share a row, and of the column that has most.
    part_values
        Distinct values of every shard, added up: each shard has vocabularies of its own.
    rows
        Rows of all tables.
    profiled
        Inputs that the profile reads.
    shards
        Bytes of text of each shard, in log order.
    """

    raw_bytes: float
    text_bytes: float
    inputs: float
    training: float
    held_out: float
    values: float
    largest_values: float
    part_values: float
    rows: float
    profiled: float
    shards: tuple[float, ...] = field(repr=False)

    @property
    def counted(self) -> float:
        """What profile works on: the inputs of its sample, and a count of every row."""
        return self.profiled + self.rows

    def amount(self, driver: str) -> float:
        """The amount of what a piece of work grows with."""
        return float(getattr(self, driver))

    def longest(self, driver: str, spread: str, workers: int) -> float:
        """What the busiest of `workers` does of `driver`, where nothing is done by one alone.

        Parameters
        ----------
        spread
            ``shards``: whole shards, in log order, each by the next free worker. ``columns``: whole columns.
            ``evenly``: anything else.
        """
        amount = self.amount(driver)
        if spread == "shards":
            return amount * busiest_share(self.shards, workers)
        if spread == "columns":
            return amount * max(1.0 / workers, self.largest_values / max(1.0, self.values))
        return amount / workers


def busiest_share(shards: Sequence[float], workers: int) -> float:
    """The share of all bytes that takes longest when each shard is read by the next free one of `workers`.

    >>> busiest_share([1.0] * 24, 16), busiest_share([1.0] * 24, 64), busiest_share([2.0, 1.0, 1.0], 2)
    (0.08333333333333333, 0.041666666666666664, 0.5)
    """
    total = math.fsum(shards)
    if not total:
        return 1.0 / workers
    if len(shards) > _MOST_SHARDS:
        return 1.0 / workers
    busy = [0.0] * min(workers, len(shards))
    for size in shards:
        heapq.heappushpop(busy, busy[0] + size)
    return max(busy) / total


@dataclass(frozen=True, kw_only=True)
class ValueGrowth:
    """How many distinct values a column has in the first inputs of a log: powers of their number between known points.

    Heaps' law has one power; here it may differ from stretch to stretch, and a column that closes has power 0 at last.

    Attributes
    ----------
    points
        Inputs and distinct values, ascending, two or more.
    """

    points: tuple[tuple[float, float], ...]

    def at(self, inputs: float) -> float:
        """Distinct values of the first `inputs` inputs.

        Examples
        --------
        >>> [round(ValueGrowth(points=((100, 10), (10000, 100))).at(inputs)) for inputs in (100, 1000, 10000, 4)]
        [10, 32, 100, 2]
        """
        if inputs <= 0:
            return 0.0
        at = math.log(inputs)
        logs = [(math.log(max(1.0, number)), math.log(max(1.0, values))) for number, values in self.points]
        for (left, low), (right, high) in itertools.pairwise(logs):
            if at <= right or right == logs[-1][0]:
                power = (high - low) / max(right - left, 1e-9)
                if at > right:  # nothing is known beyond the last point
                    return math.exp(high + min(1.0, power) * (at - right))
                return min(inputs, math.exp(low + power * (at - left)))
        raise AssertionError("the last stretch is taken at the latest")
