"""Shares of lookups and inputs that hot rows serve, counted, or from a sample with the interval they lie in."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fae.artifacts.columnar_log import ColumnarLog
from fae.calibrate.calibrator import Calibrator, Ranks
from fae.calibrate.coverage import measure
from fae.calibrate.intervals import student_t_quantile
from fae.calibrate.table_facts import Tables
from fae.core.compiled import Int64
from fae.profile.sampling import sampled_inputs

_MOST_INPUTS = 400_000
"""Inputs that shares are counted on; every budget reads them again."""
_KEPT_BLOCKS, _HELD_OUT_BLOCKS = 32, 8
Shares = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
"""Shares of stretches of a log."""
_RING_ERROR = 0.25
"""How much larger or smaller the whole log's staging ring may be, as a share of it."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share with the interval it lies in; exact where both ends are the value."""

    value: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Share:
        """A share that was counted."""
        return cls(value=value, low=value, high=value)

    @property
    def is_exact(self) -> bool:
        """Whether it was counted and not estimated."""
        return self.low == self.high

    def to_json(self) -> dict[str, float]:
        """As JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high}


def sampled_shares(
    log: ColumnarLog, calibrator: Calibrator, figures: Mapping[str, Any], ranks: Ranks, *, scale: float
) -> tuple[Share, Share]:
    """Coverage and hot-input share of the whole log at one budget, from a planned log.

    What hot rows serve of the inputs that they were chosen by is too much, what they serve of held-out inputs too
    little (`fae.planning.sample.planned_log`). Both have an interval of their own, from how stretches of the log
    differ; the whole log may need a larger or smaller ring, and another selection may win there.

    Parameters
    ----------
    figures, ranks
        What `Calibrator.figures_at` says of the budget.
    scale
        Inputs of the whole log for each that was read.
    """
    tables, confidence = calibrator.tables, figures["intervals"]["confidence"]

    def shares(order: Ranks, num_hot: Int64) -> tuple[Share, Share]:
        kept = _by_block(log, tables, order, num_hot, "train", _KEPT_BLOCKS)
        held_out = _by_block(log, tables, order, num_hot, "validation", _HELD_OUT_BLOCKS)
        held_out = held_out if len(held_out) else kept
        coverage, inputs = (
            _between(kept[:, column], held_out[:, column], scale=scale, confidence=confidence) for column in (0, 1)
        )
        return coverage, inputs

    found = shares(ranks, np.array([table["num_hot"] for table in figures["tables"]], np.int64))
    num_bytes, ring = figures["bytes"], int(_RING_ERROR * figures["staging_bytes"])
    others = [
        shares(candidate.ranks, candidate.sets.largest(size))
        for candidate in calibrator.candidates_at(figures["budget_bytes"])
        for size in sorted({max(0, num_bytes - ring), num_bytes + ring})
    ]
    coverage, inputs = (
        Share(
            value=found[part].value,
            low=min(each[part].low for each in (found, *others)),
            high=max(each[part].high for each in (found, *others)),
        )
        for part in (0, 1)
    )
    return coverage, inputs


def _by_block(
    log: ColumnarLog, tables: Tables, ranks: Ranks, num_hot: Int64, split: str, number: int
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """float64 ``[blocks, 2]``: coverage and hot-input share of stretches of a split."""
    start, stop = log.split(split)
    number = min(number, stop - start)
    ends = [start + (stop - start) * part // max(1, number) for part in range(number + 1)]
    found = np.empty((number, 2))
    for block, (first, last) in enumerate(itertools.pairwise(ends)):
        inputs = sampled_inputs(log, range(first, last)).evenly(_MOST_INPUTS // (_KEPT_BLOCKS + _HELD_OUT_BLOCKS))
        measured = measure(tables, inputs, ranks, num_hot)
        found[block] = measured.coverage, measured.input_share
    return found


def _between(kept: Shares, held_out: Shares, *, scale: float, confidence: float) -> Share:
    too_high, too_low = float(np.mean(kept)), float(np.mean(held_out))
    high = min(1.0, max(too_high, too_low) + _half_width(kept, confidence))
    low = max(0.0, min(too_high, too_low) - _half_width(held_out, confidence))
    middle = (too_high + too_low) / 2
    # What a log serves of itself comes down to the middle as it grows, about with the root of its length.
    value = middle + (too_high - middle) / math.sqrt(max(1.0, scale))
    return Share(value=min(high, max(low, value)), low=low, high=high)


def _half_width(shares: Shares, confidence: float) -> float:
    if len(shares) < 2:
        return 1.0
    error = float(np.std(shares, ddof=1)) / math.sqrt(len(shares))
    return student_t_quantile(0.5 + confidence / 2, len(shares) - 1) * error
