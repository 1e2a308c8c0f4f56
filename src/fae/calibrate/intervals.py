"""Intervals: Student's t, the hypergeometric distribution, and shares of a finite population.

Written out because the run-time dependencies have no statistics library; tests compare with one. Intervals are
two-sided at the given confidence and lie within what is possible.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

import numpy as np


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularized incomplete beta function I_x(a, b), by Lentz's continued fraction (Numerical Recipes 6.4)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast only below the mean
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    tiny = 1e-300
    fraction, c, d = 1.0, 1.0, 0.0
    for step in range(2 * 500):
        m = step // 2
        if step == 0:
            numerator = 1.0
        elif step % 2 == 0:
            numerator = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            numerator = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1.0 + numerator * d
        d = 1.0 / (d if abs(d) > tiny else tiny)
        c = 1.0 + numerator / c
        c = c if abs(c) > tiny else tiny
        fraction *= c * d
        if step > 1 and abs(1.0 - c * d) < 1e-15:
            break
    return front * (fraction - 1.0) / a


@lru_cache(maxsize=64)
def student_t_quantile(probability: float, degrees: int) -> float:
    """The value that Student's t with `degrees` degrees of freedom stays under with this probability (at least 0.5).

    >>> round(student_t_quantile(0.9995, 34), 4)
    3.6007
    """
    if not 0.5 <= probability < 1:
        raise ValueError(f"probability = {probability} must be at least 0.5 and less than 1")
    tail = 2.0 * (1.0 - probability)

    def two_sided_tail(t: float) -> float:
        return incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t))

    high = 1.0
    while two_sided_tail(high) > tail:
        high *= 2
    low = 0.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided_tail(middle) > tail else (low, middle)
    return high


def hypergeometric_tail(hits: int, marked: int, population: int, draws: int) -> float:
    """Probability that X <= hits, where X is the number of marked ones among `draws` of `population` without
    replacement.

    The terms come from their ratios alone, from 40 deviations below the mode to 40 above: no factorials of a population
    of millions, whose logarithms leave six digits, and a time that does not grow with `draws`.
    """
    lowest, highest = max(0, draws - (population - marked)), min(marked, draws)
    if hits >= highest:
        return 1.0
    share = marked / population
    mode = (draws + 1) * (marked + 1) // (population + 2)
    reach = 60 + math.ceil(40 * math.sqrt(draws * share * (1 - share)))  # 60 for Poisson's longer tail
    first, last = max(lowest, mode - reach), min(highest, mode + reach)
    if hits < first:
        return 0.0
    x = np.arange(first + 1, last + 1, dtype=np.float64)
    ratio = (marked - x + 1) / x * ((draws - x + 1) / (population - marked - draws + x))  # p(x) / p(x - 1)
    logarithms = np.concatenate([[0.0], np.cumsum(np.log(ratio))])
    terms = np.exp(logarithms - logarithms.max())
    return float(min(1.0, terms[: hits - first + 1].sum() / terms.sum()))


def hypergeometric_interval(hits: int, draws: int, population: int, confidence: float) -> tuple[int, int]:
    """Exact (Clopper-Pearson-like) interval for the number of marked ones in a population.

    Parameters
    ----------
    hits
        Marked ones among `draws` of the `population`, drawn without replacement.

    Returns
    -------
    tuple of int
        Lowest and highest number that is not rejected at ``(1 - confidence) / 2`` on its side.

    Examples
    --------
    >>> hypergeometric_interval(3, 10, 10, 0.999), hypergeometric_interval(0, 10, 1000, 0.95)
    ((3, 3), (0, 307))
    """
    tail = (1.0 - confidence) / 2
    low, high = hits, population - (draws - hits)
    highest = _last_true(low, high, lambda marked: hypergeometric_tail(hits, marked, population, draws) > tail)
    # P(X >= hits) grows with `marked`: the lowest number is the complement's highest.
    misses = draws - hits
    lowest = population - _last_true(
        misses, population - hits, lambda unmarked: hypergeometric_tail(misses, unmarked, population, draws) > tail
    )
    return lowest, highest


def _last_true(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Largest value of ``[low, high]`` for which a predicate that holds at `low` and then stops holding still holds."""
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low


def share_interval(hits: int, draws: int, population: int, confidence: float) -> tuple[float, float]:
    """Wilson's interval for a share, with the finite-population correction; exact where all were drawn.

    >>> share_interval(5, 10, 10, 0.999)
    (0.5, 0.5)
    """
    if draws == 0:
        return 0.0, 1.0
    share = hits / draws
    if draws >= population:
        return share, share
    effective = draws * (population - 1) / (population - draws)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (share + z * z / (2 * effective)) / (1 + z * z / effective)
    half = z / (1 + z * z / effective) * math.sqrt(share * (1 - share) / effective + (z / (2 * effective)) ** 2)
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))
