"""How far two measurements must be apart to be told apart: two standard errors, and never if they print the same.

* AUC: Hanley and McNeil's standard error, from the AUC, the number of inputs and their label rate.
* Log loss and normalized entropy: the spread of the losses of single inputs is not recorded, so it is that of a
  calibrated model with the same AUC and label rate whose log-odds are normal in each class; wider if the loss is.
* Rates: from the spread of repeated timings where a record has one. A single timing has none: rates are told apart
  from `SINGLE_TIMING` on, those of a training of seconds from `SHORT_TIMING`, those of ranks on CPUs from
  `SHARED_CORES`.

Runs that share their test inputs differ by less chance than this takes, so it errs on the side of "no difference".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from fae.report.records import RunRecord

NUM_ERRORS = 2.0
"""Standard errors of a difference that are still noise."""
SINGLE_TIMING, SHORT_TIMING = 0.1, 0.3
"""Share by which two rates must differ that were timed once, and that of trainings that took less than `_LONG_SECONDS`:
ten of 1.3 s on two idle cores had 82,600 to 93,400 inputs/s, and two beside other work 70,800 and 76,200."""
SHARED_CORES = 0.6
"""The same share of ranks on CPUs, which wait for one another: equal trainings had 25,000 to 39,300 on a busy host."""
_LONG_SECONDS = 10.0
_RANGE_OF = (0.0, 0.0, 1.128, 1.693, 2.059, 2.326, 2.534, 2.704, 2.847, 2.970, 3.078)
"""Expected range of that many normal draws, in standard deviations."""
_STEPS = 80


def base_log_loss(label_rate: float | None) -> float | None:
    """Log loss of always answering the label rate; None where it is not known or the labels are of one kind.

    >>> round(base_log_loss(0.5), 4), base_log_loss(0.0)
    (0.6931, None)
    """
    if label_rate is None or not 0 < label_rate < 1:
        return None
    return -(label_rate * math.log(label_rate) + (1 - label_rate) * math.log1p(-label_rate))


def auc_error(auc: float | None, num_inputs: float | None, label_rate: float | None) -> float | None:
    """Standard error of an AUC (Hanley and McNeil, 1982); None where something is not known.

    >>> round(auc_error(0.8, 1000, 0.25), 4)
    0.0179
    """
    if auc is None or num_inputs is None or label_rate is None or not 0 <= auc <= 1 or not 0 < label_rate < 1:
        return None
    ones, zeros = num_inputs * label_rate, num_inputs * (1 - label_rate)
    if min(ones, zeros) < 1:
        return None
    both_ones, both_zeros = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (ones - 1) * (both_ones - auc**2) + (zeros - 1) * (both_zeros - auc**2)
    return math.sqrt(max(0.0, variance) / (ones * zeros))


def log_loss_error(
    log_loss: float | None, auc: float | None, num_inputs: float | None, label_rate: float | None
) -> float | None:
    """Standard error of a mean log loss; None where something is not known."""
    error = auc_error(auc, num_inputs, label_rate)
    if error is None or auc is None or num_inputs is None or label_rate is None or log_loss is None:
        return None
    # A model at chance still spreads its scores a little: it is taken one standard error above.
    mean, deviation = _spread_of_losses(min(max(auc, 0.5 + error), 1 - 1e-6), label_rate)
    wider = max(1.0, log_loss / mean) if mean > 0 else 1.0
    return wider * deviation / math.sqrt(num_inputs)


def _spread_of_losses(auc: float, label_rate: float) -> tuple[float, float]:
    """Mean and standard deviation of the losses of a calibrated model with normal log-odds in each class."""
    distance = math.sqrt(2) * NormalDist().inv_cdf(auc)
    middle = math.log(label_rate / (1 - label_rate))
    mean = square = whole = 0.0
    for step in range(_STEPS + 1):
        at = -5 + 10 * step / _STEPS
        weight = math.exp(-at * at / 2)
        for sign, share in ((1, label_rate), (-1, 1 - label_rate)):
            odds = sign * (middle + distance * at) + distance**2 / 2
            loss = math.log1p(math.exp(-abs(odds))) + max(0.0, -odds)
            mean, square, whole = (
                mean + share * weight * loss,
                square + share * weight * loss**2,
                whole + share * weight,
            )
    mean, square = mean / whole, square / whole
    return mean, math.sqrt(max(0.0, square - mean**2))


def share_error(share: float | None, num_inputs: float | None) -> float | None:
    """Standard error of a share of independent inputs; None where something is not known.

    >>> share_error(0.5, 100)
    0.05
    """
    if share is None or not num_inputs or num_inputs < 1 or not 0 <= share <= 1:
        return None
    return math.sqrt(share * (1 - share) / num_inputs)


def rate_error(low: float | None, high: float | None, num_samples: float | None) -> float | None:
    """Standard error of a rate from the lowest and highest of some timings; None without a spread."""
    if low is None or high is None or num_samples is None or num_samples < 2 or high < low:
        return None
    count = int(min(num_samples, len(_RANGE_OF) - 1))
    return (high - low) / _RANGE_OF[count] / math.sqrt(count)


def single_timing_error(rate: float | None, share: float = SINGLE_TIMING) -> float | None:
    """What is taken for the standard error of a rate that was timed once, where others differ from `share` on."""
    return None if rate is None else abs(rate) * share / NUM_ERRORS / math.sqrt(2)


def differ(one: float, one_error: float | None, other: float, other_error: float | None) -> bool:
    """Whether two measurements are more than two standard errors of their difference apart."""
    return abs(one - other) > NUM_ERRORS * math.hypot(one_error or 0.0, other_error or 0.0)


def best_places(
    values: Sequence[float | None], errors: Sequence[float | None], printed: Sequence[object], better: int
) -> frozenset[int]:
    """Places of the best value and of those that noise does not tell from it; none where that is all of them.

    Where a value or its error is not known, nothing is the best.

    Parameters
    ----------
    printed
        The values as the page prints them: what prints the same is the same.
    better
        1 where more is better, -1 where less is; 0 where neither is.
    """
    known = [value for value in values if value is not None]
    if not better or len(known) < max(2, len(values)) or None in errors:
        return frozenset()
    first = values.index(max(known) if better > 0 else min(known))
    best = known[first]
    places = frozenset(
        place
        for place, value in enumerate(known)
        if printed[place] == printed[first] or not differ(best, errors[first], value, errors[place])
    )
    return places if len(places) < len(values) else frozenset()


def label_rate_of(run: RunRecord, split: str = "test") -> float | None:
    """Share of a split's inputs with label 1, as its metrics or the log say it."""
    rate = run.number(split, "label_rate")
    return rate if rate is not None else run.number("log", "label_rate", split)


