"""Which selection is used: the requested one, or with ``auto`` the better one on inputs it was not fitted to.

Figures of the peeling never come from a thin sample that it was fitted to, because it over-fits; where every training
input was read the figures are of the very inputs that will be packed, and measuring on them is honest. In a tie the
threshold is used. The request is overruled in one case: the peeling is never used where the threshold serves more of
the very inputs that the peeling was fitted to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fae.calibrate.candidates import Candidate, CandidateBuilder
from fae.calibrate.coverage import MeasuredCoverage
from fae.calibrate.peeled_sets import PeeledSets
from fae.calibrate.table_facts import Tables
from fae.core.compiled import Int64
from fae.core.errors import BudgetError
from fae.core.seeds import generator
from fae.core.threads import run_ranges
from fae.core.units import format_bytes
from fae.profile.config import HotConfig
from fae.profile.counting import count_accesses
from fae.profile.sampling import SampledInputs, sample_without_replacement

HELD_OUT_SHARE = 5
"""One input in this many is held out to compare selections."""


@dataclass(eq=False, kw_only=True)
class Selection:
    """The candidate that is used, and the evidence for it.

    Attributes
    ----------
    winner, threshold
        The candidate that is used; the threshold selection fitted to all inputs, for the paper's grid.
    measured, measured_on
        Hot inputs and lookups of the winner, and in words which inputs they were counted on.
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


@dataclass(frozen=True, eq=False, kw_only=True)
class _Trial:
    """Selections fitted and compared on the same inputs.

    Attributes
    ----------
    fitted
        The threshold first, then the peeling.
    inputs_in_words
        The inputs they were compared on.
    results
        What each of those that fit the budget serves of these inputs.
    """

    fitted: tuple[Candidate, Candidate]
    inputs_in_words: str
    results: dict[str, MeasuredCoverage]

    def ranking(self) -> list[str]:
        """Names of the selections, best first. Sorting is stable: in a tie the threshold stays first."""
        return sorted(self.results, key=lambda name: -self.results[name].input_share)

    def figures(self) -> dict[str, dict[str, Any]]:
        """Figures of each, for the summary."""
        return {
            one.method: _figures(one, self.results[one.method], self.inputs_in_words)
            for one in self.fitted
            if one.method in self.results
        }


def choose(
    builder: CandidateBuilder, inputs: SampledInputs, counts: Int64, *, is_exact: bool, batch_size: int, seed: int
) -> Selection:
    """Fit the selections that the configuration requests and take the best.

    Parameters
    ----------
    inputs, counts
        Inputs that the profile read, and the accesses of each row by them (int64, flat).
    is_exact
        Whether these are all training inputs.

    Raises
    ------
    BudgetError
        If no hot set of the requested selections fits.
    """
    config, tables = builder.config, builder.tables
    everything = "every training input" if is_exact else "the sample"
    threshold = builder.threshold(inputs, counts)
    # Where the threshold serves every lookup there is nothing left to win.
    serves_all = threshold.fit is not None and bool(np.all(threshold.fit.num_hot >= tables.num_accessed))
    if config.selection == "threshold" or (config.selection == "auto" and serves_all):
        _require_fit([threshold], config, batch_size)
        measured = threshold.measure(tables, inputs)
        return Selection(
            winner=threshold,
            threshold=threshold,
            measured=measured,
            measured_on=everything,
            candidates={"threshold": _figures(threshold, measured, everything)},
        )
    on_all = is_exact or len(inputs) < HELD_OUT_SHARE
    if on_all:
        fitted = (threshold, builder.peeling(inputs, counts, threshold.small))
        trial = _compare(tables, fitted, inputs, everything)
    else:
        trial = _compare_on_held_out(builder, inputs, counts, seed)
    ranking = trial.ranking()
    final: list[Candidate] = list(trial.fitted) if on_all else [threshold]
    if not on_all and (config.selection == "peeling" or ranking[:1] != ["threshold"]):
        final.append(builder.peeling(inputs, counts, threshold.small))
    _require_fit(final, config, batch_size)
    fits: dict[str, Candidate] = {one.method: one for one in final if one.fit is not None}
    if config.selection == "peeling":
        ranking = prefer_peeling(fits, tables, inputs, trial.results if on_all else {})
    winner = fits[next((name for name in ranking if name in fits), next(iter(fits)))]
    if winner.method in trial.results and (winner.method == "peeling" or on_all):
        measured, measured_on = trial.results[winner.method], trial.inputs_in_words
    else:  # the threshold hardly over-fits: the whole sample says more than a fifth of it
        measured, measured_on = winner.measure(tables, inputs), everything
    peeled = next(one for one in [*final, *trial.fitted] if one.method == "peeling")
    return Selection(
        winner=winner,
        threshold=threshold,
        measured=measured,
        measured_on=measured_on,
        candidates=trial.figures(),
        bound=_bound(peeled, [one.fit.bytes for one in [*final, *trial.fitted] if one.fit is not None]),
    )


