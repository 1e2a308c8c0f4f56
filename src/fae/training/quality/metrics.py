"""How good predictions are: AUC, log loss, accuracy, normalised entropy; in float64, weighted where a log has weights.

A figure that is not defined (AUC of one class) is None.

Two logits are tied for the AUC where they differ by less than rounding may: the same input gets other last bits in a
batch of another size, on another device or number of threads. Logits are passed through upwards, and one begins a new
group where it is more than `TIE` (relative to its size, from 1 on) above the first of the open group; a group is a tie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TIE = 2.0**-14
"""Far above rounding (some 2**-22 of a logit near 1), far below a difference that predicts anything."""


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
    wide = logits.astype(np.float64)
    small = np.exp(-np.abs(wide))
    result: npt.NDArray[np.float64] = np.where(wide >= 0, 1.0, small) / (1.0 + small)
    return result


def tie_groups(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """int64 ``[n]``: number of each score's group of ties, from 0, ascending with the scores.

    >>> tie_groups(np.array([0.5, -1.0, 0.5000001, 3e8, 3e8 + 64]))
    array([1, 0, 1, 2, 2])
    """
    distinct, place = np.unique(scores, return_inverse=True)
    width = TIE * np.maximum(1.0, np.abs(distinct))
    width[~np.isfinite(distinct)] = 0.0
    following = np.searchsorted(distinct, distinct + width, side="right").tolist()
    begins = np.zeros(len(distinct), np.int64)
    at = 0
    while at < len(following):
        begins[at] = 1
        at = following[at]
    found: npt.NDArray[np.int64] = (np.cumsum(begins) - 1)[place]
    return found


def area_under_curve(
    labels: npt.NDArray[np.float64], scores: npt.NDArray[np.float64], weights: npt.NDArray[np.float64] | None = None
) -> float | None:
    """AUC: the share of pairs of a 1 and a 0, by the product of their weights, whose 1 has the higher score.

    Scores that are equal up to rounding (`tie_groups`) count half. None where a class has no weight.

    >>> area_under_curve(np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.1, 0.9, 0.4, 0.4]))
    0.875
    """
    groups = tie_groups(scores)
    counted = np.ones(len(labels)) if weights is None else weights
    positive = np.bincount(groups, weights=counted * labels)
    negative = np.bincount(groups, weights=counted * (1.0 - labels))
    pairs = float(positive.sum() * negative.sum())
    if pairs == 0:
        return None
    below = np.cumsum(negative) - negative
    return float(np.dot(positive, below + negative / 2)) / pairs


def _losses(truth: npt.NDArray[np.float64], scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Cross-entropy of each input; of an infinite logit 0 where its label is right, else infinite."""
    if np.isfinite(scores).all():
        return np.asarray(np.logaddexp(0.0, scores) - truth * scores)
    return np.asarray(np.logaddexp(0.0, np.where(truth == 1, -scores, scores)))


def compute_metrics(
    labels: npt.NDArray[np.float32],
    logits: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32] | None = None,
) -> Metrics:
    """Metrics of logits ``[n]`` against labels ``[n]`` of 0 and 1; `weights` ``[n]`` are 0 or more, None is 1 each."""
    given = None if weights is None else weights.astype(np.float64)
    total = float(len(labels)) if given is None else float(given.sum())
    if total == 0:
        return Metrics(
            auc=None, log_loss=None, accuracy=None, normalized_entropy=None, num_inputs=len(labels), label_rate=None
        )

    def mean(values: npt.NDArray[np.floating | np.bool_]) -> float:
        return float(np.mean(values)) if given is None else float(np.dot(values[given > 0], given[given > 0])) / total

    truth, scores = labels.astype(np.float64), logits.astype(np.float64)
    rate = mean(truth)
    if np.isnan(scores).any():  # a model that diverged: ranks and signs of NaN would look like figures
        return Metrics(
            auc=None,
            log_loss=None,
            accuracy=None,
            normalized_entropy=None,
            num_inputs=len(labels),
            label_rate=rate,
        )
    log_loss = mean(_losses(truth, scores))
    entropy = -sum(p * np.log(p) for p in (rate, 1 - rate) if p > 0)
    is_finite = bool(np.isfinite(log_loss))
    return Metrics(
        auc=area_under_curve(truth, scores, given),
        log_loss=log_loss if is_finite else None,
        accuracy=mean((scores > 0) == (truth == 1)),
        normalized_entropy=log_loss / float(entropy) if entropy > 0 and is_finite else None,
        num_inputs=len(labels),
        label_rate=rate,
    )
