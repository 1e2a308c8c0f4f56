"""The best single column: what predicting by the click rate of one column's values reaches, without any model."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import ColumnarLog, first_slots, model_features
from fae.training.quality.input_columns import InputColumns
from fae.training.quality.metrics import compute_metrics

SMOOTHING = 10.0
"""Inputs at training's click rate that every value gets beside its own: a value seen once is not sure to be clicked."""
_MOST_INPUTS, _MOST_LOOKUPS = 1 << 20, 1 << 25
"""Training inputs and lookups that rates are taken from: about a second."""
_BLOCK = 4096
"""Neighbours read together."""
_LARGEST_TABLE = 1 << 22
"""Ids up to which counts are an array over all ids; above it, over the ids of the sample."""


class SingleColumns:
    """Click rates of the values of every column, from training inputs of a log.

    Parameters
    ----------
    most
        Training inputs to read, spread evenly in blocks; None takes up to 1,048,576, and up to 33,554,432 lookups.

    Attributes
    ----------
    num_inputs, is_sample
        Inputs that were read, and whether these are not all.
    """

    def __init__(self, log: ColumnarLog, *, most: int | None = None) -> None:
        self._columns = model_features(log.features)
        self._slots = first_slots(self._columns)
        start, stop = log.split("train")
        most = most or max(_BLOCK, min(_MOST_INPUTS, _MOST_LOOKUPS // self._slots[-1]))
        inputs = _spread_blocks(start, stop, most)
        self.num_inputs, self.is_sample = len(inputs), len(inputs) < stop - start
        self._ids, labels = log.ids[inputs], log.labels[inputs].astype(np.float64)
        self._weights = np.ones(len(inputs)) if log.weights is None else log.weights[inputs].astype(np.float64)
        self._clicks = self._weights * labels
        total = float(self._weights.sum())
        self._rate = float(self._clicks.sum()) / total if total else 0.0

    def compare(
        self,
        labels: npt.NDArray[np.float32],
        inputs: InputColumns,
        weights: npt.NDArray[np.float32] | None = None,
    ) -> dict[str, Any] | None:
        """Columns from the best to the worst, as in ``context`` of the run record.

        Parameters
        ----------
        labels, weights
            Those of all scored inputs, float32 ``[n]``; None is 1 each.
        inputs
            Their ids.

        Returns
        -------
        dict or None
            None where training has one class only, so that no rate says anything.
        """
        if not 0 < self._rate < 1:
            return None
        sampled = inputs.sampled
        chosen = None if weights is None else weights[sampled]
        columns: list[dict[str, Any]] = []
        for number, column in enumerate(self._columns):
            logits = self._logits(number, inputs.sample_of(number)).astype(np.float32)
            found = compute_metrics(labels[sampled], logits, chosen)
            columns.append({"column": column.name, "auc": found.auc, "log_loss": found.log_loss})
        columns.sort(key=lambda each: (-(each["auc"] or 0.0), each["column"]))
        return {
            "best_column": columns[0] if columns else None,
            "columns": columns,
            "smoothing": SMOOTHING,
            "training_inputs": self.num_inputs,
            "num_inputs": len(sampled),
            "sampled": self.is_sample or len(sampled) < inputs.num_inputs,
        }

    def _logits(self, column: int, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """Log-odds, float64 ``[m]``, of inputs with these ids ``[m, L]`` of a column: of the mean over a list."""
        first, last = self._slots[column], self._slots[column + 1]
        known = self._ids[:, first:last]
        there = known >= 0
        row, _ = np.nonzero(there)
        values = known[there]
        size = self._columns[column].num_embeddings
        if size > _LARGEST_TABLE:
            distinct, number = np.unique(values, return_inverse=True)
            values = number.astype(np.int32)
            size = len(distinct) + 1
            at = np.minimum(np.searchsorted(distinct, ids), max(0, len(distinct) - 1))
            found = distinct[at] == ids if len(distinct) else np.zeros(ids.shape, bool)
            wanted = np.where(found, at, size - 1)  # the last one is that of no count
        else:
            wanted = np.maximum(ids, 0)
        clicks, inputs = (np.bincount(values, each[row], size) for each in (self._clicks, self._weights))
        rates = (clicks + SMOOTHING * self._rate) / (inputs + SMOOTHING)
        used = ids >= 0
        count = used.sum(axis=1)
        mean = np.where(used, rates[wanted], 0.0).sum(axis=1) / np.maximum(count, 1)
        mean = np.where(count == 0, self._rate, mean)
        result: npt.NDArray[np.float64] = np.log(mean) - np.log1p(-mean)
        return result


def _spread_blocks(start: int, stop: int, most: int) -> npt.NDArray[np.int64]:
    """int64: all of ``[start, stop)``, or blocks of neighbours spread evenly over it, `most` inputs in all."""
    if stop - start <= most:
        return np.arange(start, stop)
    blocks = max(1, most // _BLOCK)
    length = most // blocks
    begins = np.linspace(start, stop - length, blocks).astype(np.int64)
    found: npt.NDArray[np.int64] = np.unique(begins[:, None] + np.arange(length))
    return found
