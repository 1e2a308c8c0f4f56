"""What other budgets would buy: the chain of a calibration, read off at budgets around the one that was asked for.

Place in the flow: calibrate writes it into the hot set's summary, reports draw it. Invariants: it changes nothing that
was chosen; a hot-input share of the peeling is never counted on a thin sample that the peeling was fitted to, so where
the log was only sampled the threshold selection is shown instead, and the result says which.
"""

from __future__ import annotations

from typing import Any

from fae.popularity.choice import Choice
from fae.popularity.coverage import measure, training_coverage
from fae.popularity.sampling import Inputs
from fae.popularity.tables import Tables

DOUBLINGS = 5
"""How far the sweep goes to either side of the budget."""

SWEEP_INPUTS = 500_000
"""Inputs, at even distances, that shares are counted on: a curve needs no more, and each budget reads them again."""


def sweep_budgets(budget_bytes: int, total_bytes: int) -> list[int]:
    """The budgets: doubled and halved from the one at hand, up to what all rows need.

    >>> sweep_budgets(64, 300)
    [2, 4, 8, 16, 32, 64, 128, 256, 300]
    """
    down = [budget_bytes >> step for step in range(DOUBLINGS, -1, -1)]
    up = [budget_bytes << step for step in range(1, DOUBLINGS + 1)]
    budgets = [budget for budget in (*down, *up) if 0 < budget < total_bytes]
    return [*budgets, total_bytes] if budget_bytes << DOUBLINGS >= total_bytes else budgets


def sweep(tables: Tables, choice: Choice, inputs: Inputs, budget_bytes: int, *, is_exact: bool) -> dict[str, Any]:
    """Coverage and hot-input share over budgets.

    Parameters
    ----------
    inputs
        What the profile read.
    is_exact
        Whether that is every training input.

    Returns
    -------
    dict
        ``selection``, ``num_inputs`` (that the shares were counted on) and ``points``; budgets that hold no ring are
        left out.
    """
    candidate = choice.winner if is_exact else choice.threshold
    inputs = inputs.evenly(SWEEP_INPUTS).cached()
    points = []
    for budget in sweep_budgets(budget_bytes, tables.total_bytes):
        fit = candidate.search.largest(budget)
        if fit is None:
            continue
        points.append(
            {
                "budget_bytes": budget,
                "bytes": fit.bytes,
                "staging_bytes": fit.staging_bytes,
                "num_rows": int(fit.num_hot.sum()),
                "coverage": training_coverage(tables, candidate.ranks, fit.num_hot)[0],
                "input_share": measure(tables, inputs, candidate.ranks, fit.num_hot).input_share,
            }
        )
    return {"selection": candidate.selection, "num_inputs": len(inputs), "points": points}
