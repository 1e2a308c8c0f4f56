"""How good predictions are: AUC, log loss, accuracy, normalised entropy; in float64, weighted where a log has weights.

A figure that is not defined (AUC of one class) is None.

Two logits are tied for the AUC where they differ by less than rounding may: the same input gets other last bits in a
batch of another size, on another device or number of threads. Logits are passed through upwards, and one begins a new
group where it is more than `TIE` (relative to its size, from 1 on) above the first of the open group; a group is a tie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.threads import run_ranges
from fae.training.quality.score_order import ascending_order, tie_groups

_BLOCK_INPUTS = 1 << 14
"""Inputs computed together: their temporary arrays stay in the cache."""
_MOST_EXACT = 2.0**51
"""Pairs up to which sums of halves are exact in any order."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics of one set of predictions; means over inputs are weighted where the log has weights.

    Attributes
    ----------
    auc
        Area under the ROC curve, ties counted half; None where only one class is there.
    log_loss
        Mean binary cross-entropy, natural log; None where a logit is not a number, or the mean is not finite.
    accuracy
        Share of labels that a threshold of 0.5 predicts.
    normalized_entropy
        log_loss over the entropy of the mean label (He et al., 2014): 1 means no better than the base rate; None
        where that entropy is 0.
    num_inputs
        How many inputs were predicted.
    label_rate
        Share of labels that are 1.
    """

    auc: float | None
    log_loss: float | None
    accuracy: float | None
    normalized_entropy: float | None
    num_inputs: int
    label_rate: float | None


def probabilities(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Probability of label 1, float64 ``[n]``; in float64, so that different logits stay different.

    >>> probabilities(np.array([0.0, -800.0], np.float32)).tolist()
    [0.5, 0.0]
    """
    result = np.empty(len(logits), np.float64)

    def work(start: int, stop: int) -> None:
        wide = logits[start:stop].astype(np.float64)
        small = np.exp(-np.abs(wide))
        np.divide(np.where(wide >= 0, 1.0, small), 1.0 + small, out=result[start:stop])

    _run_blocks(work, len(logits))
    return result


def _run_blocks(work: Callable[[int, int], None], size: int) -> None:
    def work_range(start: int, stop: int) -> None:
        for first in range(start, stop, _BLOCK_INPUTS):
            work(first, min(first + _BLOCK_INPUTS, stop))

    run_ranges(work_range, size, min_range=2 * _BLOCK_INPUTS)


class ScoredInputs:
    """Labels and logits of a set of inputs, with what several figures need of them, each made once.

    Parameters
    ----------
    labels, logits, weights
        Float32 ``[n]``: labels of 0 and 1; weights of 0 or more, None is 1 each.

    Attributes
    ----------
    labels, logits, weights
        As the parameters.
    """

    def __init__(
        self,
        labels: npt.NDArray[np.float32],
        logits: npt.NDArray[np.float32],
        weights: npt.NDArray[np.float32] | None = None,
    ) -> None:
        self.labels, self.logits, self.weights = labels, logits, weights

    @cached_property
    def total_weight(self) -> float:
        """Sum of the weights; their number where there are none."""
        return float(len(self.labels) if self.weights is None else self.weights.sum(dtype=np.float64))

    @cached_property
    def has_nan(self) -> bool:
        """Whether a logit is no number: a model that diverged."""
        return bool(np.isnan(self.logits).any())

    @cached_property
    def order(self) -> npt.NDArray[np.int64]:
        """int64 ``[n]``: as `fae.training.quality.score_order.ascending_order` of the logits."""
        return ascending_order(self.logits)

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """float64 ``[n]``: as `probabilities` of the logits."""
        return probabilities(self.logits)

    @cached_property
    def losses(self) -> npt.NDArray[np.float64]:
        """float64 ``[n]``: cross-entropy; of an infinite logit 0 where its label is right, else infinite."""
        found = np.empty(len(self.logits), np.float64)
        is_finite = self._is_finite

        def work(start: int, stop: int) -> None:
            truth, scores = (each[start:stop].astype(np.float64) for each in (self.labels, self.logits))
            part = found[start:stop]
            if is_finite:
                np.subtract(np.logaddexp(0.0, scores), truth * scores, out=part)
            else:
                np.logaddexp(0.0, np.where(truth == 1, -scores, scores), out=part)

        _run_blocks(work, len(found))
        return found

    @cached_property
    def _is_finite(self) -> bool:
        return bool(np.isfinite(self.logits).all())

    def mean(self, values: npt.NDArray[np.floating[Any] | np.bool_]) -> float:
        """Mean of values ``[n]`` of the inputs, by weight; one of weight 0 is not there."""
        if self.weights is None:
            return float(np.mean(values, dtype=np.float64))
        there = self.weights > 0
        return float(np.dot(values[there], self.weights[there].astype(np.float64))) / self.total_weight

    def part(self, chosen: npt.NDArray[np.bool_]) -> ScoredInputs:
        """Those of bool ``[n]``, in the same order, with what is known of them."""
        weights = None if self.weights is None else self.weights[chosen]
        found = ScoredInputs(self.labels[chosen], self.logits[chosen], weights)
        if "order" in self.__dict__:
            kept = self.order[chosen[self.order]]
            found.order = (np.cumsum(chosen) - 1)[kept]
        if "losses" in self.__dict__ and self._is_finite:  # with an infinite one they are computed otherwise
            found.losses = self.losses[chosen]
        return found


