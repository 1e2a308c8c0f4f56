"""How many rows a table will have in the whole log, from how its number grew over a sample.

Different values grow with the number of inputs, ever more slowly: by Heaps' law as a power of it, of a column that
closes (weekdays, countries) not at all in the end. The sample is counted in quarters, halves and as a whole. Each
doubling of it multiplied the rows; the last factor, and how much smaller it was than the one before, carry on to the
whole log.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fae.artifacts.columnar_log import MOST_ROWS, ColumnarLog
from fae.core.compiled import Int64
from fae.profile.counting import count_accesses
from fae.profile.sampling import sampled_inputs

_DEVIATIONS, _FEW = 3.3, 7.6
"""At 0.999 on one side: deviations of a number, and what may be where none was seen."""


@dataclass(frozen=True, kw_only=True)
class RangedCount:
    """A number of which only a part was seen.

    Attributes
    ----------
    value
        The best guess.
    low, high
        What was seen, and what it would be if growth did not slow down any more.
    """

    value: int
    low: int
    high: int

    def to_json(self) -> dict[str, int]:
        """As JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high}


def extrapolate(quarter: float, half: float, whole: float, scale: float) -> RangedCount:
    """Rows of a log that is `scale` times the sample, from the rows of a quarter, a half and the whole of the sample.

    Examples
    --------
    >>> extrapolate(500, 500, 500, 16)
    RangedCount(value=500, low=500, high=532)
    >>> extrapolate(10000, 20000, 40000, 16)
    RangedCount(value=640000, low=40000, high=640000)
    >>> extrapolate(25000, 40000, 50000, 16)
    RangedCount(value=60551, low=50000, high=126280)
    """
    seen = round(whole)
    if scale <= 1 or whole <= 0:
        return RangedCount(value=seen, low=seen, high=seen)
    before = math.log2(max(half, 1.0) / max(quarter, 1.0))
    last = min(1.0, max(0.0, math.log2(whole / max(half, 1.0))))
    slowing = min(1.0, last / before) if before > 0 else float(last > 0)
    doublings = math.log2(scale)
    if slowing >= 1:
        growth = last * doublings
    else:  # last * (slowing + slowing^2 + ...), of which the last term in part
        growth = last * slowing * (1 - slowing**doublings) / (1 - slowing)
    value = min(MOST_ROWS, round(whole * 2**growth))
    # New values of the last half come by chance, about as Poisson says: as many as might have been are in the bound.
    new = max(0.0, whole - half)
    most_new = min(whole / 2, new + _DEVIATIONS * math.sqrt(new) + _FEW)
    high = min(MOST_ROWS, round(whole * 2 ** (math.log2(whole / (whole - most_new)) * doublings)))
    return RangedCount(value=max(seen, value), low=seen, high=max(seen, value, high))


def table_rows(
    log: ColumnarLog, blocks: Sequence[range], scale: float, minimums: Sequence[int], known: Sequence[int]
) -> list[RangedCount]:
    """Rows of every table in the whole log, the reserved one included.

    Parameters
    ----------
    log
        The sample.
    blocks
        Its training inputs in stretches that follow each other.
    scale
        Inputs of the whole log for each of the sample.
    minimums
        For each table, accesses in the whole log that a value needs for a row of its own.
    known
        For each table, rows that it has from the log that this one continues; they stay.
    """
    parts = (1 / 4, 1 / 2, 1.0)
    sizes = np.zeros((len(parts), len(log.features)))
    for number, part in enumerate(parts):
        step = round(1 / part)
        for first in range(step):
            counts = _count(log, blocks[first::step])
            for table in range(len(log.features)):
                minimum = max(1, round(minimums[table] * part / scale))
                sizes[number, table] += _num_rows(log, counts, table, minimum, known[table]) / step
    found = []
    for table, feature in enumerate(log.features):
        quarter, half, whole = sizes[:, table].tolist()
        new = extrapolate(quarter, half, whole, scale)
        fixed = known[table] or 1  # the reserved row is one of the known ones
        low = max(fixed + new.low, feature.num_embeddings if known[table] else 0)
        found.append(RangedCount(value=max(low, fixed + new.value), low=low, high=max(low, fixed + new.high)))
    return found


def _count(log: ColumnarLog, blocks: Sequence[range]) -> Int64:
    indices = np.concatenate([np.zeros(0, np.int64), *(np.arange(block.start, block.stop) for block in blocks)])
    return count_accesses(sampled_inputs(log, indices), log.features)


def _num_rows(log: ColumnarLog, counts: Int64, table: int, minimum: int, known: int) -> int:
    """Rows beside the reserved and the known ones."""
    feature = log.features[table]
    of_table = counts[log.table_offsets[table] : log.table_offsets[table + 1]]
    if feature.encoded:  # the log's own numbers: the table reaches to the largest
        numbers = np.flatnonzero(of_table[: feature.num_embeddings - 1] >= minimum)
        return max(0, int(numbers[-1]) + 1 - known) if len(numbers) else 0
    rows = int(np.count_nonzero(of_table[known:] >= minimum))
    reserved = feature.unknown_id >= known and of_table[feature.unknown_id] >= minimum
    return rows - int(reserved)
