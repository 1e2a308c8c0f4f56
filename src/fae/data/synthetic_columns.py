"""The shape of a Criteo log: its 26 categorical columns and its 13 counts. Used by `fae.data.synthetic_inputs`.

Invariant: everything here is a constant or a pure function of arrays; no random number is drawn.
It does not say how columns depend on one another's draws: that is the generator's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MISSING_COUNT = -4
"""Stands for a missing count; real counts start at -1."""
MAX_COUNT = 99_999
_FEW_VALUES = 1000
"""Columns with no more values than this are not scaled: small tables stay small tables."""


@dataclass(frozen=True)
class ColumnShape:
    """One categorical column.

    Attributes
    ----------
    num_embeddings
        Distinct values in the whole log, a missing value included.
    head_share
        Share of the inputs that the most frequent value takes, where it stands out of the curve; else 0.
    missing
        Name of the group of columns that go missing together (`MISSING_SHARES`), or "".
    offset, exponent
        Zipf-Mandelbrot curve of the other values: the weight of value k is (k + offset) ** -exponent.
    source
        What decides the value: the input's item, its user, or nothing else in the input.
    mapping
        ``rank``: popular items (users) have popular values; ``hash``: unrelated to popularity, as a colour would be.
    """

    name: str
    num_embeddings: int
    head_share: float
    missing: str
    offset: float
    exponent: float
    source: Literal["item", "user", "context"]
    mapping: Literal["rank", "hash"]

    def at_scale(self, scale: float) -> Marginal:
        """The column's distribution when every large table has `scale` times its rows."""
        num_values = max(round(self.num_embeddings * scale), min(self.num_embeddings, _FEW_VALUES))
        ratio = num_values / self.num_embeddings
        reserved = (self.head_share > 0) + (self.missing != "")
        present = 1.0 - MISSING_SHARES.get(self.missing, 0.0)
        # A flat top as wide as the shrunken table would leave no skew at all.
        offset = max(self.offset * ratio, min(self.offset, 8.0))
        return Marginal(max(1, num_values - reserved), self.head_share / present, offset, self.exponent)


@dataclass(frozen=True)
class Marginal:
    """Distribution of a column's present values: value 0 with `head_share`, then `size` values by Zipf-Mandelbrot."""

    size: int
    head_share: float
    offset: float
    exponent: float

    def quantile(self, position: FloatArray) -> IntArray:
        """int64 rank of the value at each position in [0, 1) of popularity, the most frequent value 0."""
        low, high = self._ends()
        tail = np.maximum((position - self.head_share) / (1.0 - self.head_share), 0.0)
        rank = (low + tail * (high - low)) ** (1.0 / (1.0 - self.exponent)) - self.offset
        ranks: IntArray = np.minimum(rank.astype(np.int64), self.size - 1)
        if self.head_share:
            ranks += 1
            ranks[position < self.head_share] = 0
        return ranks

    def position(self, rank: IntArray, inside: FloatArray) -> FloatArray:
        """The inverse: a position within each rank's own stretch of [0, 1), `inside` of the way through it."""
        low, high = self._ends()
        power = 1.0 - self.exponent
        start = ((rank + self.offset) ** power - low) / (high - low)
        stop = ((rank + 1.0 + self.offset) ** power - low) / (high - low)
        positions: FloatArray = np.minimum(start + inside * (stop - start), 1.0 - 2.0**-40)
        return positions

    def _ends(self) -> tuple[float, float]:
        power = 1.0 - self.exponent
        return self.offset**power, (self.size + self.offset) ** power


MISSING_SHARES = {"group C3": 0.037, "group C19": 0.412, "C6": 0.136, "C22": 0.820}

