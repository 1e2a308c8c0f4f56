"""Profile: read a seeded sample of the training inputs and count the accesses of every row.

Place in the flow: log -> **profile** -> calibrate. Invariant: the sample is drawn without replacement from the
training split alone, so nothing of the validation and test splits reaches the choice of hot rows. Decides nothing.

Files of the artifact ``profile`` (format version 1): ``counts.npy`` int64 ``[sum of num_embeddings]``, accesses of each
row by the sample, table by table; ``indices.npy`` int64, the sampled inputs, ascending, left out where all were read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fae.artifacts.access_profile import COMMAND, FORMAT_VERSION, KIND, AccessProfile
from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.manifest import Plan, write_artifact
from fae.core.errors import LogError
from fae.core.npy import save_array
from fae.core.progress import task
from fae.core.seeds import generator
from fae.profile.config import HotConfig
from fae.profile.counting import count_accesses
from fae.profile.sampling import SampledInputs, sample_without_replacement


def sample_size(num_training_inputs: int, config: HotConfig) -> int:
    """Inputs to read: the share that was asked for, and not fewer than `sample_min_inputs` where there are as many.

    >>> sample_size(10_000_000, HotConfig()), sample_size(1_000_000, HotConfig()), sample_size(500, HotConfig())
    (500000, 200000, 500)
    """
    wanted = max(round(config.sample * num_training_inputs), config.sample_min_inputs, 1)
    return min(wanted, num_training_inputs)


def plan_profile(log: ColumnarLog, config: HotConfig, *, seed: int) -> Plan:
    """What the profile will be made from. Instant.

    The plan says how many inputs are read, not how that number was asked for: recipes that come to the same sample
    share one profile, and where everything is read the seed does not matter.
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
    """Draw the sample, count the accesses of every row by it, write the artifact (PAPER: sparse input sampler and
    embedding logger).

    Streaming: memory is eight bytes a row of every table, eight a sampled input, and one block of inputs.

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
    inputs = SampledInputs(log.ids, log.labels, range(start, stop) if indices is None else indices)
    with task("profile", total=size) as progress:
        counts = count_accesses(inputs, log.features, progress.advance)
    summary: dict[str, Any] = {
        "num_inputs": size,
        "num_training_inputs": stop - start,
        "training_split": [start, stop],
        "is_exact": is_exact,
        "tables": [],
    }
    for table, feature in enumerate(log.features):
        of_table = counts[log.table_offsets[table] : log.table_offsets[table + 1]]
        summary["tables"].append(
            {
                "name": feature.name,
                "num_embeddings": feature.num_embeddings,
                "accesses": int(of_table.sum()),
                "num_accessed_rows": int(np.count_nonzero(of_table)),
            }
        )
    with write_artifact(path, plan, summary) as temporary:
        save_array(temporary / "counts.npy", counts)
        if indices is not None:
            save_array(temporary / "indices.npy", indices)
    return AccessProfile(path)
