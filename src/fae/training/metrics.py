"""How good predictions are: AUC, log loss, accuracy, normalised entropy; exact, in float64.

A figure that is not defined (AUC of one class) is None.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics of one set of predictions.

    Attributes
    ----------
    auc
        Area under the ROC curve, ties counted half; None where only one class is there.
    log_loss
        Mean binary cross-entropy, natural log.
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


def area_under_curve(labels: npt.NDArray[np.float64], scores: npt.NDArray[np.float64]) -> float | None:
    """AUC from mean ranks.

    >>> area_under_curve(np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.1, 0.9, 0.4, 0.4]))
    0.875
    """
    num_positive = int(labels.sum())
    num_negative = len(labels) - num_positive
    if num_positive == 0 or num_negative == 0:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last_rank = np.cumsum(counts)
    mean_rank = last_rank - (counts - 1) / 2
    rank_sum = float(mean_rank[place][labels == 1].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def compute_metrics(labels: npt.NDArray[np.float32], logits: npt.NDArray[np.float32]) -> Metrics:
    """Metrics of logits ``[n]`` against labels ``[n]`` of 0 and 1."""
    if len(labels) == 0:
        return Metrics(auc=None, log_loss=None, accuracy=None, normalized_entropy=None, num_inputs=0, label_rate=None)
    truth, scores = labels.astype(np.float64), logits.astype(np.float64)
    if np.isnan(scores).any():  # a model that diverged: ranks and signs of NaN would look like figures
        return Metrics(
            auc=None,
            log_loss=None,
            accuracy=None,
            normalized_entropy=None,
            num_inputs=len(labels),
            label_rate=float(truth.mean()),
        )
    log_loss = float(np.mean(np.logaddexp(0.0, scores) - truth * scores))
    rate = float(truth.mean())
    entropy = -sum(p * np.log(p) for p in (rate, 1 - rate) if p > 0)
    return Metrics(
        auc=area_under_curve(truth, scores),
        log_loss=log_loss,
        accuracy=float(np.mean((scores > 0) == (truth == 1))),
        normalized_entropy=log_loss / float(entropy) if entropy > 0 else None,
        num_inputs=len(labels),
        label_rate=rate,
    )
