"""Candidates: each selection fitted to inputs, with the largest of its nested hot sets that fits the budget.

Every candidate fits the budget together with its staging ring. `fae.calibrate.selection` compares candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fae.calibrate.budget_search import BudgetSearch, HotSetFit
from fae.calibrate.coverage import MeasuredCoverage, measure
from fae.calibrate.peeled_sets import PeeledSets
from fae.calibrate.peeling import INCIDENCE_BYTES, MEMORY_BYTES, peel
from fae.calibrate.staging_rows import StagingProbe, StagingProbes
from fae.calibrate.table_facts import Tables
from fae.calibrate.threshold import ThresholdSets, ThresholdStep
from fae.core.compiled import Int64
from fae.profile.config import HotConfig
from fae.profile.sampling import SampledInputs


@dataclass(frozen=True, eq=False, kw_only=True)
class Candidate:
    """One selection, fitted to some inputs.

    Attributes
    ----------
    method
        Which selection.
    sets, search
        Its nested hot sets, and the search for those that fit a budget.
    fit
        The largest hot set that fits the budget; None where nothing fits.
    need
        ``(bytes, ring bytes)`` of the smallest budget that would be enough; set where nothing fits.
    ranks
        int32, flat: its storage order; None for the identity.
    step
        Step of the threshold selection that `fit` belongs to; None for the peeling.
    small
        Tables that are hot as a whole, smallest first.
    num_fitted
        Inputs that it was fitted to.
    """

    method: Literal["threshold", "peeling"]
    sets: ThresholdSets | PeeledSets
    search: BudgetSearch
    ranks: npt.NDArray[np.int32] | None
    fit: HotSetFit | None
    need: tuple[int, int] | None
    small: tuple[int, ...]
    num_fitted: int
    step: ThresholdStep | None = None

    def measure(self, tables: Tables, inputs: SampledInputs) -> MeasuredCoverage:
        """Count what its hot set serves of some inputs."""
        assert self.fit is not None
        return measure(tables, inputs, self.ranks, self.fit.num_hot)


@dataclass(frozen=True, eq=False, kw_only=True)
class Fitted:
    """A selection fitted to inputs, whatever the budget."""

    sets: ThresholdSets | PeeledSets
    search: BudgetSearch
    ranks: npt.NDArray[np.int32] | None
    num_fitted: int


@dataclass(frozen=True, eq=False, kw_only=True)
class CandidateBuilder:
    """Fits selections to inputs, for one configuration.

    Attributes
    ----------
    probe
        Probe batches, drawn once, so that candidates reserve staging by the same inputs.
    fitted
        What was fitted already, by selection, number of inputs and small tables: builders of other budgets, over the
        same log, profile and seed, share it. None keeps nothing.
    """

    tables: Tables
    config: HotConfig
    probe: StagingProbe | StagingProbes
    fitted: dict[tuple[object, ...], Fitted] | None = None

    def threshold(self, inputs: SampledInputs, counts: Int64) -> Candidate:
        """Fit the paper's statistical optimizer. `counts` (int64, flat) are the inputs' accesses."""

        def fit_threshold() -> Fitted:
            sets = ThresholdSets(self.tables, counts, self.config)
            return self._searched(sets, sets.ranks(), len(inputs))

        fitted = self._once(("threshold", len(inputs)), fit_threshold)
        fit = fitted.search.largest(self.config.budget_bytes)
        assert isinstance(fitted.sets, ThresholdSets)
        step = fitted.sets.largest_step(fit.bytes if fit else 0)
        return self._candidate("threshold", fitted, fit, step.small, step)

    def peeling(self, inputs: SampledInputs, counts: Int64, small: tuple[int, ...]) -> Candidate:
        """Fit the peeling. `small` are the tables that are hot as a whole beside it."""

        def fit_peeling() -> Fitted:
            free = np.zeros(len(self.tables), bool)
            free[list(small)] = True
            slots = max(1, int(self.tables.lengths[~free].sum()))
            chosen = inputs.evenly(MEMORY_BYTES // (INCIDENCE_BYTES * slots))
            sets = PeeledSets(self.tables, peel(self.tables, chosen, counts, self.config.peeling_passes, free), small)
            return self._searched(sets, sets.ranks(), len(chosen))

        fitted = self._once(("peeling", len(inputs), small), fit_peeling)
        return self._candidate("peeling", fitted, fitted.search.largest(self.config.budget_bytes), small, None)

    def _once(self, key: tuple[object, ...], fit: Callable[[], Fitted]) -> Fitted:
        if self.fitted is None:
            return fit()
        if key not in self.fitted:
            self.fitted[key] = fit()
        return self.fitted[key]

    def _searched(
        self, sets: ThresholdSets | PeeledSets, ranks: npt.NDArray[np.int32] | None, num_fitted: int
    ) -> Fitted:
        search = BudgetSearch(self.tables, sets, self.probe.use_ranks(ranks), self.config.ring_depths)
        return Fitted(sets=sets, search=search, ranks=ranks, num_fitted=num_fitted)

    def _candidate(
        self,
        method: Literal["threshold", "peeling"],
        fitted: Fitted,
        fit: HotSetFit | None,
        small: tuple[int, ...],
        step: ThresholdStep | None,
    ) -> Candidate:
        return Candidate(
            method=method,
            sets=fitted.sets,
            search=fitted.search,
            ranks=fitted.ranks,
            fit=fit,
            need=None if fit else fitted.search.smallest_need(),
            small=small,
            num_fitted=fitted.num_fitted,
            step=step,
        )
