"""What a hot set serves: its coverage of lookups, its share of hot inputs, the label rates of hot and cold inputs.

An input is hot if and only if every lookup of it is hot (the paper's input classifier); unused slots do not count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from fae.calibrate.intervals import share_interval
from fae.calibrate.table_facts import Tables
from fae.core.compiled import Int64
from fae.profile.counting import count_hot_lookups
from fae.profile.sampling import SampledInputs


@dataclass(frozen=True, kw_only=True)
class MeasuredCoverage:
    """What a hot set serves of some inputs, as sums over them.

    Attributes
    ----------
    num_inputs, num_hot_inputs
        Inputs that were read; those of them that are hot.
    lookups, hot_lookups
        Lookups and hot lookups.
    sum_of_squares
        With h hot lookups of l lookups of an input: sums of ``h * h``, ``h * l`` and ``l * l``, for the variance of the
        coverage.
    hot_positives, positives
        Inputs with label 1 among the hot ones, and among all.
    """

    num_inputs: int
    num_hot_inputs: int
    lookups: int
    hot_lookups: int
    sum_of_squares: tuple[int, int, int]
    hot_positives: int
    positives: int

    @property
    def input_share(self) -> float:
        """Hot inputs / inputs."""
        return self.num_hot_inputs / max(1, self.num_inputs)

    @property
    def coverage(self) -> float:
        """Hot lookups / lookups; 1 where there is no lookup."""
        return self.hot_lookups / self.lookups if self.lookups else 1.0

    def label_rate(self) -> dict[str, float | None]:
        """Share of positive labels among hot and among cold inputs; None where there are none."""
        num_cold = self.num_inputs - self.num_hot_inputs
        return {
            "hot": self.hot_positives / self.num_hot_inputs if self.num_hot_inputs else None,
            "cold": (self.positives - self.hot_positives) / num_cold if num_cold else None,
        }

    def input_share_interval(self, population: int, confidence: float) -> tuple[float, float]:
        """Interval of the hot-input share of a population of inputs that these were drawn from."""
        return share_interval(self.num_hot_inputs, self.num_inputs, population, confidence)

    def coverage_interval(self, population: int, confidence: float) -> tuple[float, float]:
        """Interval of the coverage: a ratio estimator with inputs as clusters, since lookups of an input correlate."""
        n, ratio = self.num_inputs, self.coverage
        if n >= population or n < 2 or not self.lookups:
            return (ratio, ratio) if n >= population else (0.0, 1.0)
        of_hot, of_both, of_all = self.sum_of_squares
        residual = max(0.0, of_hot - 2 * ratio * of_both + ratio**2 * of_all) / (n - 1)
        deviation = math.sqrt((1 - n / population) * residual / n) / (self.lookups / n)
        half = NormalDist().inv_cdf(0.5 + confidence / 2) * deviation
        return max(0.0, ratio - half), min(1.0, ratio + half)


def measure(
    tables: Tables, inputs: SampledInputs, ranks: npt.NDArray[np.int32] | None, num_hot: Int64
) -> MeasuredCoverage:
    """Read the inputs once, block by block, and count what the hot set serves.

    Parameters
    ----------
    ranks
        int32, flat: the storage order; None for the identity.
    num_hot
        int64 ``[F]``: hot rows of each table.
    """
    slot_num_hot = num_hot[tables.slots.slot_table]
    num_hot_inputs = lookups = hot_lookups = hot_hot = hot_all = all_all = hot_positives = positives = 0
    for ids, labels in inputs.blocks():
        of_all, of_hot = count_hot_lookups(ids, tables.slots, ranks, slot_num_hot)
        hot, a, h = of_all == of_hot, of_all.astype(np.int64), of_hot.astype(np.int64)
        num_hot_inputs += int(hot.sum())
        lookups, hot_lookups = lookups + int(a.sum()), hot_lookups + int(h.sum())
        hot_hot, hot_all, all_all = hot_hot + int(h @ h), hot_all + int(h @ a), all_all + int(a @ a)
        hot_positives, positives = hot_positives + int(labels[hot].sum()), positives + int(labels.sum())
    return MeasuredCoverage(
        num_inputs=len(inputs),
        num_hot_inputs=num_hot_inputs,
        lookups=lookups,
        hot_lookups=hot_lookups,
        sum_of_squares=(hot_hot, hot_all, all_all),
        hot_positives=hot_positives,
        positives=positives,
    )


def training_coverage(tables: Tables, ranks: npt.NDArray[np.int32] | None, num_hot: Int64) -> tuple[float, list[float]]:
    """Compute the coverage of the whole training split, and of each table: exact, since ingest counted every access.

    A table that was never accessed counts as covered.
    """
    hot, total = [], []
    for table in range(len(tables)):
        counts = tables.of_table(tables.counts, table)
        if ranks is None:
            hot.append(int(counts[: num_hot[table]].sum()))
        else:
            hot.append(int(counts[ranks[tables.offsets[table] : tables.offsets[table + 1]] < num_hot[table]].sum()))
        total.append(int(counts.sum()))
    each = [part / whole if whole else 1.0 for part, whole in zip(hot, total, strict=True)]
    return (sum(hot) / sum(total) if sum(total) else 1.0), each
