"""Rand-Em Box: estimate from a few chunks how many rows of a huge table are hot (the paper, static part, 4).

Calibrate reports it beside the exact count. Where rows are stored by popularity the exact count is one binary search,
so nothing depends on the Box there; it is for tables whose order is not known.

There are two forms. The paper's draws contiguous chunks and uses Student's t: where hot rows are neighbours its chunks
are all hot or all cold, and its 99.9 % interval misses the truth in most draws. The one in use draws rows one by one,
without replacement, so the hot rows among them follow the hypergeometric distribution whatever the order and the skew;
its interval is that distribution's exact one, which covers at least as often as it says. ``benchmarks/studies/
rand_em_box.py`` measures both. An interval never contains less than the hot rows seen, nor more than the table has room
for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fae.calibrate.intervals import hypergeometric_interval, student_t_quantile
from fae.profile.sampling import sample_without_replacement


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How many rows of a table are hot.

    Attributes
    ----------
    num_rows
        The estimate.
    low, high
        Its interval; `high` is what is budgeted.
    method
        ``exact`` (every row was read), ``hypergeometric`` (rows) or ``student_t`` (the paper's chunks).
    """

    num_rows: float
    low: float
    high: float
    method: str


@dataclass(frozen=True, eq=False)
class RandEmBox:
    """Rows drawn once from a table, to estimate the hot rows at any number of thresholds.

    Attributes
    ----------
    chunks
        int64 ``[n, m]``: access counts of the rows of each chunk.
    num_embeddings
        Rows of the table, N.
    scattered
        Whether rows were drawn one by one (`draw_rows`) or chunk by chunk (`draw_chunks`).
    """

    chunks: npt.NDArray[np.int64]
    num_embeddings: int
    scattered: bool

    def num_at_least(self, count: float, confidence: float) -> Estimate:
        """Estimate the rows of the table whose access count is `count` or more.

        Examples
        --------
        >>> counts = np.arange(10_000)[::-1]
        >>> box = draw_rows(counts, 8, 100, np.random.default_rng(0))
        >>> estimate = box.num_at_least(9_000, 0.999)
        >>> estimate.low <= 1_000 <= estimate.high, estimate.method
        (True, 'hypergeometric')
        """
        hits = (self.chunks >= count).sum(axis=1)
        num_chunks, chunk_rows = self.chunks.shape
        total, drawn, population = int(hits.sum()), self.chunks.size, self.num_embeddings
        if drawn >= population:
            return Estimate(num_rows=total, low=total, high=total, method="exact")
        estimate = population * total / drawn
        if self.scattered:
            low, high = hypergeometric_interval(total, drawn, population, confidence)
            return Estimate(num_rows=estimate, low=low, high=high, method="hypergeometric")
        in_table = population / chunk_rows
        deviation = float(hits.std(ddof=1)) if num_chunks > 1 else math.inf
        quantile = student_t_quantile(0.5 + confidence / 2, max(1, num_chunks - 1))
        correction = math.sqrt(max(0.0, in_table - num_chunks) / in_table)
        half = in_table * quantile * deviation / math.sqrt(num_chunks) * correction
        high = min(float(population - (drawn - total)), estimate + half)
        return Estimate(num_rows=estimate, low=max(float(total), estimate - half), high=high, method="student_t")


def draw_rows(
    counts: npt.NDArray[np.int64], num_chunks: int, chunk_rows: int, random: np.random.Generator
) -> RandEmBox:
    """Draw ``num_chunks * chunk_rows`` rows, each such set equally likely: the form in use.

    Parameters
    ----------
    counts
        int64 ``[num_embeddings]``: access count of each row, in any order.
    """
    if num_chunks * chunk_rows >= counts.size:
        return RandEmBox(np.asarray(counts).reshape(1, -1), counts.size, True)
    rows = random.choice(counts.size, (num_chunks, chunk_rows), replace=False, shuffle=False)
    return RandEmBox(np.asarray(counts[rows]), counts.size, True)


def draw_chunks(
    counts: npt.NDArray[np.int64], num_chunks: int, chunk_rows: int, random: np.random.Generator
) -> RandEmBox:
    """Draw different chunks of neighbouring rows: the paper's form, kept for comparison."""
    if num_chunks * chunk_rows >= counts.size:
        return RandEmBox(np.asarray(counts).reshape(1, -1), counts.size, False)
    first = sample_without_replacement(random, counts.size // chunk_rows, num_chunks) * chunk_rows
    return RandEmBox(np.asarray(counts[first[:, None] + np.arange(chunk_rows)]), counts.size, False)
