"""Calibrate: from the access profile and a memory budget to the hot set (the paper's calibrator).

Hot rows with their optimizer state and the staging ring together never exceed the budget. A row without any access in
the training split is hot only where its table is small enough to be hot as a whole, or where every row fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.access_profile import COMMAND as PROFILE_COMMAND
from fae.artifacts.access_profile import AccessProfile
from fae.artifacts.columnar_log import SPLITS, ColumnarLog
from fae.artifacts.hot_set import COMMAND, FORMAT_VERSION, KIND, HotSet, write_ranks
from fae.artifacts.manifest import Plan, require_parent, write_artifact
from fae.calibrate.budget_search import HotSetFit
from fae.calibrate.candidates import CandidateBuilder
from fae.calibrate.coverage import measure
from fae.calibrate.other_budgets import measure_other_budgets
from fae.calibrate.selection import choose
from fae.calibrate.staging_rows import StagingProbe, StagingProbes
from fae.calibrate.summary import measure_grid, notes, overlap, summarize_hot_set
from fae.calibrate.table_facts import Tables
from fae.core.errors import RecipeError
from fae.core.progress import task
from fae.core.units import format_bytes
from fae.profile.config import HotConfig
from fae.profile.sampling import SampledInputs, profiled_inputs, sampled_inputs


def plan_calibrate(
    log: ColumnarLog,
    profile: AccessProfile,
    config: HotConfig,
    *,
    embedding_dims: Sequence[int],
    optimizer: str,
    batch_size: int,
    mixed: bool,
    seed: int,
) -> Plan:
    """What the hot set will be made from. Instant. Arguments as in `calibrate`.

    The sample's size is not a parameter: the profile is a parent, and its fingerprint covers it.
    """
    parameters: dict[str, Any] = {
        "budget_bytes": config.budget_bytes,
        "selection": config.selection,
        "ring_depth": config.ring_depth,
        "small_table_bytes": config.small_table_bytes,
        "max_threshold": config.max_threshold,
        "min_threshold": config.min_threshold,
        "rand_em_chunks": config.rand_em_chunks,
        "rand_em_chunk_rows": config.rand_em_chunk_rows,
        "confidence": config.confidence,
        "embedding_dims": [int(dim) for dim in embedding_dims],
        "optimizer": optimizer,
        "batch_size": batch_size,
        "mixed": mixed,
        "seed": seed,
        "ring_measured_on": {name: "any inputs" if _takes_any(name, mixed=mixed) else "cold" for name in SPLITS},
    }
    if config.selection != "threshold":
        parameters["peeling_passes"] = config.peeling_passes
    return Plan(
        kind=KIND,
        format_version=FORMAT_VERSION,
        parameters=parameters,
        parents={manifest.kind: manifest.fingerprint for manifest in (log.manifest, profile.manifest)},
        command=COMMAND,
    )


def calibrate(
    log: ColumnarLog,
    profile: AccessProfile,
    config: HotConfig,
    path: Path,
    *,
    embedding_dims: Sequence[int],
    optimizer: str,
    batch_size: int,
    mixed: bool,
    seed: int,
) -> HotSet:
    """Choose the hot rows and write the hot set.

    Parameters
    ----------
    embedding_dims
        D of each table.
    optimizer
        Optimizer of the rows: its state is part of their bytes (`fae.core.optimizers`).
    batch_size, mixed
        Inputs of a batch; whether hot and cold inputs share batches. Both decide how much staging a batch needs.

    Raises
    ------
    ArtifactError
        If the profile was made from another log.
    BudgetError
        If nothing fits; it names the smallest budget that would.
    RecipeError
        For an unknown optimizer or a batch size under 1.
    """
    require_parent(profile.manifest, log.manifest, command=PROFILE_COMMAND)
    if batch_size < 1:
        raise RecipeError(f"[train] batch_size = {batch_size} must be 1 or more")
    plan = plan_calibrate(
        log,
        profile,
        config,
        embedding_dims=embedding_dims,
        optimizer=optimizer,
        batch_size=batch_size,
        mixed=mixed,
        seed=seed,
    )
    with task("calibrate", total=None, unit="steps"):
        tables = Tables(log.features, log.counts, embedding_dims, optimizer)
        summary: dict[str, Any] = {"requested": config.selection}
        if tables.total_bytes <= config.budget_bytes:
            start, stop = log.split("train")
            ranks = None
            summary |= _everything_hot(tables, config, profiled_inputs(profile, log), stop - start)
        else:
            probe = _probe_splits(log, tables, batch_size=batch_size, mixed=mixed, seed=seed)
            builder = CandidateBuilder(tables=tables, config=config, probe=probe)
            selected, ranks = _select(log, profile, builder, batch_size=batch_size, seed=seed)
            summary |= selected
    with write_artifact(path, plan, summary) as temporary:
        if ranks is not None:
            write_ranks(temporary, np.split(ranks, tables.offsets[1:-1]))
    return HotSet(path)


def _probe_splits(log: ColumnarLog, tables: Tables, *, batch_size: int, mixed: bool, seed: int) -> StagingProbes:
    """Probe batches of every split that has inputs.

    They come from whole splits: a peeling serves the very inputs of its sample far better than others, and a ring
    measured on those would be too small.
    """
    splits = {name: sampled_inputs(log, range(*log.split(name))) for name in SPLITS}
    return StagingProbes(
        [
            StagingProbe(
                tables,
                inputs,
                len(inputs),
                batch_size=batch_size,
                mixed=_takes_any(name, mixed=mixed),
                seed=seed,
            )
            for name, inputs in splits.items()
            if len(inputs)
        ]
    )


def _select(
    log: ColumnarLog, profile: AccessProfile, builder: CandidateBuilder, *, batch_size: int, seed: int
) -> tuple[dict[str, Any], npt.NDArray[np.int32] | None]:
    """Select the hot rows; returns the summary and the storage order (int32, flat; None for the identity)."""
    tables, config, is_exact = builder.tables, builder.config, profile.is_exact
    start, stop = log.split("train")
    inputs, counts = profiled_inputs(profile, log).cached(), np.asarray(profile.counts)
    selection = choose(builder, inputs, counts, is_exact=is_exact, batch_size=batch_size, seed=seed)
    winner = selection.winner
    assert winner.fit is not None
    summary = summarize_hot_set(
        tables,
        config,
        winner.fit,
        winner.ranks,
        selection.measured,
        num_training_inputs=stop - start,
        small=winner.small,
    )
    summary |= {
        "selection": winner.method,
        "threshold": winner.step.threshold if winner.step else None,
        "num_extra_rows": winner.step.num_extra if winner.step else 0,
        "measured_on": selection.measured_on,
        "num_fitted_inputs": winner.num_fitted,
        "bound": selection.bound["input_share"] if selection.bound else None,
        "bound_on": selection.bound,
        "candidates": selection.candidates,
        "grid": measure_grid(tables, config, selection.threshold, counts, seed),
        "overlap": overlap(tables, winner, counts),
        "budgets": measure_other_budgets(tables, selection, inputs, config.budget_bytes, is_exact=is_exact),
        "notes": notes(tables, config, selection, num_read=len(inputs), is_exact=is_exact),
    }
    return summary, winner.ranks


def _takes_any(split: str, *, mixed: bool) -> bool:
    """Whether a split's batches take any input: held-out inputs are packed in log order, however training is."""
    return mixed or split != "train"


