"""What other budgets would give: coverage and hot inputs of a calibration at budgets around the requested one.

Calibrate writes the result into the hot set's summary, reports draw it. Where the budget holds every row, the budgets
are smaller ones: what less memory would buy.
"""

from __future__ import annotations

from typing import Any

from fae.calibrate.budget_search import HotSetFit
from fae.calibrate.candidates import Candidate
from fae.calibrate.coverage import count_hot_inputs, training_coverage
from fae.calibrate.table_facts import Tables
from fae.profile.sampling import SampledInputs

DOUBLINGS = 5
"""How many times the budget is halved and doubled."""

MEASURED_INPUTS = 500_000
"""Inputs, at even distances, that shares are counted on: a curve needs no more."""

RING_SHARE = 0.5
"""A smaller budget is tried only if the ring of the next larger one takes at most this share of it. Where nearly all is
ring there is little to see, and the search for a hot set that fits weighs every ring down to the empty hot set: on
7 M rows in 26 tables and 2 cores all budgets took 2.9 s without this rule, 0.3 s with it."""


def budgets_around(budget_bytes: int, total_bytes: int) -> tuple[list[int], list[int]]:
    """The budgets downwards, from this one halved again and again, and upwards, doubled up to what all rows need.

    >>> budgets_around(64, 300)
    ([64, 32, 16, 8, 4, 2], [128, 256, 300])
    >>> budgets_around(64, 64)
    ([64, 32, 16, 8, 4, 2], [])
    """
    down = [budget_bytes >> step for step in range(DOUBLINGS + 1)]
    up = [budget_bytes << step for step in range(1, DOUBLINGS + 1)]
    reached = [total_bytes] if budget_bytes < total_bytes <= budget_bytes << DOUBLINGS else []
    return [budget for budget in down if budget > 0], [budget for budget in up if budget < total_bytes] + reached


def measure_other_budgets(
    tables: Tables, candidate: Candidate, inputs: SampledInputs, budget_bytes: int
) -> dict[str, Any]:
    """Measure coverage and hot-input share at other budgets.

    Parameters
    ----------
    candidate
        The selection that is shown. A peeling that was fitted to a thin sample would be judged by that very sample:
        show the threshold there.
    inputs
        Inputs that the profile read.

    Returns
    -------
    dict
        ``selection``, ``num_inputs`` (that the shares were counted on) and ``points``, by growing budget; budgets that
        hold no ring, or little beside it, are left out.
    """
    inputs = inputs.evenly(MEASURED_INPUTS)
    down, up = budgets_around(budget_bytes, tables.total_bytes)
    fits: list[tuple[int, HotSetFit]] = []
    for budget in down:
        if fits and fits[-1][1].staging_bytes > RING_SHARE * budget:
            break
        fit = candidate.search.largest(budget)
        if fit is None:
            break
        fits.append((budget, fit))
    fits.reverse()
    fits += [(budget, fit) for budget in up if (fit := candidate.search.largest(budget)) is not None]
    hot_inputs = count_hot_inputs(tables, inputs, candidate.ranks, [fit.num_hot for _, fit in fits])
    points = [
        {
            "budget_bytes": budget,
            "bytes": fit.bytes,
            "staging_bytes": fit.staging_bytes,
            "num_rows": int(fit.num_hot.sum()),
            "coverage": training_coverage(tables, candidate.ranks, fit.num_hot)[0],
            "input_share": num_hot_inputs / max(1, len(inputs)),
        }
        for (budget, fit), num_hot_inputs in zip(fits, hot_inputs, strict=True)
    ]
    return {"selection": candidate.method, "num_inputs": len(inputs), "points": points}
