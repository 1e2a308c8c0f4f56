"""Our statistics against a statistics library, and the Rand-Em Box against the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from fae.calibrate.intervals import (
    hypergeometric_interval,
    hypergeometric_tail,
    incomplete_beta,
    share_interval,
    student_t_quantile,
)
from fae.calibrate.rand_em import draw_chunks, draw_rows


@pytest.mark.parametrize("a", [0.5, 1, 17, 400])
@pytest.mark.parametrize("b", [0.5, 3, 60])
@pytest.mark.parametrize("x", [0.0, 1e-6, 0.2, 0.5, 0.97, 1.0])
def test_incomplete_beta(a: float, b: float, x: float) -> None:
    assert incomplete_beta(a, b, x) == pytest.approx(special.betainc(a, b, x), rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("degrees", [1, 2, 5, 34, 1000])
@pytest.mark.parametrize("probability", [0.5, 0.9, 0.975, 0.9995, 0.999999])
def test_student_t_quantile(degrees: int, probability: float) -> None:
    assert student_t_quantile(probability, degrees) == pytest.approx(
        stats.t.ppf(probability, degrees), rel=1e-7, abs=1e-9
    )


def test_student_t_quantile_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match=r"0\.3"):
        student_t_quantile(0.3, 5)


@pytest.mark.parametrize("population", [10, 100, 5000])
def test_hypergeometric_tail(population: int) -> None:
    random = np.random.default_rng(population)
    for _ in range(200):
        marked, draws = (int(value) for value in random.integers(0, population + 1, 2))
        hits = int(random.integers(0, draws + 1))
        want = stats.hypergeom.cdf(hits, population, marked, draws)
        assert hypergeometric_tail(hits, marked, population, draws) == pytest.approx(want, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(
    ("hits", "draws", "population"), [(0, 5, 60), (3, 10, 40), (10, 10, 40), (7, 20, 21), (4, 9, 9)]
)
def test_hypergeometric_interval_is_the_set_of_what_is_not_rejected(hits: int, draws: int, population: int) -> None:
    tail = 0.005
    kept = [
        marked
        for marked in range(hits, population - (draws - hits) + 1)
        if stats.hypergeom.cdf(hits, population, marked, draws) > tail
        and stats.hypergeom.sf(hits - 1, population, marked, draws) > tail
    ]
    assert hypergeometric_interval(hits, draws, population, 0.99) == (kept[0], kept[-1])


def test_hypergeometric_interval_of_a_huge_table() -> None:
    """In a table so large that logarithms of factorials lose their last digits."""
    population, draws, tail = 187_767_399, 35_840, 0.0005
    for hits in (0, 1, 40, 3_600, 20_000, 35_840):
        low, high = hypergeometric_interval(hits, draws, population, 1 - 2 * tail)
        # Draws are a 5,000th of the population: the binomial interval is within a thousandth.
        want = stats.binomtest(hits, draws).proportion_ci(1 - 2 * tail, method="exact")
        assert low == pytest.approx(want.low * population, rel=1e-3, abs=1)
        assert high == pytest.approx(want.high * population, rel=1e-3, abs=1)


def test_share_interval_is_wilsons_and_exact_where_every_input_was_drawn() -> None:
    low, high = share_interval(44, 100, 10**9, 0.999)
    want = stats.binomtest(44, 100).proportion_ci(0.999, method="wilson")
    assert (low, high) == (pytest.approx(want.low, rel=1e-5), pytest.approx(want.high, rel=1e-5))
    near = share_interval(44, 100, 110, 0.999)
    assert low < near[0] <= 0.44 <= near[1] < high
    assert share_interval(44, 100, 100, 0.999) == (0.44, 0.44)
    assert share_interval(0, 0, 100, 0.999) == (0.0, 1.0)
    assert share_interval(0, 50, 100, 0.9)[0] == 0
    assert share_interval(50, 50, 100, 0.9)[1] == 1


def skewed(num_rows: int, exponent: float) -> np.ndarray:
    """Access counts of a table by popularity, the last rows never accessed."""
    return (num_rows * 0.2 / np.arange(1, num_rows + 1) ** exponent).astype(np.int64)


@pytest.mark.parametrize("exponent", [0.8, 1.1, 1.5])
@pytest.mark.parametrize("hot_share", [1e-1, 1e-2, 1e-3, 1e-4])
def test_the_box_of_single_rows_covers_the_truth(exponent: float, hot_share: float) -> None:
    counts = skewed(60_000, exponent)
    threshold = int(counts[int(hot_share * counts.size)]) + 1
    truth, random, covered = int((counts >= threshold).sum()), np.random.default_rng(1), 0
    for _ in range(100):
        estimate = draw_rows(counts, 10, 128, random).num_at_least(threshold, 0.999)
        assert estimate.low <= estimate.num_rows <= estimate.high or estimate.num_rows == 0
        covered += estimate.low <= truth <= estimate.high
    assert covered >= 99


def test_the_box_of_the_paper_fails_where_rows_are_stored_by_popularity() -> None:
    counts, random = skewed(60_000, 1.1), np.random.default_rng(1)
    threshold = int(counts[60]) + 1
    estimates = [draw_chunks(counts, 10, 128, random).num_at_least(threshold, 0.999) for _ in range(100)]
    truth = int((counts >= threshold).sum())
    assert sum(one.low <= truth <= one.high for one in estimates) < 30
    assert {one.method for one in estimates} == {"student_t"}


def test_a_box_that_reads_the_whole_table_is_exact() -> None:
    counts = skewed(500, 1.0)
    for draw in (draw_rows, draw_chunks):
        estimate = draw(counts, 35, 1024, np.random.default_rng(0)).num_at_least(3, 0.999)
        assert (estimate.low, estimate.high, estimate.method) == ((counts >= 3).sum(), (counts >= 3).sum(), "exact")


def test_the_box_knows_what_is_possible() -> None:
    counts = np.concatenate([np.full(50, 9), np.zeros(99_950, np.int64)]).astype(np.int64)
    box = draw_rows(counts, 10, 100, np.random.default_rng(4))
    none = box.num_at_least(10, 0.999)
    assert (none.num_rows, none.low, none.method) == (0, 0, "hypergeometric")
    assert 100 < none.high < 1000  # 1,000 draws without a hit: 0.7 % of the rows at 99.9 %
    every = box.num_at_least(0, 0.999)
    # A thousand hits of a thousand do not prove that every row is hot: Student's t said so, its deviation being 0.
    assert (every.num_rows, every.high) == (100_000, 100_000)
    assert every.low == 100_000 - none.high
