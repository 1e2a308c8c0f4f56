"""Draw the inputs of a synthetic click log: correlated columns and a planted click model.

Every input has a user and an item, both popular by a Zipf law. A column shows one of them (or neither) through a fixed
function, sometimes replaced by noise. So the columns of one input agree on how popular it is, which decides the
hot-input share: independent columns with the same skew miss it by a factor of fifteen (docs/guide/synthetic.md). The
clicks follow a planted model of user, item and counts, so the AUC that no model can beat is known.

The inputs of a chunk depend on the configuration and its index alone, so chunks are drawn in any order and by several
threads. Sessions and feedback between model and log are not imitated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fae.core.seeds import generator
from fae.synthetic.columns import (
    FINE_QUANTILE_BITS,
    MAX_COUNT,
    MISSING_COUNT,
    QUANTILE_BITS,
    ColumnShape,
    Int32Array,
    mixed_bits,
    random_bits,
    split_bits,
    spread_bits,
)
from fae.synthetic.config import SyntheticConfig
from fae.synthetic.shapes import LogShape

CHUNK_INPUTS = 16_384
"""Inputs drawn from one random stream; part of the meaning of a seed."""
KEY_PIECES = 4096
"""No user or item decides more than 1 / KEY_PIECES of a hashed column: the most popular ones count as several."""
_DRIFTING_VALUES = 1000  # columns with more values drift
_FINE_VALUES = 4096  # columns with at most this many values have the finer quantiles
_EFFECT_BITS = 16
_VECTOR_DIM = 4
# Standard deviations of the parts of the logit; together they put the best AUC near 0.8.
PART_WEIGHTS = {"user": 0.68, "item": 0.68, "affinity": 0.55, "pair": 0.35, "counts": 0.68}

Float32Array = npt.NDArray[np.float32]
Parts = dict[str, Float32Array]


@dataclass(frozen=True, kw_only=True)
class ColumnFacts:
    """What a writer needs to know about one categorical column.

    Attributes
    ----------
    num_values
        Values are in ``[0, num_values)``, with drift, roughly in order of popularity.
    length
        Slots of an input (L); 1 for a plain column.
    can_miss
        Whether -1 is a missing value, which has its own row. In a list (length above 1), -1 is an unused slot.
    """

    name: str
    num_values: int
    length: int = 1
    can_miss: bool = False


@dataclass(frozen=True, kw_only=True)
class DrawnInputs:
    """n drawn inputs: ids int32 ``[S, n]``, counts int32 ``[K, n]``, parts of the logit, float32 ``[n]`` each."""

    ids: Int32Array
    counts: Int32Array
    parts: Parts


class Effects:
    """The planted model's weights: a fixed random number and vector for each key."""

    def __init__(self, seed: int) -> None:
        random = generator(seed, "synthetic", "effects")
        self._numbers = random.standard_normal(1 << _EFFECT_BITS, np.float32)
        self._vectors = random.standard_normal((1 << _EFFECT_BITS, _VECTOR_DIM), np.float32)

    def number(self, keys: npt.NDArray[np.int32], salt: int) -> Float32Array:
        """A fixed standard normal number for each key."""
        return self._numbers.take(_slots(keys, salt))

    def agreement(self, first: npt.NDArray[np.int32], second: npt.NDArray[np.int32]) -> Float32Array:
        """Dot products of the keys' latent vectors."""
        vectors = [self._vectors.take(_slots(keys, 101 + side), axis=0) for side, keys in enumerate((first, second))]
        products: Float32Array = np.einsum("nd,nd->n", *vectors)
        return products


def _slots(keys: npt.NDArray[np.int32], salt: int) -> npt.NDArray[np.int64]:
    return (mixed_bits(keys, salt) >> np.uint32(32 - _EFFECT_BITS)).astype(np.int64)


