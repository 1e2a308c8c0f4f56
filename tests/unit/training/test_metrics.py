"""Metrics against scikit-learn, and where they are not defined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from fae.training.quality.metrics import compute_metrics


@given(st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2, max_size=200))
def test_against_scikit_learn(pairs):
    labels = np.array([pair[0] for pair in pairs], np.float32)
    logits = np.array([pair[1] for pair in pairs], np.float32)  # few values: many ties
    metrics = compute_metrics(labels, logits)
    chances = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert metrics.log_loss == pytest.approx(log_loss(labels, chances, labels=[0, 1]), rel=1e-9)
    assert metrics.accuracy == pytest.approx(accuracy_score(labels, chances > 0.5))
    if 0 < labels.sum() < len(labels):
        assert metrics.auc == pytest.approx(roc_auc_score(labels, logits))
    else:
        assert metrics.auc is None
        assert metrics.normalized_entropy is None


def test_base_rate_has_normalized_entropy_one():
    labels = np.array([1, 0, 0, 0], np.float32)
    metrics = compute_metrics(labels, np.full(4, np.log(0.25 / 0.75), np.float32))
    assert metrics.normalized_entropy == pytest.approx(1.0, abs=1e-6)
    assert metrics.label_rate == 0.25


def test_large_logits_do_not_overflow():
    metrics = compute_metrics(np.array([0, 1], np.float32), np.array([900, -900], np.float32))
    assert metrics.log_loss == pytest.approx(900)


def test_nothing_to_measure():
    metrics = compute_metrics(np.empty(0, np.float32), np.empty(0, np.float32))
    assert (metrics.auc, metrics.log_loss, metrics.num_inputs) == (None, None, 0)


# Ties: defined up to rounding, so that an AUC does not depend on the size of batches.


@pytest.mark.parametrize("level", [0.0, 1e-3, -0.37, 12.5, -4e7])
def test_last_bits_neither_make_nor_break_ties(level):
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 500).astype(np.float32)
    noise = 1 + random.uniform(-1, 1, 500) * 2**-21
    constant = (np.float64(level) * noise + random.uniform(-1, 1, 500) * 1e-7).astype(np.float32)
    assert compute_metrics(labels, constant).auc == 0.5
    steps = random.integers(0, 20, 500)
    exact, noisy = level + steps * max(0.01, abs(level) / 100), None
    noisy = (exact * noise + random.uniform(-1, 1, 500) * 1e-7).astype(np.float32)
    expected = roc_auc_score(labels, steps)
    assert compute_metrics(labels, noisy).auc == pytest.approx(expected, abs=1e-12)


def test_many_different_logits_keep_their_order():
    random = np.random.default_rng(2)
    labels = (random.random(20_000) < 0.3).astype(np.float32)
    logits = (random.normal(size=20_000) + labels).astype(np.float32)
    assert compute_metrics(labels, logits).auc == pytest.approx(roc_auc_score(labels, logits), abs=1e-6)


def test_saturated_logits():
    labels = np.array([1, 0, 1, 0], np.float32)
    right = compute_metrics(labels, np.array([np.inf, -np.inf, np.inf, -np.inf], np.float32))
    assert (right.auc, right.log_loss, right.accuracy) == (1.0, 0.0, 1.0)
    wrong = compute_metrics(labels, np.array([-np.inf, -np.inf, np.inf, np.inf], np.float32))
    assert (wrong.auc, wrong.log_loss, wrong.normalized_entropy) == (0.5, None, None)
    nothing = compute_metrics(labels, np.array([np.nan, 0, 0, 0], np.float32))
    assert (nothing.auc, nothing.log_loss, nothing.label_rate) == (None, None, 0.5)


# Weights.


def test_weights_of_one_change_no_bit():
    random = np.random.default_rng(3)
    labels, logits = random.integers(0, 2, 999).astype(np.float32), random.normal(size=999).astype(np.float32)
    ones = compute_metrics(labels, logits, np.ones(999, np.float32))
    assert ones.auc == compute_metrics(labels, logits).auc
    assert ones.log_loss == pytest.approx(compute_metrics(labels, logits).log_loss, rel=1e-14)


@given(st.lists(st.tuples(st.booleans(), st.integers(-5, 5), st.integers(0, 3)), min_size=1, max_size=60))
def test_a_weight_of_two_is_the_input_twice(rows):
    labels, logits, weights = (np.array(column, np.float32) for column in zip(*rows, strict=True))
    times = weights.astype(int)
    weighted = compute_metrics(labels, logits, weights)
    repeated = compute_metrics(np.repeat(labels, times), np.repeat(logits, times))
    for name in ("auc", "log_loss", "accuracy", "normalized_entropy", "label_rate"):
        expected = getattr(repeated, name)
        found = getattr(weighted, name)
        assert found is expected is None or found == pytest.approx(expected, rel=1e-12)
