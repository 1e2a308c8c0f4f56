"""Which selection: the one that was asked for, or with ``auto`` the better one on inputs it was not fitted to.

Place in the flow: the heart of calibrate. Invariant: figures of the peeling never come from a thin sample that it was
fitted to, because it over-fits; where every training input was read the figures are of the very inputs that will be
packed, and in-sample is the honest measure. Ties go to the threshold. What was asked for is overruled in one case: the
peeling is never used where the threshold serves more of the very inputs that the peeling chose from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fae.calibrate.candidates import Candidate, CandidateBuilder
from fae.calibrate.coverage import MeasuredCoverage
from fae.calibrate.peeled_sets import PeeledSets
from fae.calibrate.table_facts import IntArray, Tables
from fae.core.errors import BudgetError
from fae.core.seeds import generator
from fae.core.units import format_bytes
from fae.profile.config import HotConfig
from fae.profile.counting import count_accesses
from fae.profile.sampling import SampledInputs, sample_without_replacement

HELD_OUT_SHARE = 5
"""One input of so many is held out to choose between selections."""


@dataclass(eq=False, kw_only=True)
class Selection:
    """The winner and the evidence.

    Attributes
    ----------
    winner, threshold
        The candidate that is used; the threshold selection on all inputs, for the walked grid.
    measured, measured_on
        Hot inputs and lookups, and in words which inputs they were counted on.
    candidates
        Figures of every selection that was fitted, on the same inputs.
    bound
        ``{"input_share", "bytes", "num_inputs"}`` of the peeling's certificate, or None.
    """

    winner: Candidate
    threshold: Candidate
    measured: MeasuredCoverage
    measured_on: str
    candidates: dict[str, dict[str, Any]] = field(default_factory=dict)
    bound: dict[str, Any] | None = None


def choose(
    fitter: CandidateBuilder, inputs: SampledInputs, counts: IntArray, *, is_exact: bool, batch_size: int, seed: int
) -> Selection:
    """Fit what the configuration asks for and take the winner.

    Parameters
    ----------
    inputs, counts
        What the profile read, and the accesses of each row by it (int64, flat).
    is_exact
        Whether that is every training input.

    Raises
    ------
    BudgetError
        If no hot set of the selections asked for fits.
    """
    config, tables = fitter.config, fitter.tables
    everything = "every training input" if is_exact else "the sample"
    threshold = fitter.threshold(inputs, counts)
    # Where the threshold serves every lookup there is nothing left to win.
    serves_all = threshold.fit is not None and bool(np.all(threshold.fit.num_hot >= tables.num_accessed))
    if config.selection == "threshold" or (config.selection == "auto" and serves_all):
        _require([threshold], config, batch_size)
        measured = threshold.measure(tables, inputs)
        return Selection(
            winner=threshold,
            threshold=threshold,
            measured=measured,
            measured_on=everything,
            candidates={"threshold": _figures(threshold, measured, everything)},
        )
    if is_exact or len(inputs) < HELD_OUT_SHARE:
        judged_on, judges = everything, inputs
        fitted = [threshold, fitter.peeling(inputs, counts, threshold.small)]
        final = fitted
    else:
        judged_on = "a fifth of the sample, held out"
        kept, judges = _hold_out(inputs, seed)
        kept_counts = count_accesses(kept, tables.features)
        on_kept = fitter.threshold(kept, kept_counts)
        fitted = [on_kept, fitter.peeling(kept, kept_counts, on_kept.small)]
        final = []
    results: dict[str, MeasuredCoverage] = {
        one.selection: one.measure(tables, judges) for one in fitted if one.fit is not None
    }
    # Sorting is stable: the threshold stands first and stays first on ties.
    ranking = sorted(results, key=lambda name: -results[name].input_share)
    if not final:
        final = [threshold]
        if config.selection == "peeling" or ranking[:1] != ["threshold"]:
            final.append(fitter.peeling(inputs, counts, threshold.small))
    _require(final, config, batch_size)
    fits: dict[str, Candidate] = {one.selection: one for one in final if one.fit is not None}
    if config.selection == "peeling":
        ranking = peeling_unless_below(fits, tables, inputs, results if judges is inputs else {})
    winner = fits[next((name for name in ranking if name in fits), next(iter(fits)))]
    if winner.selection in results and (winner.selection == "peeling" or judges is inputs):
        measured, measured_on = results[winner.selection], judged_on
    else:  # the threshold hardly over-fits: the whole sample says more than a fifth of it
        measured, measured_on = winner.measure(tables, inputs), everything
    figures: dict[str, dict[str, Any]] = {
        one.selection: _figures(one, results[one.selection], judged_on) for one in fitted if one.selection in results
    }
    peeled = next((one for one in [*final, *fitted] if one.selection == "peeling"), fitted[-1])
    return Selection(
        winner=winner,
        threshold=threshold,
        measured=measured,
        measured_on=measured_on,
        candidates=figures,
        bound=_bound(peeled, [one.fit.bytes for one in [*final, *fitted] if one.fit is not None]),
    )


def peeling_unless_below(
    fits: dict[str, Candidate], tables: Tables, inputs: SampledInputs, on_inputs: dict[str, MeasuredCoverage]
) -> list[str]:
    """Which selection to take, best first, where the peeling was asked for.

    The peeling, unless it serves fewer of the inputs that it chose from than the threshold does.

    At equal bytes of rows it does not; but its batches bring more different cold rows, so that its ring is larger, and
    where the ring is most of the budget that can cost more than the peeling wins.

    Parameters
    ----------
    fits
        The candidates that fit the budget, by selection.
    on_inputs
        What was counted on all of `inputs`, by selection; the rest is counted here.
    """
    if len(fits) < 2:
        return list(fits)
    chosen_from = inputs.evenly(fits["peeling"].num_fitted)
    if chosen_from is not inputs:
        on_inputs = {}
    hot = {name: (on_inputs.get(name) or one.measure(tables, chosen_from)).num_hot_inputs for name, one in fits.items()}
    return ["threshold", "peeling"] if hot["threshold"] > hot["peeling"] else ["peeling", "threshold"]


def _hold_out(inputs: SampledInputs, seed: int) -> tuple[SampledInputs, SampledInputs]:
    held = sample_without_replacement(
        generator(seed, "calibrate", "held_out"), len(inputs), len(inputs) // HELD_OUT_SHARE
    )
    kept = np.delete(np.arange(len(inputs), dtype=np.int64), held)
    return inputs.take(kept).cached(), inputs.take(held).cached()


def _figures(candidate: Candidate, measured: MeasuredCoverage, judged_on: str) -> dict[str, Any]:
    assert candidate.fit is not None
    return {
        "input_share": measured.input_share,
        "coverage": measured.coverage,
        "num_rows": int(candidate.fit.num_hot.sum()),
        "bytes": candidate.fit.bytes,
        "staging_bytes": candidate.fit.staging_bytes,
        "num_fitted_inputs": candidate.num_fitted,
        "judged_on": judged_on,
        "num_judged_inputs": measured.num_inputs,
    }


def _bound(peeled: Candidate, hot_bytes: list[int]) -> dict[str, Any]:
    """The certificate at the largest hot set that any candidate took: nothing of that size does better."""
    assert isinstance(peeled.chain, PeeledSets)
    num_bytes = max(hot_bytes)
    return {
        "input_share": peeled.chain.peeled.bound(peeled.chain.row_bytes, num_bytes),
        "bytes": num_bytes,
        "num_inputs": peeled.num_fitted,
    }


def _require(candidates: list[Candidate], config: HotConfig, batch_size: int) -> None:
    if any(one.fit is not None for one in candidates):
        return
    need, ring = min(one.need for one in candidates if one.need is not None)
    raise BudgetError(
        f"[hot] budget = {config.budget!r} ({format_bytes(config.budget_bytes)}) is too small: with batch_size = "
        f"{batch_size} and ring_depth = {config.ring_depth} the smallest that works is {format_bytes(need)}, "
        + (
            f"of which the staging ring takes {format_bytes(ring)}"
            if ring
            else "which holds every row and needs no ring"
        )
        + f'; set budget = "{-(-need // 1024)}KiB" or more, or lower [train] '
        f"batch_size or [hot] ring_depth"
    )
