"""Calibration: whether mean predictions equal click rates, overall and in ten bins of equal weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.compiled import Int64

_BINS = 10


def measure_calibration(
    labels: npt.NDArray[np.floating[Any]],
    predictions: npt.NDArray[np.float64],
    weights: npt.NDArray[np.floating[Any]] | None = None,
    *,
    order: Int64 | None = None,
) -> dict[str, Any]:
    """The object ``calibration`` of a split in the run record (docs/reference/run_record.md).

    Parameters
    ----------
    labels, predictions
        Labels of 0 and 1, ``[n]``, and probabilities, float64 ``[n]``, n at least 1.
    weights
        Weights, 0 or more, with a sum above 0; None is 1 each.
    order
        int64 ``[n]``: numbers of the predictions in ascending order, or almost: it spares a sort, and changes nothing.
    """
    truth = labels.astype(np.float64, copy=False)
    given = None if weights is None else weights.astype(np.float64, copy=False)
    counted = np.ones(len(truth)) if given is None else given
    total, predicted = float(counted.sum()), float(np.dot(counted, predictions))
    clicks = float(truth.sum() if given is None else np.dot(given, truth))
    mean, rate = predicted / total, clicks / total
    bins = _bins(truth, predictions, given, order)
    error = sum(part["weight"] * abs(part["mean_prediction"] - part["label_rate"]) for part in bins) / total
    return {
        "mean_prediction": mean,
        "label_rate": rate,
        "ratio": mean / rate if rate else None,
        "expected_error": error,
        "bins": bins,
    }


def _bins(
    labels: npt.NDArray[np.float64],
    predictions: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64] | None,
    order: Int64 | None,
) -> list[dict[str, Any]]:
    """Bins by the tenths of the predictions, by weight; equal predictions share one, so that no order matters."""
    tenths = np.arange(1, _BINS)
    if weights is None:
        ascending = np.sort(predictions) if order is None else predictions[order]
        if (ascending[1:] < ascending[:-1]).any():  # rounding may turn neighbours around
            ascending = np.sort(predictions)
        at = np.ceil(float(len(labels)) * tenths / _BINS).astype(np.int64) - 1
    else:
        order = np.argsort(predictions, kind="stable")
        ascending, below = predictions[order], np.cumsum(weights[order])
        at = np.searchsorted(below, below[-1] * tenths / _BINS)
    bounds = np.unique(ascending[at])
    ends = np.append(np.searchsorted(ascending, bounds, side="right"), len(ascending)).tolist()
    place = np.searchsorted(bounds, predictions, side="left")
    if weights is None:
        values = [np.bincount(place, minlength=_BINS), *(np.bincount(place, v, _BINS) for v in (predictions, labels))]
    else:
        values = [np.bincount(place, v, _BINS) for v in (weights, weights * predictions, weights * labels)]
    found, begin = [], 0
    for number, end in enumerate(ends):
        weight, predicted, clicked = (float(each[number]) for each in values)
        if weight:
            found.append(
                {
                    "num_inputs": end - begin,
                    "weight": weight,
                    "lowest": float(ascending[begin]),
                    "highest": float(ascending[end - 1]),
                    "mean_prediction": predicted / weight,
                    "label_rate": clicked / weight,
                }
            )
        begin = end
    return found