def area_under_curve(scored: ScoredInputs) -> float | None:
    """AUC: the share of pairs of a 1 and a 0, by the product of their weights, whose 1 has the higher score.

    Scores that are equal up to rounding (`tie_groups`) count half. None where a class has no weight.

    >>> area_under_curve(ScoredInputs(*np.array([[0, 1, 0, 1], [0.1, 0.9, 0.4, 0.4]], np.float32)))
    0.875
    """
    groups = tie_groups(scored.logits, scored.order)
    if scored.weights is None:
        positive = np.bincount(groups, weights=scored.labels)
        negative = np.bincount(groups) - positive
    else:
        truth, weights = scored.labels.astype(np.float64), scored.weights.astype(np.float64)
        positive = np.bincount(groups, weights=weights * truth)
        negative = np.bincount(groups, weights=weights * (1.0 - truth))
    pairs = float(positive.sum() * negative.sum())
    if pairs == 0:
        return None
    below = np.cumsum(negative) - negative
    if scored.weights is None and pairs < _MOST_EXACT:
        # As exact as the product below, whose threads wait for another one afterwards, each on a core of its own.
        return float((positive * (below + negative / 2)).sum()) / pairs
    return float(np.dot(positive, below + negative / 2)) / pairs


def compute_metrics(
    labels: npt.NDArray[np.float32],
    logits: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32] | None = None,
) -> Metrics:
    """Metrics of logits ``[n]`` against labels ``[n]`` of 0 and 1; `weights` ``[n]`` are 0 or more, None is 1 each."""
    return metrics_of(ScoredInputs(labels, logits, weights))


def metrics_of(scored: ScoredInputs) -> Metrics:
    """Metrics of scored inputs."""
    num_inputs = len(scored.labels)
    if scored.total_weight == 0:
        return Metrics(
            auc=None, log_loss=None, accuracy=None, normalized_entropy=None, num_inputs=num_inputs, label_rate=None
        )
    rate = scored.mean(scored.labels)
    if scored.has_nan:  # ranks and signs of NaN would look like figures
        return Metrics(
            auc=None, log_loss=None, accuracy=None, normalized_entropy=None, num_inputs=num_inputs, label_rate=rate
        )
    log_loss = scored.mean(scored.losses)
    entropy = -sum(p * np.log(p) for p in (rate, 1 - rate) if p > 0)
    is_finite = bool(np.isfinite(log_loss))
    return Metrics(
        auc=area_under_curve(scored),
        log_loss=log_loss if is_finite else None,
        accuracy=scored.mean((scored.logits > 0) == (scored.labels == 1)),
        normalized_entropy=log_loss / float(entropy) if entropy > 0 and is_finite else None,
        num_inputs=num_inputs,
        label_rate=rate,
    )
