"""What a hot set serves: its coverage of lookups, its share of hot inputs, the label rates of hot and cold inputs.

An input is hot if and only if every lookup of it is hot (the paper's input classifier); unused slots do not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from fae.calibrate.intervals import share_interval
from fae.calibrate.table_facts import Tables
from fae.core.compiled import Int64
from fae.profile.counting import count_hot_lookups
from fae.profile.row_sums import sum_rows
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
    """Read the inputs once, block by block on all threads, and count what the hot set serves.

    Parameters
    ----------
    ranks
        int32, flat: the storage order; None for the identity.
    num_hot
        int64 ``[F]``: hot rows of each table.
    """
    slot_num_hot = num_hot[tables.slots.slot_table]

    def sums(first: int, ids: npt.NDArray[np.int32], labels: npt.NDArray[np.uint8]) -> tuple[int, ...]:
        of_all, of_hot = count_hot_lookups(ids, tables.slots, ranks, slot_num_hot, on_all_threads=False)
        hot, a, h = of_all == of_hot, of_all.astype(np.int64), of_hot.astype(np.int64)
        each = (
            hot.sum(), a.sum(), h.sum(), h @ h, h @ a, a @ a, labels[hot].sum(), labels.sum(),
        )  # fmt: skip
        return tuple(map(int, each))

    of_blocks = inputs.map_blocks(sums)
    num_hot_inputs, lookups, hot_lookups, hot_hot, hot_all, all_all, hot_positives, positives = [
        sum(of_block) for of_block in zip(*of_blocks, strict=True)
    ] or [0] * 8
    return MeasuredCoverage(
        num_inputs=len(inputs),
        num_hot_inputs=num_hot_inputs,
        lookups=lookups,
        hot_lookups=hot_lookups,
        sum_of_squares=(hot_hot, hot_all, all_all),
        hot_positives=hot_positives,
        positives=positives,
    )


def count_hot_inputs(
    tables: Tables, inputs: SampledInputs, ranks: npt.NDArray[np.int32] | None, hot_sets: Sequence[Int64]
) -> list[int]:
    """Read the inputs once and count the hot ones of each hot set. Arguments as for `measure`."""
    of_slots = [num_hot[tables.slots.slot_table] for num_hot in hot_sets]

    def count(first: int, ids: npt.NDArray[np.int32], labels: npt.NDArray[np.uint8]) -> list[int]:
        del first, labels
        found = [count_hot_lookups(ids, tables.slots, ranks, each, on_all_threads=False) for each in of_slots]
        return [int(np.count_nonzero(of_all == of_hot)) for of_all, of_hot in found]

    return [sum(of_block) for of_block in zip(*inputs.map_blocks(count), strict=True)] or [0] * len(hot_sets)


def training_coverage(tables: Tables, ranks: npt.NDArray[np.int32] | None, num_hot: Int64) -> tuple[float, list[float]]:
    """Compute the coverage of the whole training split, and of each table: exact, since ingest counted every access.

    A table that was never accessed counts as covered.
    """
    counts, total = tables.counts, tables.accesses

    def served(table: int, first: int, last: int) -> int:
        if ranks is not None:
            return int(counts[first:last][ranks[first:last] < num_hot[table]].sum())
        return int(counts[first : min(last, int(tables.offsets[table] + num_hot[table]))].sum())

    hot = sum_rows(served, tables.offsets)
    each = [part / whole if whole else 1.0 for part, whole in zip(hot, total, strict=True)]
    return (sum(hot) / sum(total) if sum(total) else 1.0), each
