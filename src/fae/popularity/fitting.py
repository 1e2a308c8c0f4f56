"""Fitting a selection to a sample: its chain, the largest hot set of it that fits, and how good that is elsewhere.

Place in the flow: calibrate fits and compares candidates with it. Invariant: every candidate fits the budget with its
staging ring. Judges nothing; that is `fae.popularity.calibrate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fae.popularity.config import HotConfig
from fae.popularity.coverage import Measured, measure
from fae.popularity.peeling import INCIDENCE_BYTES, MEMORY_BYTES, peel
from fae.popularity.peeling_chain import PeelingChain
from fae.popularity.sampling import Inputs
from fae.popularity.search import Fit, Search
from fae.popularity.staging import StagingProbe, StagingProbes
from fae.popularity.tables import IntArray, Tables
from fae.popularity.threshold import Stage, ThresholdChain


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
    chain: ThresholdChain | PeelingChain
    search: Search
    ranks: npt.NDArray[np.int32] | None
    fit: Fit | None
    need: tuple[int, int] | None
    small: tuple[int, ...]
    num_fitted: int
    stage: Stage | None = None

    def measure(self, tables: Tables, inputs: Inputs) -> Measured:
        """How it does on some inputs."""
        assert self.fit is not None
        return measure(tables, inputs, self.ranks, self.fit.num_hot)


@dataclass(frozen=True, eq=False, kw_only=True)
class Fitter:
    """What all candidates of one calibration share.

    Attributes
    ----------
    probe
        Probe batches, drawn once, so that candidates reserve staging by the same inputs.
    """

    tables: Tables
    config: HotConfig
    probe: StagingProbe | StagingProbes

    def threshold(self, inputs: Inputs, counts: IntArray) -> Candidate:
        """Fit the paper's statistical optimizer. `counts` (int64, flat) are the inputs' accesses."""
        chain = ThresholdChain(self.tables, counts, self.config)
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

    def peeling(self, inputs: Inputs, counts: IntArray, small: tuple[int, ...]) -> Candidate:
        """Fit the peeling. `small` are the tables that are hot as a whole beside it."""
        free = np.zeros(len(self.tables), bool)
        free[list(small)] = True
        slots = max(1, int(self.tables.lengths[~free].sum()))
        fitted = inputs.evenly(MEMORY_BYTES // (INCIDENCE_BYTES * slots))
        chain = PeelingChain(self.tables, peel(self.tables, fitted, counts, self.config.peeling_passes, free), small)
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
