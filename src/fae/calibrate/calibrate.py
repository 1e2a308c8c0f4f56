"""Calibrate: from the access profile and a memory budget to the hot set (the paper's calibrator).

Hot rows with their optimizer state and the staging ring together never exceed the budget. A row without any access in
the training split is hot only where its table is small enough to be hot as a whole, or where every row fits.
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
from fae.calibrate.calibrator import Calibrator, takes_any_input
from fae.core.errors import RecipeError
from fae.core.progress import task
from fae.profile.config import HotConfig


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
        "ring_measured_on": {name: "any inputs" if takes_any_input(name, mixed=mixed) else "cold" for name in SPLITS},
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
        calibrator = Calibrator(
            log,
            profile,
            config,
            embedding_dims=embedding_dims,
            optimizer=optimizer,
            batch_size=batch_size,
            mixed=mixed,
            seed=seed,
        )
        summary, ranks = calibrator.at(config.budget_bytes)
    with write_artifact(path, plan, summary) as temporary:
        if ranks is not None:
            write_ranks(temporary, np.split(ranks, calibrator.tables.offsets[1:-1]))
    return HotSet(path)