# Numbers of values: the published cardinalities of the Criteo Kaggle log (45.8 M inputs). Head and missing shares:
# measured on 79,335 of its inputs. Offset and exponent: fitted to the distinct values, the shares of the top 1 % and
# 10 % of values and the share of values seen once in those inputs. Source and mapping: chosen so that the hot-input
# share comes out right (docs/synthetic.md).
COLUMNS = (
    ColumnShape("C1", 1460, 0.503, "", 1.11, 1.823, "user", "hash"),
    ColumnShape("C2", 583, 0.125, "", 6.7, 1.440, "user", "hash"),
    ColumnShape("C3", 10131227, 0.0, "group C3", 3.94, 1.049, "item", "rank"),
    ColumnShape("C4", 2202608, 0.054, "group C3", 22.3, 1.215, "item", "rank"),
    ColumnShape("C5", 305, 0.671, "", 6.07, 4.000, "user", "hash"),
    ColumnShape("C6", 24, 0.465, "C6", 1.0, 2.5, "context", "hash"),
    ColumnShape("C7", 12517, 0.010, "", 397.0, 1.993, "user", "rank"),
    ColumnShape("C8", 633, 0.593, "", 0.703, 2.308, "user", "hash"),
    ColumnShape("C9", 3, 0.887, "", 1.0, 1.1, "context", "hash"),
    ColumnShape("C10", 93145, 0.266, "", 176.0, 1.609, "item", "rank"),
    ColumnShape("C11", 5683, 0.021, "", 512.0, 2.974, "user", "rank"),
    ColumnShape("C12", 8351593, 0.0, "group C3", 4.13, 1.062, "item", "rank"),
    ColumnShape("C13", 3194, 0.023, "", 289.0, 2.563, "user", "rank"),
    ColumnShape("C14", 27, 0.364, "", 2.67, 4.000, "item", "hash"),
    ColumnShape("C15", 14992, 0.020, "", 165.0, 2.100, "context", "hash"),
    ColumnShape("C16", 5461306, 0.0, "group C3", 7.45, 1.115, "item", "rank"),
    ColumnShape("C17", 10, 0.426, "", 1.0, 1.1, "item", "hash"),
    ColumnShape("C18", 5652, 0.054, "", 72.3, 2.264, "context", "hash"),
    ColumnShape("C19", 2173, 0.0, "group C19", 1.23, 1.512, "user", "rank"),
    ColumnShape("C20", 4, 0.0, "group C19", 1.0, 1.1, "item", "hash"),
    ColumnShape("C21", 7046547, 0.0, "group C3", 4.76, 1.080, "item", "rank"),
    ColumnShape("C22", 18, 0.0, "C22", 1.0, 3.0, "context", "hash"),
    ColumnShape("C23", 15, 0.444, "", 0.57, 2.219, "item", "hash"),
    ColumnShape("C24", 286181, 0.074, "group C3", 15.4, 1.354, "item", "rank"),
    ColumnShape("C25", 105, 0.0, "group C19", 2.58, 4.000, "item", "hash"),
    ColumnShape("C26", 142572, 0.0, "group C19", 16.0, 1.332, "user", "rank"),
)


@dataclass(frozen=True)
class CountShape:
    """One count: exp of a normal with `mean` and `deviation`, missing in a share of the inputs, with its group.

    Attributes
    ----------
    weight
        Of the standardised logarithm of the count in the planted click model.
    """

    name: str
    mean: float
    deviation: float
    missing: str
    weight: float = 0.0
    shift: int = 0


COUNT_MISSING_SHARES = {"": 0.0, "I1": 0.45, "I3": 0.21, "I4": 0.22, "I5": 0.03, "I6": 0.22, "I7": 0.04, "I12": 0.76}

# Chosen to look like the public log (magnitudes, missing shares and which counts go missing together), not fitted.
COUNTS = (
    CountShape("I1", 0.8, 1.1, "I1", 0.6),
    CountShape("I2", 2.0, 2.0, "", -0.3, shift=-2),
    CountShape("I3", 2.0, 1.4, "I3"),
    CountShape("I4", 1.6, 0.9, "I4", -0.3),
    CountShape("I5", 7.5, 2.2, "I5", -0.5),
    CountShape("I6", 3.6, 1.5, "I6", -0.4),
    CountShape("I7", 1.6, 1.4, "I7", 0.6),
    CountShape("I8", 2.0, 1.1, ""),
    CountShape("I9", 3.9, 1.3, "I7", 0.2),
    CountShape("I10", 0.2, 0.5, "I1"),
    CountShape("I11", 0.9, 0.8, "I7", 0.5),
    CountShape("I12", 0.3, 0.6, "I12"),
    CountShape("I13", 1.7, 1.0, "I4", -0.2),
)


def hashed_positions(keys: IntArray, salt: int) -> FloatArray:
    """float64 in [0, 1): a fixed pseudo-random number for each key (splitmix64), another one for another salt."""
    mixed = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # arrays wrap around silently, as wanted
    mixed += np.uint64(salt * 0xD1B54A32D192ED03 & 0xFFFFFFFFFFFFFFFF)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
