"""Calibrate: from the access profile and a memory budget to the hot set (PAPER: the calibrator).

Place in the flow: profile -> **calibrate** -> pack. Invariant: hot rows with their optimizer state, and the staging
ring, together never exceed the budget; a row without any access in the training split is hot only where its table is
small enough to be hot as a whole, or where every row fits. Moves no row: that is the placements' work.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fae.artifacts.access_profile import COMMAND as PROFILE_COMMAND
from fae.artifacts.access_profile import AccessProfile
from fae.artifacts.columnar_log import SPLITS, ColumnarLog
from fae.artifacts.hot_set import COMMAND, FORMAT_VERSION, KIND, HotSet, write_ranks
from fae.artifacts.manifest import Plan, require_parent, write_artifact
from fae.calibrate.budget_search import HotSetFit
from fae.calibrate.candidates import CandidateBuilder
from fae.calibrate.coverage import measure
from fae.calibrate.other_budgets import sweep
from fae.calibrate.selection import choose
from fae.calibrate.staging_rows import StagingProbe, StagingProbes
from fae.calibrate.summary import describe, notes, overlap, walk_grid
from fae.calibrate.table_facts import Tables
from fae.core.errors import RecipeError
from fae.core.progress import task
from fae.core.units import format_bytes
from fae.profile.config import HotConfig
from fae.profile.sampling import SampledInputs, profiled_inputs


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

    The sample's size is not a parameter: the profile is a parent, and speaks for itself.
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
        Of the rows: its state is paid for (`fae.core.optimizers`).
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
    start, stop = log.split("train")
    with task("calibrate", total=None, unit="steps"):
        tables = Tables(log.features, log.counts, embedding_dims, optimizer)
        inputs = profiled_inputs(profile, log)
        summary: dict[str, Any] = {"requested": config.selection}
        if tables.total_bytes <= config.budget_bytes:
            ranks = None
            summary |= _everything_hot(tables, config, inputs, stop - start)
        else:
            inputs = inputs.cached()
            # Probe batches come from whole splits: a peeling serves the very inputs of its sample far better than
            # others, and a ring measured on those would be short.
            splits = {name: SampledInputs(log.ids, log.labels, range(*log.split(name))) for name in SPLITS}
            probe = StagingProbes(
                [
                    StagingProbe(
                        tables, each, len(each), batch_size=batch_size, mixed=_takes_any(name, mixed=mixed), seed=seed
                    )
                    for name, each in splits.items()
                    if len(each)
                ]
            )  # fmt: skip
            fitter = CandidateBuilder(tables=tables, config=config, probe=probe)
            counts = np.asarray(profile.counts)
            choice = choose(fitter, inputs, counts, is_exact=profile.is_exact, batch_size=batch_size, seed=seed)
            winner, ranks = choice.winner, choice.winner.ranks
            assert winner.fit is not None
            summary |= describe(
                tables,
                config,
                winner.fit,
                ranks,
                choice.measured,
                num_training_inputs=stop - start,
                small=winner.small,
            )
            summary |= {
                "selection": winner.selection,
                "threshold": winner.stage.threshold if winner.stage else None,
                "num_extra_rows": winner.stage.num_extra if winner.stage else 0,
                "measured_on": choice.measured_on,
                "num_fitted_inputs": winner.num_fitted,
                "bound": choice.bound["input_share"] if choice.bound else None,
                "bound_on": choice.bound,
                "candidates": choice.candidates,
                "grid": walk_grid(tables, config, choice.threshold, counts, seed),
                "overlap": overlap(tables, winner, counts),
                "budgets": sweep(tables, choice, inputs, config.budget_bytes, is_exact=profile.is_exact),
                "notes": notes(tables, config, choice, num_read=len(inputs), is_exact=profile.is_exact),
            }
    with write_artifact(path, plan, summary) as temporary:
        if ranks is not None:
            write_ranks(temporary, np.split(ranks, tables.offsets[1:-1]))
    return HotSet(path)


def _takes_any(split: str, *, mixed: bool) -> bool:
    """Whether a split's batches take any input: what is held out is packed in log order, whatever training does."""
    return mixed or split != "train"


def _everything_hot(
    tables: Tables, config: HotConfig, inputs: SampledInputs, num_training_inputs: int
) -> dict[str, Any]:
    """The summary of a budget that holds all rows: nothing to choose, nothing to stage."""
    fit = HotSetFit(
        num_hot=tables.sizes.copy(),
        staging_rows=np.zeros(len(tables.group_row_bytes), np.int64),
        bytes=tables.total_bytes,
        staging_bytes=0,
    )
    measured = measure(tables, inputs, None, fit.num_hot)
    note = (
        f"the budget of {format_bytes(config.budget_bytes)} holds every row of every table "
        f"({format_bytes(tables.total_bytes)}): all rows are hot and nothing is staged"
    )
    summary = describe(
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
