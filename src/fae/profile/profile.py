"""Profile: read a seeded sample of the training inputs and count the accesses of every row.

The sample is drawn without replacement from the training split alone, so that nothing of the validation and test splits
influences which rows are hot.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from fae.artifacts.access_profile import COMMAND, FORMAT_VERSION, KIND, AccessProfile
from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.log_contents import check_inputs
from fae.artifacts.manifest import Plan, write_artifact
from fae.core.errors import LogError
from fae.core.npy import save_array
from fae.core.progress import task
from fae.core.seeds import generator
from fae.profile.config import HotConfig
from fae.profile.counting import count_accesses
from fae.profile.row_sums import sum_rows
from fae.profile.sampling import sample_without_replacement, sampled_inputs


def sample_size(num_training_inputs: int, config: HotConfig) -> int:
    """Inputs to read: the share that the recipe requests, but at least `sample_min_inputs` where the log has as many.

    >>> sample_size(10_000_000, HotConfig()), sample_size(1_000_000, HotConfig()), sample_size(500, HotConfig())
    (500000, 200000, 500)
    """
    wanted = max(round(config.sample * num_training_inputs), config.sample_min_inputs, 1)
    return min(wanted, num_training_inputs)


def plan_profile(log: ColumnarLog, config: HotConfig, *, seed: int) -> Plan:
    """What the profile will be made from. Instant.

    The plan says how many inputs are read, not which keys of the recipe led to that number: recipes with the same
    sample share one profile, and where everything is read the seed does not matter.
    """
    start, stop = log.split("train")
    size = sample_size(stop - start, config)
    return Plan(
        kind=KIND,
        format_version=FORMAT_VERSION,
        parameters={"num_inputs": size, "seed": None if size == stop - start else seed},
        parents={log.manifest.kind: log.manifest.fingerprint},
        command=COMMAND,
    )


def profile(log: ColumnarLog, config: HotConfig, path: Path, *, seed: int) -> AccessProfile:
    """Draw the sample, count its accesses to every row, write the artifact (the paper's sampler and embedding logger).

    Inputs are read piece by piece: memory is 8 bytes a row of every table, 8 a sampled input, and 32 MiB of ids.

    Raises
    ------
    LogError
        If the log has no training input.
    """
    plan = plan_profile(log, config, seed=seed)
    start, stop = log.split("train")
    if start == stop:
        raise LogError(f"the log {log.path} has no training input; lower test_fraction or validation_fraction")
    size, is_exact = plan.parameters["num_inputs"], plan.parameters["num_inputs"] == stop - start
    indices = None
    if not is_exact:
        indices = start + sample_without_replacement(generator(seed, "profile", "sample"), stop - start, size)
    inputs = sampled_inputs(log, range(start, stop) if indices is None else indices)
    if is_exact:
        check_inputs(log)  # it reads every training input anyway
        inputs = dataclasses.replace(inputs, check=None)
    with task("profile", total=size) as progress:
        counts = count_accesses(inputs, log.features, progress.advance)
    summary: dict[str, Any] = {
        "num_inputs": size,
        "num_training_inputs": stop - start,
        "training_split": [start, stop],
        "is_exact": is_exact,
        "tables": [],
    }
    accesses = sum_rows(lambda _, first, last: int(counts[first:last].sum()), log.table_offsets)
    accessed = sum_rows(lambda _, first, last: int(np.count_nonzero(counts[first:last])), log.table_offsets)
    for table, feature in enumerate(log.features):
        summary["tables"].append(
            {
                "name": feature.name,
                "num_embeddings": feature.num_embeddings,
                "accesses": accesses[table],
                "num_accessed_rows": accessed[table],
            }
        )
    with write_artifact(path, plan, summary) as temporary:
        save_array(temporary / "counts.npy", counts)
        if indices is not None:
            save_array(temporary / "indices.npy", indices)
    return AccessProfile(path)
