"""The threshold selection: rows whose share of their table's accesses reaches a threshold (the paper, static part, 3).

Rows are stored by popularity in the training split; the sample says how long each hot prefix is: as many rows as have a
sampled count of ``max(1, threshold * sampled accesses of the table)``. The nested hot sets follow from the sample and
the configuration, never from the budget.

The paper walks a grid of one threshold a decade. The hot set changes only where the threshold passes some row's share
of its table's accesses: those *levels* are listed exactly, so the bisection between two values of the grid ends at
the last level that fits. In a thin sample levels are coarse: most rows are seen once or twice, and a step from two to
one can be several times the budget. What a level leaves of the budget is filled with rows of the next one, the most
accessed in the training split first. Behind the last level come the small tables that were held back, and then the rows
that the sample did not see.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from fae.calibrate.nested_sets import PopularityTail, small_tables
from fae.calibrate.table_facts import Tables
from fae.core.compiled import Int64
from fae.core.threads import run_jobs
from fae.profile.config import HotConfig


@dataclass(frozen=True, eq=False, kw_only=True)
class ThresholdStep:
    """One of the nested hot sets.

    Attributes
    ----------
    threshold
        Share of a table's accesses that makes a row hot; None where no row is hot.
    num_hot
        int64 ``[F]``: hot rows of each table.
    small
        Tables that are hot as a whole, smallest first.
    num_extra
        Hot rows below the threshold: the most accessed of the rows that come next.
    beyond_sample
        Whether some of these were not seen by the sample.
    """

    threshold: float | None
    num_hot: Int64
    small: tuple[int, ...]
    num_extra: int = 0
    beyond_sample: bool = False


class ThresholdSets:
    """Nested hot sets by falling threshold.

    Parameters
    ----------
    sample_counts
        int64, flat: accesses of each row by the sample.

    Attributes
    ----------
    levels
        float64, descending: the thresholds, not under ``min_threshold``, at which a row becomes hot.
    candidates
        int64: tables that may be hot as a whole, smallest first.
    """

    def __init__(self, tables: Tables, sample_counts: Int64, config: HotConfig) -> None:
        self.tables = tables
        self.candidates = small_tables(tables, config.small_table_bytes)
        self._candidate_bytes = np.cumsum((tables.sizes * tables.row_bytes)[self.candidates])
        nothing = np.empty(0, np.int64)
        self._values: list[Int64] = [nothing] * len(tables)
        self._shares: list[npt.NDArray[np.float64]] = [np.empty(0)] * len(tables)
        self._rows_at_least: list[Int64] = [nothing] * len(tables)

        def list_values(table: int) -> None:
            counts = tables.of_table(sample_counts, table)
            values, num_rows = count_values(counts[counts > 0])
            self._values[table] = values
            self._shares[table] = values / max(1, int((values * num_rows).sum()))
            self._rows_at_least[table] = np.append(np.cumsum(num_rows[::-1])[::-1], 0).astype(np.int64)

        run_jobs([partial(list_values, table) for table in np.argsort(-tables.sizes, kind="stable").tolist()])
        self._bytes_of_step: dict[int, int] = {}
        self._tails: dict[int, PopularityTail] = {}
        levels = np.unique(np.concatenate(self._shares)) if len(tables) else np.empty(0)
        self.levels: npt.NDArray[np.float64] = levels[levels >= config.min_threshold][::-1]
        self._last_small = len(self._small(self.rows_by_threshold(config.min_threshold)))
        self.num_steps = 1 + len(self.levels) + len(self.candidates) - self._last_small

    def ranks(self) -> npt.NDArray[np.int32] | None:
        """The storage order: popularity in the training split."""
        return self.tables.popularity_ranks()

    def rows_by_threshold(self, threshold: float) -> Int64:
        """int64 ``[F]``: rows of each table with ``sampled count >= max(1, threshold * sampled accesses)``."""
        counts = [
            rows[shares.searchsorted(threshold)] for shares, rows in zip(self._shares, self._rows_at_least, strict=True)
        ]
        return np.array(counts, np.int64)

    def count_at(self, table: int, threshold: float) -> int:
        """The smallest sampled count that makes a row of this table hot; above every count where no row is hot."""
        values, position = self._values[table], int(np.searchsorted(self._shares[table], threshold))
        if position < values.size:
            return int(values[position])
        return int(values[-1]) + 1 if values.size else 1

    def _small(self, by_threshold: Int64) -> Int64:
        """Small tables that are hot as a whole beside these rows: as many as take at most half of the hot bytes.

        Measured against the hot set and not against the budget: small tables then join one by one as hot sets grow,
        none ever pushes another row out, and hot sets stay nested.
        """
        row_bytes = by_threshold * self.tables.row_bytes
        others = row_bytes.sum() - np.cumsum(row_bytes[self.candidates])
        return self.candidates[: int((self._candidate_bytes <= others).sum())]

    def at(self, threshold: float) -> ThresholdStep:
        """The hot set of one threshold, with the small tables that are hot beside it."""
        num_hot = self.rows_by_threshold(threshold)
        small = self._small(num_hot)
        num_hot[small] = self.tables.sizes[small]
        return ThresholdStep(threshold=threshold, num_hot=num_hot, small=tuple(small.tolist()))

    def step(self, index: int) -> ThresholdStep:
        """The nested hot set of a number: 0 is empty, then come the levels, then the small tables left over."""
        if index == 0:
            return ThresholdStep(threshold=None, num_hot=np.zeros(len(self.tables), np.int64), small=())
        if not len(self.levels):
            step, beyond = self.step(0), index
        else:
            step = self.at(float(self.levels[min(index, len(self.levels)) - 1]))
            beyond = index - len(self.levels)
        if beyond <= 0:
            return step
        small = self.candidates[: self._last_small + beyond]
        step.num_hot[small] = self.tables.sizes[small]
        return ThresholdStep(threshold=step.threshold, num_hot=step.num_hot, small=tuple(small.tolist()))

    def largest_step(self, num_bytes: int) -> ThresholdStep:
        """The largest hot set of at most `num_bytes` bytes, extra rows included."""
        low, high = 0, self.num_steps - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self._step_bytes(middle) <= num_bytes:
                low = middle
            else:
                high = middle - 1
        step, is_last = self.step(low), low == self.num_steps - 1
        if low not in self._tails:
            stop = self.tables.sizes if is_last else self.step(low + 1).num_hot
            ahead = [self.tables.popular_counts(t)[step.num_hot[t] : stop[t]] for t in range(len(self.tables))]
            self._tails[low] = PopularityTail(self.tables, ahead)
        extra = self._tails[low].largest(num_bytes - self.tables.bytes(step.num_hot))
        return ThresholdStep(
            threshold=step.threshold,
            num_hot=step.num_hot + extra,
            small=step.small,
            num_extra=int(extra.sum()),
            beyond_sample=is_last and bool(extra.any()),
        )

    def _step_bytes(self, index: int) -> int:
        if index not in self._bytes_of_step:  # searches for other sizes begin with the same halves
            self._bytes_of_step[index] = self.tables.bytes(self.step(index).num_hot)
        return self._bytes_of_step[index]

    def largest(self, num_bytes: int) -> Int64:
        """int64 ``[F]``: hot rows of each table in the largest hot set of at most `num_bytes` bytes."""
        return self.largest_step(num_bytes).num_hot


def count_values(counts: Int64, table_size: int = 65_536) -> tuple[Int64, Int64]:
    """List the different values of an array of positive counts, ascending, and how often each occurs.

    Most counts are small: those are counted by a table of `table_size` entries, which is much faster than sorting.

    >>> [part.tolist() for part in count_values(np.array([3, 1, 90, 3]), table_size=10)]
    [[1, 3, 90], [1, 2, 1]]
    """
    is_small = counts < table_size
    times = np.bincount(counts[is_small])
    small = np.flatnonzero(times)
    large, large_times = np.unique(counts[~is_small], return_counts=True) if not is_small.all() else (small[:0],) * 2
    values, num_rows = np.concatenate([small, large]), np.concatenate([times[small], large_times])
    return values.astype(np.int64), num_rows.astype(np.int64)


def threshold_grid(config: HotConfig) -> list[float]:
    """The paper's grid: `max_threshold` down to `min_threshold`, one value a decade.

    >>> threshold_grid(HotConfig(max_threshold=1e-2, min_threshold=5e-4))
    [0.01, 0.001, 0.0005]
    """
    grid, step = [], 0
    while (value := float(f"{config.max_threshold * 10.0**-step:.12g}")) > config.min_threshold:
        grid.append(value)
        step += 1
    return [*grid, config.min_threshold]


def thresholds_above(config: HotConfig) -> list[float]:
    """The grid continued upwards, to 1, for budgets that are too small for its first value."""
    values, step = [], 1
    while (value := float(f"{config.max_threshold * 10.0**step:.12g}")) < 1:
        values.append(value)
        step += 1
    return [*values, 1.0] if config.max_threshold < 1 else []
