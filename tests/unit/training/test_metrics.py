"""Metrics against scikit-learn, and where they are not defined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from fae.training.metrics import compute_metrics


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
