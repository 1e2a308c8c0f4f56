"""Fit the curves of the Criteo-shaped columns to what was measured on 79,335 real inputs; prints them.

    python benchmarks/micro/synthetic_fit.py [COLUMN ...]

A column's counts in a sample are taken as Poisson, so what a curve should show there (distinct values, shares of the
top values, values seen once) is an exact sum, not a simulation. Needs scipy, which scikit-learn brings. What it printed
stands in `fae.synthetic.shapes`.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.stats import poisson

from fae.core.progress import say
from fae.synthetic.columns import CELL_BITS, FINE_CELL_BITS, ColumnShape
from fae.synthetic.shapes import CRITEO

sys.path.insert(0, str(Path(__file__).resolve().parent))
from synthetic_shape import NUM_INPUTS, REAL_COLUMNS

_COUNTS = np.arange(1, 257)


def expected(shape: ColumnShape) -> np.ndarray:
    """Distinct values, shares of the top id, top 1 %, top 10 %, share of values seen once."""
    missing = CRITEO.missing_shares.get(shape.missing, 0.0)
    marginal = shape.at_scale(1.0, missing)
    fine = marginal.size <= 4096 and shape.mapping == "hash"
    table = marginal.table(FINE_CELL_BITS if fine else CELL_BITS)
    edges = np.unique(np.concatenate([np.arange(256), np.geomspace(256, marginal.num_values, 600)]).astype(np.int64))
    edges = np.append(edges[edges < marginal.num_values], marginal.num_values)
    widths = np.diff(edges)
    each = np.diff(table.share_below(edges.astype(float))) / widths * (1.0 - missing) * NUM_INPUTS
    if missing:
        each, widths = np.append(each, missing * NUM_INPUTS), np.append(widths, 1)
    rare = each < 100
    # Values by their count: those seen often enough have their expected count, the others a Poisson one.
    seen = poisson.pmf(_COUNTS[:, None], each[rare]) @ widths[rare]
    counts = np.concatenate([each[~rare], _COUNTS.astype(float)])
    numbers = np.concatenate([widths[~rare].astype(float), seen])
    order = np.argsort(-counts)
    counts, numbers = counts[order], numbers[order]
    distinct = numbers.sum()
    ids, accesses = np.cumsum(numbers), np.cumsum(numbers * counts)

    def top(wanted: float) -> float:
        return float(np.interp(wanted, np.append(0, ids), np.append(0, accesses))) / accesses[-1]

    tops = [top(1.0), top(np.ceil(0.01 * distinct)), top(np.ceil(0.1 * distinct))]
    return np.array([distinct, *tops, seen[0] / distinct])


def fit(shape: ColumnShape) -> ColumnShape:
    """The shape with the best curve: head as measured, offset, two exponents and the knee between them."""
    real = np.array([getattr(REAL_COLUMNS[shape.name], name) for name in
                     ("distinct", "top_1", "top_1_percent", "top_10_percent", "singletons")])  # fmt: skip

    def candidate(point: np.ndarray) -> ColumnShape:
        offset, exponent, knee, tail = point
        return dataclasses.replace(
            shape, offset=float(f"{np.exp(np.clip(offset, -3, 9)):.3g}"),
            exponent=float(f"{np.clip(exponent, 0.05, 5):.4g}"),
            knee=float(f"{np.exp(np.clip(knee, 0, np.log(shape.num_embeddings))):.3g}"),
            tail_exponent=float(f"{np.clip(tail, 0.05, 12):.4g}"),
        )  # fmt: skip

    def loss(point: np.ndarray) -> float:
        found = expected(candidate(point))
        errors = np.append(np.log(found[0] / real[0]) / 0.02, (found[1:] - real[1:]) / 0.01)
        return float(errors @ errors)

    best = None
    # Knees early, late, and none to speak of; flat tops as well as steep ones.
    starts = [(offset, exponent, knee, tail) for offset, exponent in ((shape.offset, shape.exponent), (300.0, 2.5))
              for knee, tail in ((0.05, shape.exponent), (0.9, 8.0))]  # fmt: skip
    for offset, exponent, knee, tail in starts:
        at = [np.log(offset), exponent, np.log(max(2.0, knee * real[0])), tail]
        found = minimize(loss, at, method="Nelder-Mead", options={"maxfev": 400, "xatol": 1e-3, "fatol": 1e-3})
        best = found if best is None or found.fun < best.fun else best
    fitted = candidate(best.x)
    say(f"{shape.name}: loss {best.fun:.2f} real {np.round(real, 3)} fitted {np.round(expected(fitted), 3)}")
    return fitted


def main() -> None:
    """Fit all, or those named, and print the constants."""
    for column in CRITEO.columns:
        if len(sys.argv) > 1 and column.name not in sys.argv[1:]:
            continue
        found = fit(column)
        say(
            f'    ColumnShape("{found.name}", {found.num_embeddings}, {found.head_share}, "{found.missing}", '
            f'{found.offset}, {found.exponent}, "{found.source}", "{found.mapping}", {found.knee}, '
            f"{found.tail_exponent}),"
        )


if __name__ == "__main__":
    main()