def _compare(tables: Tables, fitted: tuple[Candidate, Candidate], inputs: SampledInputs, in_words: str) -> _Trial:
    results: dict[str, MeasuredCoverage] = {
        one.method: one.measure(tables, inputs) for one in fitted if one.fit is not None
    }
    return _Trial(fitted=fitted, inputs_in_words=in_words, results=results)


def _compare_on_held_out(builder: CandidateBuilder, inputs: SampledInputs, all_counts: Int64, seed: int) -> _Trial:
    """Fit both selections to four fifths of the inputs and compare them on the rest."""
    kept, held_out = _hold_out(inputs, seed)
    counts = np.empty_like(all_counts)
    of_held_out = count_accesses(held_out, builder.tables.features)

    def subtract(first: int, last: int) -> None:
        np.subtract(all_counts[first:last], of_held_out[first:last], out=counts[first:last])

    run_ranges(subtract, len(counts), min_range=2**16)
    threshold = builder.threshold(kept, counts)
    fitted = (threshold, builder.peeling(kept, counts, threshold.small))
    return _compare(builder.tables, fitted, held_out, "a fifth of the sample, held out")


def prefer_peeling(
    fits: dict[str, Candidate], tables: Tables, inputs: SampledInputs, on_inputs: dict[str, MeasuredCoverage]
) -> list[str]:
    """Rank the selections, best first, where the recipe requests the peeling.

    The peeling comes first unless it serves fewer of the inputs that it was fitted to than the threshold does. At equal
    bytes of rows it never serves fewer; but its batches have more different cold rows, so its ring is larger, and where
    the ring is most of the budget that can cost more than the peeling wins.

    Parameters
    ----------
    fits
        The candidates that fit the budget, by selection.
    on_inputs
        What was counted on all of `inputs`, by selection; what is missing is counted here.
    """
    if len(fits) < 2:
        return list(fits)
    fitted_to = inputs.evenly(fits["peeling"].num_fitted)
    if fitted_to is not inputs:
        on_inputs = {}
    hot = {name: (on_inputs.get(name) or one.measure(tables, fitted_to)).num_hot_inputs for name, one in fits.items()}
    return ["threshold", "peeling"] if hot["threshold"] > hot["peeling"] else ["peeling", "threshold"]


def _hold_out(inputs: SampledInputs, seed: int) -> tuple[SampledInputs, SampledInputs]:
    held = sample_without_replacement(
        generator(seed, "calibrate", "held_out"), len(inputs), len(inputs) // HELD_OUT_SHARE
    )
    kept = np.delete(np.arange(len(inputs), dtype=np.int64), held)
    return inputs.take(kept), inputs.take(held).cached()  # the others are read once: by the peeling


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
    """The certificate at the largest hot set of any candidate: no hot set of that size serves more inputs."""
    assert isinstance(peeled.sets, PeeledSets)
    num_bytes = max(hot_bytes)
    return {
        "input_share": peeled.sets.peeled.bound(peeled.sets.row_bytes, num_bytes),
        "bytes": num_bytes,
        "num_inputs": peeled.num_fitted,
    }


def _require_fit(candidates: list[Candidate], config: HotConfig, batch_size: int) -> None:
    if any(one.fit is not None for one in candidates):
        return
    need, ring = min(one.need for one in candidates if one.need is not None)
    raise BudgetError(
        f"[hot] budget = {config.budget!r} ({format_bytes(config.budget_bytes)}) is too small: with batch_size = "
        f"{batch_size} and ring_depth = {config.ring_depths[-1]} the smallest that works is {format_bytes(need)}, "
        + (
            f"of which the staging ring takes {format_bytes(ring)}"
            if ring
            else "which holds every row and needs no ring"
        )
        + f'; set budget = "{-(-need // 1024)}KiB" or more, or lower [train] '
        + ("batch_size" if config.ring_depth in ("auto", 2) else "batch_size or [hot] ring_depth")
    )
