"""Calibration: whether mean predictions equal click rates, overall and in ten bins of equal weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_BINS = 10


def measure_calibration(
    labels: npt.NDArray[np.float64],
    predictions: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """The object ``calibration`` of a split in the run record (docs/reference/run_record.md).

    Parameters
    ----------
    labels, predictions
        Labels of 0 and 1 and probabilities, float64 ``[n]``, n at least 1.
    weights
        Weights, 0 or more, with a sum above 0; None is 1 each.
    """
    counted = np.ones(len(labels)) if weights is None else weights
    total = float(counted.sum())
    mean, rate = float(np.dot(counted, predictions)) / total, float(np.dot(counted, labels)) / total
    bins = _bins(labels, predictions, counted)
    error = sum(part["weight"] * abs(part["mean_prediction"] - part["label_rate"]) for part in bins) / total
    return {
        "mean_prediction": mean,
        "label_rate": rate,
        "ratio": mean / rate if rate else None,
        "expected_error": error,
        "bins": bins,
    }


def _bins(
    labels: npt.NDArray[np.float64], predictions: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]
) -> list[dict[str, Any]]:
    """Bins by the tenths of the predictions, by weight; equal predictions share one, so that no order matters."""
    order = np.argsort(predictions, kind="stable")
    below = np.cumsum(weights[order])
    at = np.searchsorted(below, below[-1] * np.arange(1, _BINS) / _BINS)
    bounds = np.unique(predictions[order[at]])
    place = np.searchsorted(bounds, predictions, side="left")
    sums = [np.bincount(place, each, _BINS) for each in (weights, weights * predictions, weights * labels)]
    counts = np.bincount(place, minlength=_BINS)
    found = []
    for number in np.flatnonzero(sums[0]).tolist():
        weight, predicted, clicked = (float(each[number]) for each in sums)
        inside = predictions[place == number]
        found.append(
            {
                "num_inputs": int(counts[number]),
                "weight": weight,
                "lowest": float(inside.min()),
                "highest": float(inside.max()),
                "mean_prediction": predicted / weight,
                "label_rate": clicked / weight,
            }
        )
    return found
