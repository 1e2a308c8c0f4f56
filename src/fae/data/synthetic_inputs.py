"""The inputs of a made-up click log: correlated columns, a planted click model. `fae.data.synthetic` writes them.

Every input has a user and an item, both popular by a Zipf law; a column shows one of them (or neither) through a fixed
function, now and then replaced by noise. So columns of one input agree on how popular it is, which is what decides the
hot-input share: independent columns with the same skew miss it by a factor of fifteen (docs/synthetic.md).
The clicks follow a planted model of user, item and counts, so the AUC that no model can beat is known.

Invariant: a chunk depends on the configuration and its index alone.
It does not imitate sessions, the time of day or feedback between model and log.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fae.core.errors import RecipeError
from fae.core.seeds import generator
from fae.data.synthetic_columns import (
    COLUMNS,
    COUNT_MISSING_SHARES,
    COUNTS,
    MAX_COUNT,
    MISSING_COUNT,
    MISSING_SHARES,
    FloatArray,
    IntArray,
    hashed_positions,
)

CHUNK_INPUTS = 16_384
"""Inputs drawn from one random stream; part of the meaning of a seed."""
_NOISE = 0.01
"""Share of a column's values that ignore the user or item."""
_DRIFTING_VALUES = 1000
_NUM_EFFECTS = 65_536
_VECTOR_DIM = 4
_USER_SEGMENT, _ITEM_CATEGORY, _PAIR = "C13", "C10", ("C17", "C14")
_COLUMN_INDEX = {shape.name: index for index, shape in enumerate(COLUMNS)}
# Standard deviations of the parts of the logit; together they put the best AUC near 0.8.
_PART_WEIGHTS = {"user": 0.68, "item": 0.68, "affinity": 0.55, "pair": 0.35, "counts": 0.68}


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """What the made-up log is like.

    Attributes
    ----------
    num_inputs
        Lines of the whole log.
    scale
        Rows of the large tables, as a share of Criteo Kaggle's (1 is 33.8 M rows); small tables keep their size.
    num_days
        The log is cut into this many days of equal length, over which values of the large columns are replaced.
    drift
        Share of those values that are replaced by new ones every day.
    click_rate
        Share of the inputs that are clicked.
    """

    num_inputs: int = 200_000
    scale: float = 0.01
    num_days: int = 7
    drift: float = 0.005
    click_rate: float = 0.25
    seed: int = 1

    def __post_init__(self) -> None:
        if self.num_inputs < 1:
            raise RecipeError(f"synthetic num_inputs = {self.num_inputs} must be 1 or more")
        if not 0 < self.scale <= 4:
            raise RecipeError(f"synthetic scale = {self.scale} must be more than 0 and at most 4")
        if not 1 <= self.num_days <= 100:
            raise RecipeError(f"synthetic num_days = {self.num_days} must be from 1 to 100")
        if not 0 <= self.drift < 1:
            raise RecipeError(f"synthetic drift = {self.drift} must be at least 0 and less than 1")
        if not 0 < self.click_rate < 1:
            raise RecipeError(f"synthetic click_rate = {self.click_rate} must be more than 0 and less than 1")
        if self.seed < 0:
            raise RecipeError(f"synthetic seed = {self.seed} must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class SyntheticChunk:
    """Consecutive inputs of the log, n of them.

    Attributes
    ----------
    labels
        uint8 ``[n]``.
    probabilities
        float64 ``[n]``: the planted model's, from which the labels were drawn.
    counts
        int64 ``[n, 13]``; `MISSING_COUNT` where missing.
    ids
        int64 ``[n, 26]``: values by rank of popularity (before drift), -1 where missing.
    """

    labels: npt.NDArray[np.uint8]
    probabilities: FloatArray
    counts: IntArray
    ids: IntArray


class SyntheticLog:
    """The generator: chunk by chunk, in any order."""

    def __init__(self, config: SyntheticConfig) -> None:
        self.config = config
        self._marginals = [shape.at_scale(config.scale) for shape in COLUMNS]
        # Users and items are as many, and as skewed, as the values of the largest column.
        self._latent = self._marginals[_COLUMN_INDEX["C3"]]
        random = generator(config.seed, "synthetic", "effects")
        self._effects: FloatArray = random.standard_normal(_NUM_EFFECTS)
        self._vectors: FloatArray = random.standard_normal((2, _NUM_EFFECTS, _VECTOR_DIM))
        # The parts are put to their weights, and the bias to the click rate, on inputs that are not in the log.
        ids, users, items, logs, _ = self._features(generator(config.seed, "synthetic", "calibration"), 4096, 0)
        parts = self._parts(ids, users, items, logs)
        self._centers = {name: float(part.mean()) for name, part in parts.items()}
        self._factors = {name: _PART_WEIGHTS[name] / max(float(part.std()), 1e-9) for name, part in parts.items()}
        self._bias = 0.0
        self._bias = _bias_for(self._logits(parts), config.click_rate)

    def chunk(self, index: int) -> SyntheticChunk:
        """Inputs ``index * CHUNK_INPUTS`` and the `CHUNK_INPUTS` - 1 that follow."""
        random = generator(self.config.seed, "synthetic", "inputs", index)
        ids, users, items, logs, counts = self._features(random, CHUNK_INPUTS, index * CHUNK_INPUTS)
        probabilities = 1.0 / (1.0 + np.exp(-self._logits(self._parts(ids, users, items, logs))))
        labels = (random.random(CHUNK_INPUTS) < probabilities).astype(np.uint8)
        return SyntheticChunk(labels=labels, probabilities=probabilities, counts=counts, ids=ids)

    def _features(
        self, random: np.random.Generator, size: int, start: int
    ) -> tuple[IntArray, IntArray, IntArray, FloatArray, IntArray]:
        """Ids, users, items, standardised logarithms of the counts (0 where missing), counts."""
        day = (start + np.arange(size)) * self.config.num_days // self.config.num_inputs
        users, items = (self._latent.quantile(random.random(size)) for _ in range(2))
        ranks = {
            "user": (users, self._latent.position(users, hashed_positions(users, 1))),
            "item": (items, self._latent.position(items, hashed_positions(items, 2))),
        }
        missing = {name: random.random(size) < share for name, share in MISSING_SHARES.items()}
        ids = np.empty((size, len(COLUMNS)), np.int64)
        for column, (shape, marginal) in enumerate(zip(COLUMNS, self._marginals, strict=True)):
            position = random.random(size)
            if shape.source != "context":
                latent, ranked = ranks[shape.source]
                shown = ranked if shape.mapping == "rank" else hashed_positions(latent, 3 + column)
                position = np.where(position < _NOISE, position / _NOISE, shown)
            values = marginal.quantile(position)
            if shape.num_embeddings > _DRIFTING_VALUES:
                generation = np.floor(day * self.config.drift + hashed_positions(values, 3)).astype(np.int64)
                values += generation * (marginal.size + 1)
            if shape.missing:
                values[missing[shape.missing]] = -1
            ids[:, column] = values
        logs, counts = self._draw_counts(random, users)
        return ids, users, items, logs, counts

    def _draw_counts(self, random: np.random.Generator, users: IntArray) -> tuple[FloatArray, IntArray]:
        size = len(users)
        logs = np.zeros((size, len(COUNTS)))
        counts = np.empty((size, len(COUNTS)), np.int64)
        missing = {name: random.random(size) < share for name, share in COUNT_MISSING_SHARES.items()}
        active = self._effect(users, 100)
        for column, shape in enumerate(COUNTS):
            drawn = 0.5 * active + np.sqrt(0.75) * random.standard_normal(size)
            real = np.minimum(np.exp(shape.mean + shape.deviation * drawn), MAX_COUNT)
            counts[:, column] = real.astype(np.int64) + shape.shift
            logs[:, column] = (np.log1p(np.floor(real)) - shape.mean) / shape.deviation
            counts[missing[shape.missing], column] = MISSING_COUNT
            logs[missing[shape.missing], column] = 0.0
        np.maximum(counts, -1, out=counts, where=counts != MISSING_COUNT)
        return logs, counts

    def _parts(self, ids: IntArray, users: IntArray, items: IntArray, logs: FloatArray) -> dict[str, FloatArray]:
        segment, category = ids[:, _COLUMN_INDEX[_USER_SEGMENT]], ids[:, _COLUMN_INDEX[_ITEM_CATEGORY]]
        first, second = (ids[:, _COLUMN_INDEX[name]] for name in _PAIR)
        of_user, of_item = (
            self._vectors[side, self._slot(key, 101 + side)] for side, key in enumerate((segment, category))
        )
        return {
            "user": self._effect(segment, 103) + 0.5 * self._effect(users, 104),
            "item": self._effect(category, 105) + 0.5 * self._effect(items, 106),
            "affinity": np.einsum("nd,nd->n", of_user, of_item),
            "pair": self._effect(first * 4096 + second, 107),
            "counts": logs @ np.array([shape.weight for shape in COUNTS]),
        }

    def _logits(self, parts: dict[str, FloatArray]) -> FloatArray:
        total = np.full(len(parts["user"]), self._bias)
        for name, part in parts.items():
            total += self._factors[name] * (part - self._centers[name])
        return total

    def _slot(self, keys: IntArray, salt: int) -> IntArray:
        slots: IntArray = (hashed_positions(keys, salt) * _NUM_EFFECTS).astype(np.int64)
        return slots

    def _effect(self, keys: IntArray, salt: int) -> FloatArray:
        """A fixed standard normal number for each key."""
        return self._effects[self._slot(keys, salt)]


def _bias_for(logits: FloatArray, rate: float) -> float:
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        if float((1.0 / (1.0 + np.exp(-(logits + middle)))).mean()) < rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2
