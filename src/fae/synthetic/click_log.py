"""Generate a synthetic click log chunk by chunk, with labels drawn from planted probabilities.

The writers turn chunks into files (`fae.synthetic.text_writer`, `fae.synthetic.columnar_writer`). A chunk depends on
the configuration and its index alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fae.core.seeds import generator
from fae.synthetic.columns import FloatArray, Int32Array
from fae.synthetic.config import SyntheticConfig
from fae.synthetic.inputs import CHUNK_INPUTS, PART_WEIGHTS, DrawnInputs, TableInputs
from fae.synthetic.sequences import SequenceInputs
from fae.synthetic.shapes import TABLE_SHAPES

_AUC_BINS = 65_536


@dataclass(frozen=True, kw_only=True)
class SyntheticChunk:
    """Consecutive inputs of the log, n of them.

    Attributes
    ----------
    labels
        uint8 ``[n]``, 0 or 1.
    probabilities
        float64 ``[n]``: the planted model's click probabilities, from which the labels were drawn.
    counts
        int32 ``[n, K]``; `MISSING_COUNT` where missing. A transposed view: columns are contiguous, not rows.
    ids
        int32 ``[n, S]``: values by rank of popularity (before drift), -1 where missing. A transposed view, too.
    """

    labels: npt.NDArray[np.uint8]
    probabilities: FloatArray
    counts: Int32Array
    ids: Int32Array


class SyntheticLog:
    """Generates the log: chunk by chunk, in any order, from any thread."""

    def __init__(self, config: SyntheticConfig) -> None:
        self.config = config
        self._inputs: TableInputs | SequenceInputs
        if config.shape == "taobao":
            self._inputs = SequenceInputs(config)
        else:
            self._inputs = TableInputs(config, TABLE_SHAPES[config.shape])
        self.columns, self.dense_names = self._inputs.columns, self._inputs.dense_names
        # The scales of the logit's parts and the bias are fitted on inputs that are not in the log.
        draw = self._inputs.draw(generator(config.seed, "synthetic", "calibration"), 0, CHUNK_INPUTS)
        weights = {**PART_WEIGHTS, "popularity": config.label_gap}
        self._factors = {
            name: weights[name] / max(float(part.std(dtype=np.float64)), 1e-9) for name, part in draw.parts.items()
        }
        self._bias = -sum(self._factors[name] * float(part.mean(dtype=np.float64)) for name, part in draw.parts.items())
        self._bias += _bias_for(self._logits(draw), config.click_rate)

    def chunk(self, index: int) -> SyntheticChunk:
        """Inputs ``[index * CHUNK_INPUTS, (index + 1) * CHUNK_INPUTS)``, as if the log had no end."""
        random = generator(self.config.seed, "synthetic", "inputs", index)
        draw = self._inputs.draw(random, index * CHUNK_INPUTS, CHUNK_INPUTS)
        probabilities = 1.0 / (1.0 + np.exp(-self._logits(draw)))
        labels = (random.random(CHUNK_INPUTS) < probabilities).astype(np.uint8)
        return SyntheticChunk(labels=labels, probabilities=probabilities, counts=draw.counts.T, ids=draw.ids.T)

    def _logits(self, draw: DrawnInputs) -> FloatArray:
        total = np.full(CHUNK_INPUTS, self._bias)
        for name, part in draw.parts.items():
            total += np.float32(self._factors[name]) * part
        return total


@dataclass(frozen=True, kw_only=True)
class SyntheticSummary:
    """Facts of a written log.

    Attributes
    ----------
    best_auc, best_log_loss
        AUC and log loss of the planted probabilities on this log. No model can do better, except by chance. The AUC is
        NaN if only one label was drawn.
    """

    num_inputs: int
    num_bytes: int
    click_rate: float
    best_auc: float
    best_log_loss: float


class ClickTally:
    """Sums from which the best possible AUC and log loss follow, added up chunk by chunk in any order."""

    def __init__(self) -> None:
        self.num_inputs = 0
        self._histogram = np.zeros((2, _AUC_BINS), np.int64)
        self._losses: list[float] = []

    def add(self, labels: npt.NDArray[np.uint8], probabilities: FloatArray) -> None:
        """Add some inputs: labels uint8 ``[n]``, probabilities float64 ``[n]``."""
        bins = (probabilities * _AUC_BINS).astype(np.int64)
        bins += labels.astype(np.int64) * _AUC_BINS
        self._histogram += np.bincount(bins, minlength=2 * _AUC_BINS).reshape(2, _AUC_BINS)
        self._losses.append(-float(np.log(np.where(labels == 1, probabilities, 1.0 - probabilities)).sum()))
        self.num_inputs += len(labels)

    def merge(self, other: ClickTally) -> None:
        """Add the sums of another tally."""
        self._histogram += other._histogram
        self._losses += other._losses
        self.num_inputs += other.num_inputs

    def summary(self, num_bytes: int) -> SyntheticSummary:
        """The facts of the log that was added up."""
        return SyntheticSummary(
            num_inputs=self.num_inputs,
            num_bytes=num_bytes,
            click_rate=float(self._histogram[1].sum() / self.num_inputs),
            best_auc=auc_of_histogram(self._histogram),
            best_log_loss=math.fsum(self._losses) / self.num_inputs,
        )


def auc_of_histogram(histogram: npt.NDArray[np.int64]) -> float:
    """Area under the ROC curve from counts ``[2, bins]`` of negatives and positives by rising score; ties count half.

    >>> auc_of_histogram(np.array([[2, 0], [0, 3]])), auc_of_histogram(np.array([[1, 1], [1, 1]]))
    (1.0, 0.5)
    """
    negatives, positives = histogram.astype(np.float64)
    below = np.cumsum(negatives) - negatives
    pairs = negatives.sum() * positives.sum()
    return float(positives @ (below + 0.5 * negatives) / pairs) if pairs else float("nan")


def _bias_for(logits: FloatArray, rate: float) -> float:
    """The bias with which the mean click probability is `rate`, by bisection."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        if float((1.0 / (1.0 + np.exp(-(logits + middle)))).mean()) < rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2
