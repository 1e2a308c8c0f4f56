"""The distribution of one column of a synthetic log, and how random bits become its values.

Everything here is a pure function of arrays and of the random generator. How columns depend on one another is decided
by the generators of inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]

QUANTILE_BITS = 13
FINE_QUANTILE_BITS = 16
"""For small columns that share their draws with no other: with wider quantiles, rare values would be too frequent."""

MISSING_COUNT = -4
"""Marks a missing count; real counts start at -1."""
MAX_COUNT = 99_999
_FEW_VALUES = 1000
"""Columns with no more values than this are not scaled: small tables stay small tables."""


@dataclass(frozen=True)
class ColumnShape:
    """One categorical column.

    Attributes
    ----------
    num_embeddings
        Distinct values in the whole log, including the missing value.
    head_share
        Share of the inputs with the most frequent value, if that lies outside the curve; else 0.
    missing
        Name of the group of columns that go missing together (`LogShape.missing_shares`), or "".
    offset, exponent
        Zipf-Mandelbrot curve of the other values: the weight of value k is (k + offset) ** -exponent.
    source
        What decides the value: the input's item, its user, the time, or chance alone (``context``).
    mapping
        ``rank``: popular items (users) have popular values; ``hash``: the value does not depend on popularity, like a
        colour.
    knee, tail_exponent
        From value `knee` on the curve continues, without a jump, with `tail_exponent`; 0 means no knee.
    noise
        Share of the values that are drawn independently of item and user.
    """

    name: str
    num_embeddings: int
    head_share: float
    missing: str
    offset: float
    exponent: float
    source: Literal["item", "user", "context", "time"]
    mapping: Literal["rank", "hash"] = "hash"
    knee: float = 0.0
    tail_exponent: float = 1.0
    noise: float = 0.007

    def at_scale(self, scale: float, missing_share: float = 0.0) -> Marginal:
        """The column's distribution when every large table has `scale` times its rows."""
        num_values = max(round(self.num_embeddings * scale), min(self.num_embeddings, _FEW_VALUES))
        ratio = num_values / self.num_embeddings
        reserved = (self.head_share > 0) + (self.missing != "")
        # With a flat top as wide as the shrunken table no skew would be left.
        offset = max(self.offset * ratio, min(self.offset, 8.0))
        head = min(self.head_share / (1.0 - missing_share), 1.0)
        return Marginal(max(1, num_values - reserved), head, offset, self.exponent, self.knee * ratio,
                        self.tail_exponent)  # fmt: skip


@dataclass(frozen=True)
class Marginal:
    """Distribution of a column's present values: value 0 with `head_share`, then `size` values along the curve."""

    size: int
    head_share: float
    offset: float
    exponent: float
    knee: float = 0.0
    tail_exponent: float = 1.0

    @property
    def num_values(self) -> int:
        """Number of values, including the head."""
        return self.size + (self.head_share > 0)

    def table(self, quantile_bits: int = QUANTILE_BITS) -> QuantileTable:
        """The distribution as a table of quantiles. Draws use the table, so by definition it is the distribution."""
        share = np.arange((1 << quantile_bits) + 1) / (1 << quantile_bits)
        bounds = self._tail_rank(np.maximum((share - self.head_share) / (1.0 - self.head_share), 0.0))
        if self.head_share:
            bounds = np.where(share < self.head_share, share / self.head_share, 1.0 + bounds)
        return QuantileTable(np.minimum(bounds, self.num_values - 1e-6))

    def _tail_rank(self, share: FloatArray) -> FloatArray:
        """Real rank in [0, size] below which the share lies: the inverted integral of the curve, piece by piece."""
        knee = self.knee if 0.0 < self.knee < self.size else float(self.size)
        head = _integral(self.offset, knee + self.offset, self.exponent)
        # Weights behind the knee, relative to the weight at the knee.
        level = (knee + self.offset) ** -self.exponent
        relative = _integral(1.0, (self.size + self.offset) / (knee + self.offset), self.tail_exponent)
        tail = level * (knee + self.offset) * relative
        mass = share * (head + tail)
        first = _inverse(np.minimum(mass, head), self.offset, self.exponent) - self.offset
        behind = np.maximum(mass - head, 0.0) / (level * (knee + self.offset))
        second = _inverse(behind, 1.0, self.tail_exponent) * (knee + self.offset) - self.offset
        return np.where(mass <= head, first, second)


