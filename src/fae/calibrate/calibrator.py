"""Calibrate one log for any number of budgets: what does not depend on the budget is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.access_profile import AccessProfile
from fae.artifacts.columnar_log import SPLITS, ColumnarLog
from fae.calibrate.budget_search import HotSetFit
from fae.calibrate.candidates import Candidate, CandidateBuilder, Fitted
from fae.calibrate.coverage import measure
from fae.calibrate.other_budgets import measure_other_budgets
from fae.calibrate.selection import Selection, choose
from fae.calibrate.staging_rows import StagingProbe, StagingProbes
from fae.calibrate.summary import measure_grid, notes, overlap, summarize_hot_set
from fae.calibrate.table_facts import Tables
from fae.core.compiled import Int64
from fae.core.threads import run_jobs
from fae.core.units import format_bytes
from fae.profile.config import HotConfig
from fae.profile.sampling import SampledInputs, profiled_inputs, sampled_inputs

Ranks = npt.NDArray[np.int32] | None
"""A storage order: int32, flat, rank of every id, table by table; None for the identity."""


class Calibrator:
    """A log and its access profile, ready to be calibrated.

    Parameters
    ----------
    config
        The recipe's ``[hot]``; its budget is that of no call here.
    embedding_dims, optimizer, batch_size, mixed, seed
        As `fae.calibrate.calibrate.calibrate` takes them.

    Attributes
    ----------
    tables
        What is known of every table, for this optimizer.
    """

    def __init__(
        self,
        log: ColumnarLog,
        profile: AccessProfile,
        config: HotConfig,
        *,
        embedding_dims: Sequence[int],
        optimizer: str,
        batch_size: int,
        mixed: bool,
        seed: int,
    ) -> None:
        self._log, self._config, self._is_exact = log, config, profile.is_exact
        self._batch_size, self._mixed, self._seed = batch_size, mixed, seed
        self._profile = profile
        self._fitted: dict[tuple[object, ...], Fitted] = {}
        self.tables = Tables(log.features, log.counts, embedding_dims, optimizer)

    @cached_property
    def inputs(self) -> SampledInputs:
        """The inputs that the profile counted."""
        return profiled_inputs(self._profile, self._log).cached()

    @cached_property
    def counts(self) -> Int64:
        """int64, flat: accesses of each row by these inputs."""
        return np.asarray(self._profile.counts)

    @cached_property
    def probe(self) -> StagingProbes:
        """Probe batches of every split that has inputs.

        They come from whole splits: a peeling serves the very inputs of its sample far better than others, and a ring
        measured on those would be too small.
        """
        splits = {name: sampled_inputs(self._log, range(*self._log.split(name))) for name in SPLITS}
        probes: dict[str, StagingProbe] = {}

        def draw(name: str) -> None:
            probes[name] = StagingProbe(
                self.tables,
                splits[name],
                len(splits[name]),
                batch_size=self._batch_size,
                mixed=takes_any_input(name, mixed=self._mixed),
                seed=self._seed,
            )

        names = [name for name in SPLITS if len(splits[name])]
        run_jobs([partial(draw, name) for name in names])
        return StagingProbes([probes[name] for name in names])

    def builder(self, budget_bytes: int) -> CandidateBuilder:
        """Fits selections for a budget; what does not depend on it is fitted once."""
        config = self._config  # the budget as the recipe writes it is in messages
        if budget_bytes != config.budget_bytes:
            config = replace(config, budget=budget_bytes)
        return CandidateBuilder(tables=self.tables, config=config, probe=self.probe, fitted=self._fitted)

    def at(self, budget_bytes: int) -> tuple[dict[str, Any], Ranks]:
        """Choose the hot rows for a budget.

        Returns
        -------
        tuple
            The summary of the hot set, and its storage order (int32, flat; None for the identity).

        Raises
        ------
        BudgetError
            If nothing fits; it names the smallest budget that would.
        """

        def draw_probes() -> None:
            _ = self.probe

        def read_inputs() -> None:
            _ = self.inputs

        run_jobs([draw_probes, read_inputs])
        if self.tables.total_bytes <= budget_bytes:
            candidate = self.builder(budget_bytes).threshold(self.inputs, self.counts)
            budgets = measure_other_budgets(self.tables, candidate, self.inputs, self.tables.total_bytes)
            return self._everything_hot(budget_bytes) | {"budgets": budgets}, None
        found: dict[str, Any] = {}

        def select() -> None:
            found["builder"], found["selection"] = self._choose(budget_bytes)

        def show_grid() -> None:
            builder = self.builder(budget_bytes)
            threshold = builder.threshold(self.inputs, self.counts)
            found["grid"] = measure_grid(self.tables, builder.config, threshold, self.counts, self._seed)
            if not self._is_exact:  # a hot-input share of the peeling is never counted on a sample it was fitted to
                show_budgets(threshold)

        def show_budgets(candidate: Candidate) -> None:
            found["budgets"] = measure_other_budgets(self.tables, candidate, self.inputs, budget_bytes)

        # The threshold is fitted first, as both need it. The passes of the peeling run on one thread: beside them there
        # is time for what only the threshold is needed for.
        self.builder(budget_bytes).threshold(self.inputs, self.counts)
        run_jobs([select, show_grid])
        builder, selection = found["builder"], found["selection"]
        tables, config, winner = builder.tables, builder.config, selection.winner
        if self._is_exact:
            show_budgets(winner)
        summary = self._figures(builder, selection) | {
            "grid": found["grid"],
            "overlap": overlap(tables, winner, self.counts),
            "budgets": found["budgets"],
            "notes": notes(tables, config, selection, num_read=len(self.inputs), is_exact=self._is_exact),
        }
        return summary, winner.ranks

    def figures_at(self, budget_bytes: int) -> tuple[dict[str, Any], Ranks]:
        """As `at`, without the paper's grid, other budgets and notes: for a look at many budgets."""
        if self.tables.total_bytes <= budget_bytes:
            return self._everything_hot(budget_bytes), None
        builder, selection = self._choose(budget_bytes)
        return self._figures(builder, selection), selection.winner.ranks

    def candidates_at(self, budget_bytes: int) -> list[Candidate]:
        """The selections that the recipe allows, fitted to all inputs of the profile, whether or not they fit."""
        builder = self.builder(budget_bytes)
        threshold = builder.threshold(self.inputs, self.counts)
        if self._config.selection == "threshold":
            return [threshold]
        return [threshold, builder.peeling(self.inputs, self.counts, threshold.small)]

    def smallest_budget(self) -> tuple[int, int]:
        """``(bytes, ring bytes)``: the smallest budget that trains, and the staging ring's part of it."""
        return self.builder(1).threshold(self.inputs, self.counts).search.smallest_need()

    def _choose(self, budget_bytes: int) -> tuple[CandidateBuilder, Selection]:
        builder = self.builder(budget_bytes)
        selection = choose(
            builder, self.inputs, self.counts, is_exact=self._is_exact, batch_size=self._batch_size, seed=self._seed
        )
        return builder, selection

    @property
    def _num_training_inputs(self) -> int:
        start, stop = self._log.split("train")
        return stop - start

    def _figures(self, builder: CandidateBuilder, selection: Selection) -> dict[str, Any]:
        winner = selection.winner
        assert winner.fit is not None
        figures = summarize_hot_set(
            builder.tables,
            builder.config,
            winner.fit,
            winner.ranks,
            selection.measured,
            num_training_inputs=self._num_training_inputs,
            small=winner.small,
        )
        return {
            "requested": self._config.selection,
            **figures,
            "selection": winner.method,
            "threshold": winner.step.threshold if winner.step else None,
            "num_extra_rows": winner.step.num_extra if winner.step else 0,
            "measured_on": selection.measured_on,
            "num_fitted_inputs": winner.num_fitted,
            "bound": selection.bound["input_share"] if selection.bound else None,
            "bound_on": selection.bound,
            "candidates": selection.candidates,
        }

    def _everything_hot(self, budget_bytes: int) -> dict[str, Any]:
        """The summary for a budget that holds all rows: nothing to select, nothing to stage."""
        tables, config = self.tables, replace(self._config, budget=budget_bytes)
        fit = HotSetFit(
            num_hot=tables.sizes.copy(),
            staging_rows=np.zeros(len(tables.group_row_bytes), np.int64),
            ring_depth=config.ring_depths[0],
            bytes=tables.total_bytes,
            staging_bytes=0,
        )
        figures = summarize_hot_set(
            tables,
            config,
            fit,
            None,
            measure(tables, self.inputs, None, fit.num_hot),
            num_training_inputs=self._num_training_inputs,
            small=tuple(np.flatnonzero(tables.sizes * tables.row_bytes <= config.small_table_bytes).tolist()),
        )
        return {
            "requested": config.selection,
            **figures,
            "selection": "threshold" if config.selection == "auto" else config.selection,
            "threshold": None,
            "num_extra_rows": 0,
            "measured_on": "every row is hot",
            "num_fitted_inputs": len(self.inputs),
            "bound": 1.0,
            "bound_on": None,
            "candidates": {},
            "grid": [],
            "overlap": None,
            "budgets": None,
            "notes": [
                f"the budget of {format_bytes(budget_bytes)} holds every row of every table "
                f"({format_bytes(tables.total_bytes)}): all rows are hot and nothing is staged"
            ],
        }


def takes_any_input(split: str, *, mixed: bool) -> bool:
    """Whether a split's batches take any input: held-out inputs are packed in log order, however training is."""
    return mixed or split != "train"