class TableInputs:
    """Inputs of plain columns: one value a column, some counts.

    Parameters
    ----------
    shape
        The columns; `config.shape` is not used.
    """

    def __init__(self, config: SyntheticConfig, shape: LogShape) -> None:
        self._config, self._shape = config, shape
        self._index = {column.name: index for index, column in enumerate(shape.columns)}
        marginals = [c.at_scale(config.scale, shape.missing_shares.get(c.missing, 0.0)) for c in shape.columns]
        # Columns that follow the rank of a user or item share its quantiles; the others may have finer ones.
        self._tables = [
            m.table(FINE_QUANTILE_BITS if m.size <= _FINE_VALUES and c.mapping == "hash" else QUANTILE_BITS)
            for m, c in zip(marginals, shape.columns, strict=True)
        ]
        self._num_values = [marginal.num_values for marginal in marginals]
        self._effects = Effects(config.seed)

        generations = config.num_generations
        self.columns = tuple(
            ColumnFacts(
                name=column.name,
                num_values=size * (generations if _drifts(column) else 1),
                can_miss=column.missing != "",
            )
            for column, size in zip(shape.columns, self._num_values, strict=True)
        )
        self.dense_names = tuple(count.name for count in shape.counts)
        # Standardised logarithms of the counts, times their weights: 0 where a count is missing.
        numbers = np.arange(MISSING_COUNT, MAX_COUNT + 1)
        self._count_weights = [
            np.where(
                numbers == MISSING_COUNT,
                0.0,
                count.weight * (np.log1p(np.maximum(numbers - count.shift, 0)) - count.mean) / count.deviation,
            ).astype(np.float32)
            for count in shape.counts
        ]

    def draw(self, random: np.random.Generator, start: int, size: int) -> DrawnInputs:
        """Draw `size` inputs, of which the first is number `start` of the log."""
        shape = self._shape
        latent = [random.integers(0, 2**64 - 1, size, np.uint64, endpoint=True) for _ in range(2)]
        places = {name: split_bits(bits) for name, bits in zip(("user", "item"), latent, strict=True)}
        keys = {}
        for (name, (quantiles, inside)), of, bits in zip(places.items(), shape.latent, latent, strict=True):
            keys[name] = self._tables[self._index[of]].ranks(quantiles, inside)
            keys[name] += (bits >> np.uint64(64 - (KEY_PIECES.bit_length() - 1))).astype(np.int32)
        hashed = {name: mixed_bits(key, salt) for salt, (name, key) in enumerate(keys.items())}
        missing = {
            name: np.flatnonzero(random.random(size, np.float32) < share)
            for name, share in shape.missing_shares.items()
        }
        ids = np.empty((len(shape.columns), size), np.int32)
        for index, (column, table) in enumerate(zip(shape.columns, self._tables, strict=True)):
            if column.source == "time":
                at = np.arange(start, start + size, dtype=np.int64)
                ids[index] = at * self._num_values[index] // self._config.num_inputs
                continue
            if column.source == "context":
                values = table.draw(random_bits(random, size))
            else:
                by_rank = column.mapping == "rank"
                if by_rank:
                    values = table.ranks(*places[column.source])
                else:
                    values = table.draw(spread_bits(hashed[column.source], index))
                noisy = random.integers(0, size, round(column.noise * size))
                values[noisy] = table.draw(random_bits(random, len(noisy)))
            if _drifts(column) and self._config.drift:
                self._drift(values, start, self._num_values[index])
            if column.missing:
                values[missing[column.missing]] = -1
            ids[index] = values
        counts, weighted = self._draw_counts(random, size, keys["user"])
        parts = self._parts(ids, keys, weighted)
        if self._config.label_gap:
            parts["popularity"] = _popularity(latent)
        return DrawnInputs(ids=ids, counts=counts, parts=parts)

    def _drift(self, values: Int32Array, start: int, num_values: int) -> None:
        """Replace drifted values in place: each has its own moment of change, and a day changes `drift` of them."""
        total, days = self._config.num_inputs, self._config.num_days
        first, last = (min(at * days // total, days - 1) for at in (start, start + len(values) - 1))
        for day in range(first, last + 1):
            whole, part = divmod(day * self._config.drift, 1.0)
            begin = max(-(-day * total // days) - start, 0) if day > first else 0
            end = min(-(-(day + 1) * total // days) - start, len(values)) if day < last else len(values)
            of_day = values[begin:end]
            moments = of_day.astype(np.uint32) * np.uint32(0x9E3779B1)
            late = moments >= np.uint32(min(round((1.0 - part) * 2.0**32), 2**32 - 1))
            of_day += np.int32(int(whole) * num_values)
            if part:
                of_day += late.astype(np.int32) * np.int32(num_values)

    def _draw_counts(
        self, random: np.random.Generator, size: int, users: Int32Array
    ) -> tuple[Int32Array, Float32Array]:
        shape = self._shape
        counts = np.empty((len(shape.counts), size), np.int32)
        total = np.zeros(size, np.float32)
        missing = {
            name: np.flatnonzero(random.random(size, np.float32) < share)
            for name, share in shape.count_missing_shares.items()
        }
        active = self._effects.number(users, 100) * np.float32(0.5) if shape.counts else total
        for index, count in enumerate(shape.counts):
            drawn = random.standard_normal(size, np.float32)
            drawn *= np.float32(np.sqrt(0.75))
            drawn += active
            drawn *= np.float32(count.deviation)
            drawn += np.float32(count.mean)
            np.exp(drawn, out=drawn)
            np.minimum(drawn, np.float32(MAX_COUNT), out=drawn)
            numbers = drawn.astype(np.int32)
            if count.shift:
                numbers += count.shift
                np.maximum(numbers, -1, out=numbers)
            if count.missing:
                numbers[missing[count.missing]] = MISSING_COUNT
            counts[index] = numbers
            if count.weight:
                total += self._count_weights[index].take(numbers - MISSING_COUNT)
        return counts, total

    def _parts(self, ids: Int32Array, keys: dict[str, Int32Array], counts: Float32Array) -> Parts:
        shape, effects = self._shape, self._effects
        user, item, first, second = (ids[self._index[name]] for name in (shape.user, shape.item, *shape.pair))
        half = np.float32(0.5)
        parts = {
            "user": effects.number(user, 103) + half * effects.number(keys["user"], 104),
            "item": effects.number(item, 105) + half * effects.number(keys["item"], 106),
            "affinity": effects.agreement(user, item),
            "pair": effects.number(first * np.int32(4096) + second, 107),
            "counts": counts,
        }
        return parts if shape.counts else {name: part for name, part in parts.items() if name != "counts"}


def _popularity(latent: list[npt.NDArray[np.uint64]]) -> Float32Array:
    """Popularity of each input from -1 (rare) to 0: that of the rarer of user and item, which decides if it is hot.

    It is minus the share of the log that more popular users (items) take, so each is uniform over the log.
    """
    rarer = np.maximum(*latent)
    return -(rarer >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def _drifts(column: ColumnShape) -> bool:
    return column.num_embeddings > _DRIFTING_VALUES and column.source != "time"