def auc_error_of(run: RunRecord, split: str = "test") -> float | None:
    """Standard error of a run's AUC."""
    return auc_error(run.number(split, "auc"), run.number(split, "num_inputs"), label_rate_of(run, split))


def rate_error_of(run: RunRecord) -> float | None:
    """Standard error of a run's rate of training, which is timed once."""
    rate, seconds = (run.number("train", name) for name in ("samples_per_second", "seconds"))
    if (run.number("train", "ranks") or 1) > 1 and not run.text("machine", "gpu"):
        return single_timing_error(rate, SHARED_CORES)
    is_short = seconds is not None and seconds < _LONG_SECONDS
    return single_timing_error(rate, SHORT_TIMING if is_short else SINGLE_TIMING)


def log_loss_error_of(run: RunRecord, split: str = "test") -> float | None:
    """Standard error of a run's log loss."""
    loss, auc, count = (run.number(split, name) for name in ("log_loss", "auc", "num_inputs"))
    return log_loss_error(loss, auc, count, label_rate_of(run, split))


def entropy_error_of(run: RunRecord, split: str = "test") -> float | None:
    """Standard error of a run's normalized entropy."""
    error, base = log_loss_error_of(run, split), base_log_loss(label_rate_of(run, split))
    return None if error is None or base is None else error / base
