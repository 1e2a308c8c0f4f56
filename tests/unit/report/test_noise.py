"""Standard errors against what repeated draws do, and what is told apart by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fae.report.page import build_page
from fae.report.records import RunRecord
from fae.report.sentences.noise import (
    auc_error,
    base_log_loss,
    best_places,
    differ,
    log_loss_error,
    rate_error,
    rate_error_of,
    share_error,
    single_timing_error,
)
from run_records import Page, make_record, make_run


def draws(distance: float, rate: float, inputs: int, times: int) -> tuple[np.ndarray, np.ndarray]:
    """AUC and log loss of a calibrated model on that many logs."""
    rng = np.random.default_rng(7)
    aucs, losses = [], []
    for _ in range(times):
        labels = rng.random(inputs) < rate
        odds = np.log(rate / (1 - rate)) + (labels - 0.5) * distance**2 + distance * rng.standard_normal(inputs)
        losses.append(np.mean(np.logaddexp(0, np.where(labels, -odds, odds))))
        order = np.empty(inputs)
        order[np.argsort(odds)] = np.arange(1, inputs + 1)
        ones = labels.sum()
        aucs.append((order[labels].sum() - ones * (ones + 1) / 2) / (ones * (inputs - ones)))
    return np.array(aucs), np.array(losses)


@pytest.mark.parametrize(("distance", "rate"), [(0.8, 0.25), (2.3, 0.33), (1.0, 0.03)])
def test_errors_are_those_of_repeated_draws(distance: float, rate: float) -> None:
    aucs, losses = draws(distance, rate, 2_000, 400)
    error = auc_error(float(aucs.mean()), 2_000, rate)
    assert error is not None
    assert 0.85 < error / aucs.std() < 1.5, "Hanley and McNeil's takes more than there is for a high AUC"
    assert log_loss_error(float(losses.mean()), float(aucs.mean()), 2_000, rate) == pytest.approx(losses.std(), rel=0.2)


def test_what_is_not_known_has_no_error() -> None:
    for arguments in ((None, 100, 0.5), (0.7, None, 0.5), (0.7, 100, None), (0.7, 100, 0.0), (1.2, 100, 0.5)):
        assert auc_error(*arguments) is None
        assert log_loss_error(0.5, *arguments) is None
    assert auc_error(0.7, 3, 0.01) is None, "no input with label 1"
    assert log_loss_error(None, 0.7, 100, 0.5) is None
    assert log_loss_error(0.69, 0.5, 1_000, 0.5), "a model at chance has an error, too"
    assert rate_error(1, 2, 1) is None
    assert rate_error(None, 2, 5) is None
    assert share_error(0.5, 0) is None
    assert base_log_loss(1.0) is None


def test_the_error_of_a_rate_comes_from_its_spread() -> None:
    samples = np.random.default_rng(3).normal(1_000, 20, (4_000, 5))
    errors = [rate_error(low, high, 5) for low, high in zip(samples.min(1), samples.max(1), strict=True)]
    assert np.mean([error for error in errors if error]) == pytest.approx(samples.mean(1).std(), rel=0.1)


def test_no_winner_within_noise() -> None:
    assert best_places([0.75, 0.72], [0.05, 0.05], ["0.75", "0.72"], 1) == frozenset()
    assert best_places([0.75, 0.72], [0.005, 0.005], ["0.75", "0.72"], 1) == {0}
    assert best_places([0.75, 0.72], [0.005, 0.005], ["0.75", "0.72"], -1) == {1}
    assert best_places([0.75, 0.748, 0.6], [0.005] * 3, ["a", "b", "c"], 1) == {0, 1}
    assert best_places([0.72001, 0.72004], [1e-9] * 2, ["0.7200", "0.7200"], 1) == frozenset(), "equal as printed"
    assert best_places([0.9, None], [0.001] * 2, ["0.9", "-"], 1) == frozenset()
    assert best_places([0.9, 0.1], [0.001, None], ["0.9", "0.1"], 1) == frozenset(), "noise that is not known"
    assert best_places([1.0], [0.0], ["1"], 1) == frozenset()
    assert best_places([2.0, 1.0], [0.0] * 2, ["2", "1"], 0) == frozenset()


def test_single_timings_differ_from_a_tenth_on() -> None:
    def apart(one: float, other: float) -> bool:
        return differ(one, single_timing_error(one), other, single_timing_error(other))

    assert not apart(100_000, 91_000)
    assert apart(100_000, 88_000)


@pytest.mark.parametrize(("seconds", "apart"), [(1.3, False), (9.9, False), (10.0, True), (None, True)])
def test_rates_of_short_trainings_differ_from_three_tenths_on(seconds: float | None, apart: bool) -> None:
    train = {"samples_per_second": 93_400.0, "seconds": seconds}
    one, other = (
        RunRecord(label="a", record={"train": {**train, **more}}) for more in ({}, {"samples_per_second": 70_800.0})
    )
    assert differ(93_400.0, rate_error_of(one), 70_800.0, rate_error_of(other)) is apart


def test_rates_of_ranks_on_cpus_differ_from_six_tenths_on() -> None:
    def apart(one: float, other: float, **machine: str) -> bool:
        runs = [
            RunRecord(
                label="a",
                record={"train": {"samples_per_second": rate, "seconds": 60.0, "ranks": 2}, "machine": machine},
            )
            for rate in (one, other)
        ]
        return differ(one, rate_error_of(runs[0]), other, rate_error_of(runs[1]))

    assert not apart(39_300, 25_000)
    assert apart(39_300, 15_000)
    assert apart(39_300, 25_000, gpu="NVIDIA H200")


def record_of(auc: float, loss: float, rate: float, inputs: int = 50_000) -> dict[str, Any]:
    record = make_record()
    record["test"] = {"auc": auc, "log_loss": loss, "label_rate": 0.25, "num_inputs": inputs}
    record["train"]["samples_per_second"] = rate
    return record


def test_the_page_marks_the_best_beyond_noise() -> None:
    runs = [make_run(label, **record_of(*figures)) for label, figures in
            {"a": (0.76, 0.47, 1_000), "b": (0.72, 0.49, 1_050)}.items()]  # fmt: skip
    text = build_page(runs)
    assert '<td class="best">0.7600</td>' in text
    assert '<td class="best">0.4700</td>' in text
    assert text.count('class="best"') == 2, "rates of single timings 5 % apart have no winner"
    assert "none where that is all of them" in Page(text).text
    few = [make_run(label, **record_of(*figures, 500)) for label, figures in
           {"a": (0.76, 0.47, 1_000), "b": (0.72, 0.49, 2_000)}.items()]  # fmt: skip
    assert build_page(few).count('class="best"') == 1, "500 test inputs tell nothing, a doubled rate does"
