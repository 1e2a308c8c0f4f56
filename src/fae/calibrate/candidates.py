"""Fitting a selection to a sample: its chain, the largest hot set of it that fits, and how good that is elsewhere.

Place in the flow: calibrate fits and compares candidates with it. Invariant: every candidate fits the budget with its
staging ring. Judges nothing; that is `fae.calibrate.calibrate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fae.calibrate.budget_search import HotSetFit, Search
from fae.calibrate.coverage import MeasuredCoverage, measure
from fae.calibrate.peeled_sets import PeeledSets
from fae.calibrate.peeling import INCIDENCE_BYTES, MEMORY_BYTES, peel
from fae.calibrate.staging_rows import StagingProbe, StagingProbes
from fae.calibrate.table_facts import IntArray, Tables
from fae.calibrate.threshold import ThresholdSets, ThresholdStep
from fae.profile.config import HotConfig
from fae.profile.sampling import SampledInputs


@dataclass(frozen=True, eq=False, kw_only=True)
class Candidate:
    """One selection, fitted.

    Attributes
    ----------
    fit
        None where nothing fits.
    need
        ``(bytes, ring bytes)`` of the smallest budget that would do; set where nothing fits.
    ranks
        int32, flat: its storage order; None for the identity.
    stage
        Of the threshold selection: where in its chain it stands.
    small
        Tables that are wholly hot, smallest first.
    num_fitted
        Inputs it was fitted on.
    """

    selection: Literal["threshold", "peeling"]
    chain: ThresholdSets | PeeledSets
    search: Search
    ranks: npt.NDArray[np.int32] | None
    fit: HotSetFit | None
    need: tuple[int, int] | None
    small: tuple[int, ...]
    num_fitted: int
    stage: ThresholdStep | None = None

    def measure(self, tables: Tables, inputs: SampledInputs) -> MeasuredCoverage:
        """How it does on some inputs."""
        assert self.fit is not None
        return measure(tables, inputs, self.ranks, self.fit.num_hot)


@dataclass(frozen=True, eq=False, kw_only=True)
class CandidateBuilder:
    """What all candidates of one calibration share.

    Attributes
    ----------
    probe
        Probe batches, drawn once, so that candidates reserve staging by the same inputs.
    """

    tables: Tables
    config: HotConfig
    probe: StagingProbe | StagingProbes

    def threshold(self, inputs: SampledInputs, counts: IntArray) -> Candidate:
        """Fit the paper's statistical optimizer. `counts` (int64, flat) are the inputs' accesses."""
        chain = ThresholdSets(self.tables, counts, self.config)
        ranks = chain.ranks()
        search = Search(self.tables, chain, self.probe.use_ranks(ranks), self.config.ring_depth)
        fit = search.largest(self.config.budget_bytes)
        stage = chain.locate(fit.bytes if fit else 0)
        return Candidate(
            selection="threshold",
            chain=chain,
            search=search,
            ranks=ranks,
            fit=fit,
            need=None if fit else search.smallest_need(),
            small=stage.small,
            num_fitted=len(inputs),
            stage=stage,
        )

    def peeling(self, inputs: SampledInputs, counts: IntArray, small: tuple[int, ...]) -> Candidate:
        """Fit the peeling. `small` are the tables that are hot as a whole beside it."""
        free = np.zeros(len(self.tables), bool)
        free[list(small)] = True
        slots = max(1, int(self.tables.lengths[~free].sum()))
        fitted = inputs.evenly(MEMORY_BYTES // (INCIDENCE_BYTES * slots))
        chain = PeeledSets(self.tables, peel(self.tables, fitted, counts, self.config.peeling_passes, free), small)
        ranks = chain.ranks()
        search = Search(self.tables, chain, self.probe.use_ranks(ranks), self.config.ring_depth)
        fit = search.largest(self.config.budget_bytes)
        return Candidate(
            selection="peeling",
            chain=chain,
            search=search,
            ranks=ranks,
            fit=fit,
            need=None if fit else search.smallest_need(),
            small=small,
            num_fitted=len(fitted),
        )
