"""The best single column: what predicting by the click rate of one column's values reaches, without any model."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import ColumnarLog, first_slots, model_features
from fae.core.compiled import compiled
from fae.core.threads import one_thread, run_jobs, run_ranges
from fae.training.quality.input_columns import InputColumns
from fae.training.quality.metrics import ScoredInputs, metrics_of

SMOOTHING = 10.0
"""Inputs at training's click rate that every value gets beside its own: a value seen once is not sure to be clicked."""
_MOST_INPUTS, _MOST_LOOKUPS = 1 << 20, 1 << 25
"""Training inputs and lookups that rates are taken from: about a second."""
_BLOCK = 4096
"""Neighbours read together."""
_MULTIPLIER = 2654435769
"""2**32 over the golden ratio, which spreads ids over a hash table."""


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
        spans = _spread_blocks(start, stop, most)
        places = np.cumsum([0, *(last - first for first, last in spans)]).tolist()
        self.num_inputs = places[-1]
        self.is_sample = self.num_inputs < stop - start
        self._ids = np.empty((self._slots[-1], self.num_inputs), np.int32)  # the ids of a column are neighbours
        self._weights, labels = np.ones(self.num_inputs), np.empty(self.num_inputs)
        ids = np.asarray(log.ids)

        def read(first_span: int, last_span: int) -> None:
            for number in range(first_span, last_span):
                there, here = slice(*spans[number]), slice(places[number], places[number + 1])
                self._ids[:, here] = ids[there].T
                labels[here] = log.labels[there]
                if log.weights is not None:
                    self._weights[here] = log.weights[there]

        run_ranges(read, len(spans))
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
        truth, chosen = labels[sampled], None if weights is None else weights[sampled]
        columns: list[dict[str, Any]] = [{} for _ in self._columns]

        def score(number: int) -> None:
            with one_thread():
                logits = self._logits(number, inputs.sample_of(number)).astype(np.float32)
                found = metrics_of(ScoredInputs(truth, logits, chosen))
            columns[number] = {"column": self._columns[number].name, "auc": found.auc, "log_loss": found.log_loss}

        run_jobs([partial(score, number) for number in range(len(columns))])
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
        rates = np.empty(ids.shape)
        prior = SMOOTHING * self._rate
        known = self._ids[self._slots[column] : self._slots[column + 1]]
        smoothed_rates(np.ascontiguousarray(ids), known, self._clicks, self._weights, prior, SMOOTHING, rates)
        count = (ids >= 0).sum(axis=1)
        mean = rates.sum(axis=1) / np.maximum(count, 1)
        mean = np.where(count == 0, self._rate, mean)
        result: npt.NDArray[np.float64] = np.log(mean) - np.log1p(-mean)
        return result


@compiled
def smoothed_rates(
    ids: npt.NDArray[np.int32],
    known: npt.NDArray[np.int32],
    clicks: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    prior: float,
    smoothing: float,
    rates: npt.NDArray[np.float64],
) -> None:
    """Write the click rate ``[m, L]`` of each of `ids` ``[m, L]``, 0 where there is none, by `known` ids ``[L, n]``.

    Ids are counted in a hash table of those that are wanted, so memory does not grow with the table.
    """
    num_inputs, length = ids.shape
    bits = 4
    while 1 << bits < 2 * num_inputs * length:
        bits += 1
    shift, mask = 32 - bits, (1 << bits) - 1
    keys, sums = np.full(1 << bits, -1, np.int32), np.zeros((1 << bits, 2))
    places = np.full(ids.shape, -1, np.int64)
    for row in range(num_inputs):
        for slot in range(length):
            number = np.int64(ids[row, slot])
            if number >= 0:
                place = (number * _MULTIPLIER & 0xFFFFFFFF) >> shift
                while keys[place] != number and keys[place] >= 0:
                    place = place + 1 & mask
                keys[place] = number
                places[row, slot] = place
    for row in range(known.shape[1]):
        for slot in range(length):
            number = np.int64(known[slot, row])
            if number >= 0:
                place = (number * _MULTIPLIER & 0xFFFFFFFF) >> shift
                while keys[place] != number and keys[place] >= 0:
                    place = place + 1 & mask
                if keys[place] == number:
                    sums[place, 0] += clicks[row]
                    sums[place, 1] += weights[row]
    for row in range(num_inputs):
        for slot in range(length):
            place = places[row, slot]
            rates[row, slot] = (sums[place, 0] + prior) / (sums[place, 1] + smoothing) if place >= 0 else 0.0


def _spread_blocks(start: int, stop: int, most: int) -> list[tuple[int, int]]:
    """Spans of neighbours, ascending: all of ``[start, stop)``, or spread evenly over it, `most` inputs in all."""
    if stop - start <= most:
        return [(first, min(first + _BLOCK, stop)) for first in range(start, stop, _BLOCK)]
    blocks = max(1, most // _BLOCK)
    length = most // blocks
    # They begin more than a length apart, so no two have an input in common.
    begins = np.linspace(start, stop - length, blocks).astype(np.int64).tolist()
    return [(first, first + length) for first in begins]