def _everything_hot(
    tables: Tables, config: HotConfig, inputs: SampledInputs, num_training_inputs: int
) -> dict[str, Any]:
    """The summary for a budget that holds all rows: nothing to select, nothing to stage."""
    fit = HotSetFit(
        num_hot=tables.sizes.copy(),
        staging_rows=np.zeros(len(tables.group_row_bytes), np.int64),
        ring_depth=config.ring_depths[0],
        bytes=tables.total_bytes,
        staging_bytes=0,
    )
    measured = measure(tables, inputs, None, fit.num_hot)
    note = (
        f"the budget of {format_bytes(config.budget_bytes)} holds every row of every table "
        f"({format_bytes(tables.total_bytes)}): all rows are hot and nothing is staged"
    )
    summary = summarize_hot_set(
        tables,
        config,
        fit,
        None,
        measured,
        num_training_inputs=num_training_inputs,
        small=tuple(np.flatnonzero(tables.sizes * tables.row_bytes <= config.small_table_bytes).tolist()),
    )
    return summary | {
        "selection": "threshold" if config.selection == "auto" else config.selection,
        "threshold": None,
        "num_extra_rows": 0,
        "measured_on": "every row is hot",
        "num_fitted_inputs": len(inputs),
        "bound": 1.0,
        "bound_on": None,
        "candidates": {},
        "grid": [],
        "overlap": None,
        "budgets": None,
        "notes": [note],
    }
