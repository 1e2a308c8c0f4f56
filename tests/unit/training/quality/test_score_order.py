"""The order of scores and their ties, against sorts by comparison and a slow walk."""

from __future__ import annotations

import numpy as np
import pytest

from fae.training.quality.calibration import measure_calibration
from fae.training.quality.metrics import ScoredInputs, area_under_curve, compute_metrics, metrics_of
from fae.training.quality.score_order import TIE, ascending_order, tie_groups

SPECIAL = np.array([0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 3e38, -3e38, 1, 1 + TIE], np.float32)


def scores(seed, size=500, special=0.3):
    random = np.random.default_rng(seed)
    found = (random.standard_normal(size) * 10.0 ** random.integers(-8, 9)).astype(np.float32)
    return np.where(random.random(size) < special, random.choice(SPECIAL, size), found).astype(np.float32)


def slow_ties(values):
    """Pass through the values upwards; one begins a new group where it is too far above the first of the open one."""
    groups, group, first = {}, -1, None
    for value in sorted(set(values.tolist())):
        near = first is not None and (value == first or value - first <= TIE * max(1.0, abs(first)))
        if not near or np.isinf(value) != np.isinf(first):
            group, first = group + 1, value
        groups[value] = group
    return [groups[value] for value in values.tolist()]


@pytest.mark.parametrize("seed", range(8))
def test_order_and_ties(seed):
    values = scores(seed)
    assert np.array_equal(ascending_order(values), np.argsort(values, kind="stable"))
    assert tie_groups(values).tolist() == slow_ties(values)
    assert tie_groups(values.astype(np.float64)).tolist() == slow_ties(values)


def test_what_is_no_number_is_last_and_tied():
    values = np.array([np.nan, 1, -np.nan, np.inf, -1], np.float32)
    assert ascending_order(values).tolist() == [4, 1, 3, 0, 2]
    assert tie_groups(values).tolist() == [3, 1, 3, 2, 0]


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("special", [0.0, 0.2])
def test_a_part_has_the_metrics_of_its_inputs(is_weighted, special):
    random = np.random.default_rng(9)
    logits, labels = scores(3, 4000, special), random.integers(0, 2, 4000).astype(np.float32)
    weights = random.integers(0, 3, 4000).astype(np.float32) / 3 if is_weighted else None
    scored, chosen = ScoredInputs(labels, logits, weights), random.random(4000) < 0.3
    whole = metrics_of(scored)
    part = metrics_of(scored.part(chosen))
    assert whole == compute_metrics(labels, logits, weights)
    assert part == compute_metrics(labels[chosen], logits[chosen], None if weights is None else weights[chosen])
    assert part.auc == area_under_curve(scored.part(chosen)) != whole.auc


@pytest.mark.parametrize("is_weighted", [False, True])
def test_a_known_order_changes_no_bin(is_weighted):
    random = np.random.default_rng(4)
    labels, shown = random.integers(0, 2, 3000).astype(float), random.random(3000).round(2)
    weights = random.random(3000) if is_weighted else None
    found = measure_calibration(labels, shown, weights)
    for order in (np.argsort(shown), np.arange(3000)):  # the second one is not ascending
        assert measure_calibration(labels, shown, weights, order=order) == found
    inside = [each for each in found["bins"] for value in [each["highest"]] if value == shown.max()]
    assert len(inside) == 1
    assert inside[0]["num_inputs"] == int((shown >= inside[0]["lowest"]).sum())