class QuantileTable:
    """``2 ** quantile_bits`` equally likely ranges of ranks; within a range the distribution is uniform.

    A draw is some random bits: the first `quantile_bits` choose the range, the others the place within it. Computing
    the curve for every draw instead would take most of the time of a log.
    """

    def __init__(self, bounds: FloatArray) -> None:
        self.quantile_bits = (len(bounds) - 1).bit_length() - 1
        self.low: FloatArray = bounds[:-1].copy()
        self.step: FloatArray = np.diff(bounds)

    def draw(self, bits: npt.NDArray[Any]) -> Int32Array:
        """int32 ranks of random bits."""
        return self.ranks(*split_bits(bits, self.quantile_bits))

    def ranks(self, quantiles: Int64Array, inside: FloatArray) -> Int32Array:
        """int32 ranks of draws that `split_bits` has split; rank 0 is the most frequent value."""
        ranks = self.step.take(quantiles)
        ranks *= inside
        ranks += self.low.take(quantiles)
        return ranks.astype(np.int32)

    def share_below(self, ranks: FloatArray) -> FloatArray:
        """Share of the draws that are below each rank."""
        bounds = np.append(self.low, self.low[-1] + self.step[-1])
        share: FloatArray = np.interp(ranks, bounds, np.linspace(0.0, 1.0, len(bounds)), right=1.0)
        return share


def random_bits(random: np.random.Generator, size: int) -> npt.NDArray[np.uint32]:
    """Uniform random bits, uint32 ``[size]``."""
    return random.integers(0, 2**32 - 1, size, np.uint32, endpoint=True)


def split_bits(bits: npt.NDArray[Any], quantile_bits: int = QUANTILE_BITS) -> tuple[Int64Array, FloatArray]:
    """Split random bits (uint64 or uint32) into the number of a quantile and the place within it, in [0, 1)."""
    width = 8 * bits.dtype.itemsize
    kind = bits.dtype.type
    quantiles = (bits >> kind(width - quantile_bits)).astype(np.int64)
    inside = (bits & kind((1 << (width - quantile_bits)) - 1)).astype(np.float64)
    inside *= 2.0 ** (quantile_bits - width)
    # 51 bits and fewer are exact, so this stays below 1.
    return quantiles, inside


def _integral(start: float, stop: float, exponent: float) -> float:
    """Integral of x ** -exponent from start to stop."""
    power = 1.0 - exponent
    if abs(power) < 1e-9:
        return float(np.log(stop / start))
    return float((stop**power - start**power) / power)


def _inverse(mass: FloatArray, start: float, exponent: float) -> FloatArray:
    """The stop at which the integral from `start` is `mass`."""
    power = 1.0 - exponent
    if abs(power) < 1e-9:
        return np.asarray(start * np.exp(mass))
    inner = np.maximum(start**power + power * mass, 1e-300)
    return np.asarray(inner ** (1.0 / power))


@dataclass(frozen=True)
class CountShape:
    """One count: exp of a normal variable, missing in a share of the inputs together with its group.

    Attributes
    ----------
    weight
        Weight of the standardised logarithm of the count in the planted click model.
    """

    name: str
    mean: float
    deviation: float
    missing: str
    weight: float = 0.0
    shift: int = 0


def mixed_bits(keys: npt.NDArray[Any], salt: int) -> npt.NDArray[np.uint32]:
    """Pseudo-random bits, uint32, fixed by key and salt; a bijection of the key's low 32 bits."""
    mixed = keys.astype(np.uint32)
    mixed ^= np.uint32((salt * 0x9E3779B1 + 0x85EBCA6B) & 0xFFFFFFFF)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(factor)
    mixed ^= mixed >> np.uint32(16)
    return mixed


def spread_bits(bits: npt.NDArray[np.uint32], salt: int) -> npt.NDArray[np.uint32]:
    """Other pseudo-random bits from `mixed_bits`, for one multiplication."""
    # Odd multiples of the golden ratio: products of two different ones agree in no short pattern of high bits.
    factor = (0x9E3779B1 * (2 * salt + 1)) & 0xFFFFFFFF
    return (bits ^ (bits >> np.uint32(15))) * np.uint32(factor)
