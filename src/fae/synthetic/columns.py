"""How one column of a made-up log is distributed, and how random bits become its values.

Place in the flow: beneath `fae.synthetic.shapes` (which log has which columns) and the generators.
Invariant: everything here is a pure function of arrays and of the generator it is given.
It does not say how columns depend on one another: that is the generators' business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]

CELL_BITS = 13
FINE_CELL_BITS = 16
"""Of small columns that share their draws with no other: rare values would else be as frequent as a stretch is wide."""

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
        Name of the group of columns that go missing together (`LogShape.missing_shares`), or "".
    offset, exponent
        Zipf-Mandelbrot curve of the other values: the weight of value k is (k + offset) ** -exponent.
    source
        What decides the value: the input's item, its user, the time, or nothing else in the input.
    mapping
        ``rank``: popular items (users) have popular values; ``hash``: unrelated to popularity, as a colour would be.
    knee, tail_exponent
        From value `knee` on the curve goes on, without a jump, with this exponent; a knee of 0 is none.
    noise
        Share of the values that ignore the item or user.
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
        # A flat top as wide as the shrunken table would leave no skew at all.
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
        """Values, the head included."""
        return self.size + (self.head_share > 0)

    def table(self, cell_bits: int = CELL_BITS) -> QuantileTable:
        """The distribution as a table: what draws use, and by definition the distribution itself."""
        share = np.arange((1 << cell_bits) + 1) / (1 << cell_bits)
        bounds = self._tail_rank(np.maximum((share - self.head_share) / (1.0 - self.head_share), 0.0))
        if self.head_share:
            bounds = np.where(share < self.head_share, share / self.head_share, 1.0 + bounds)
        return QuantileTable(np.minimum(bounds, self.num_values - 1e-6))

    def _tail_rank(self, share: FloatArray) -> FloatArray:
        """Real rank in [0, size] below which the share lies: the integral of the curve, inverted piece by piece."""
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
    """Equally likely stretches of ranks, a power of two of them; within a stretch the distribution is even.

    Why a table: powers of every draw would take most of the time of a log. A draw is some random bits, of which the
    first `cell_bits` say which stretch and the others where in it.
    """

    def __init__(self, bounds: FloatArray) -> None:
        self.cell_bits = (len(bounds) - 1).bit_length() - 1
        self.low: FloatArray = bounds[:-1].copy()
        self.step: FloatArray = np.diff(bounds)

    def draw(self, bits: npt.NDArray[Any]) -> Int32Array:
        """int32 ranks of random bits."""
        return self.ranks(*split_bits(bits, self.cell_bits))

    def ranks(self, cells: IntArray, inside: FloatArray) -> Int32Array:
        """int32 ranks, the most frequent value 0."""
        ranks = self.step.take(cells)
        ranks *= inside
        ranks += self.low.take(cells)
        return ranks.astype(np.int32)

    def share_below(self, ranks: FloatArray) -> FloatArray:
        """The share of the draws that come out below each rank."""
        bounds = np.append(self.low, self.low[-1] + self.step[-1])
        share: FloatArray = np.interp(ranks, bounds, np.linspace(0.0, 1.0, len(bounds)), right=1.0)
        return share


def random_bits(random: np.random.Generator, size: int) -> npt.NDArray[np.uint32]:
    """uint32 ``[size]``, every bit even odds."""
    return random.integers(0, 2**32 - 1, size, np.uint32, endpoint=True)


def split_bits(bits: npt.NDArray[Any], cell_bits: int = CELL_BITS) -> tuple[IntArray, FloatArray]:
    """CounterIds and places within them, in [0, 1), of random bits: uint64 or uint32."""
    width = 8 * bits.dtype.itemsize
    kind = bits.dtype.type
    cells = (bits >> kind(width - cell_bits)).astype(np.int64)
    inside = (bits & kind((1 << (width - cell_bits)) - 1)).astype(np.float64)
    inside *= 2.0 ** (cell_bits - width)
    # 51 bits and fewer are exact, so this stays below 1.
    return cells, inside


def _integral(start: float, stop: float, exponent: float) -> float:
    """Of x ** -exponent from start to stop."""
    power = 1.0 - exponent
    if abs(power) < 1e-9:
        return float(np.log(stop / start))
    return float((stop**power - start**power) / power)


def _inverse(mass: FloatArray, start: float, exponent: float) -> FloatArray:
    """Where the integral from `start` reaches `mass`."""
    power = 1.0 - exponent
    if abs(power) < 1e-9:
        return np.asarray(start * np.exp(mass))
    inner = np.maximum(start**power + power * mass, 1e-300)
    return np.asarray(inner ** (1.0 / power))


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


def mixed_bits(keys: npt.NDArray[Any], salt: int) -> npt.NDArray[np.uint32]:
    """uint32: fixed pseudo-random bits for each key, others for another salt (a bijection of the key's low 32 bits)."""
    mixed = keys.astype(np.uint32)
    mixed ^= np.uint32((salt * 0x9E3779B1 + 0x85EBCA6B) & 0xFFFFFFFF)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(factor)
    mixed ^= mixed >> np.uint32(16)
    return mixed


def spread_bits(bits: npt.NDArray[np.uint32], salt: int) -> npt.NDArray[np.uint32]:
    """Other bits from bits that are mixed already, at the price of one multiplication."""
    # Odd multiples of the golden ratio: products of two different ones agree in no short pattern of high bits.
    factor = (0x9E3779B1 * (2 * salt + 1)) & 0xFFFFFFFF
    return (bits ^ (bits >> np.uint32(15))) * np.uint32(factor)
