"""Profile: read a seeded sample of the training inputs and count the accesses of every row.

Place in the flow: log -> **profile** -> calibrate. Invariant: the sample is drawn without replacement from the
training split alone, so nothing of the validation and test splits reaches the choice of hot rows. Decides nothing.

Files of the artifact ``profile`` (format version 1): ``counts.npy`` int64 ``[sum of num_embeddings]``, accesses of each
row by the sample, table by table; ``indices.npy`` int64, the sampled inputs, ascending, left out where all were read.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.artifact import Manifest, Plan, read_manifest, write_artifact
from fae.core.errors import LogError
from fae.core.progress import task
from fae.core.seeds import generator
from fae.data.columnar import ColumnarLog
from fae.data.npy import save_array
from fae.popularity.config import HotConfig
from fae.popularity.counting import count_accesses
from fae.popularity.sampling import Inputs, sample_without_replacement

KIND = "profile"
FORMAT_VERSION = 1
COMMAND = "fae profile RECIPE.toml"


class AccessProfile:
    """An opened access profile. Arrays are read-only memory maps.

    Attributes
    ----------
    num_inputs
        Inputs of the sample.
    is_exact
        Whether every training input was read.
    """

    def __init__(self, path: Path, *, command: str = COMMAND) -> None:
        self.path = path
        self.manifest: Manifest = read_manifest(path, KIND, FORMAT_VERSION, command=command)
        self.num_inputs: int = self.manifest.summary["num_inputs"]
        self.is_exact: bool = self.manifest.summary["is_exact"]

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """int64 ``[sum of num_embeddings]``: accesses of each row by the sample, table by table."""
        array: npt.NDArray[np.int64] = np.load(self.path / "counts.npy", mmap_mode="r")
        return array

    @cached_property
    def indices(self) -> npt.NDArray[np.int64]:
        """int64 ``[num_inputs]``, ascending: the inputs of the log that were read."""
        if self.is_exact:
            start, stop = self.manifest.summary["training_split"]
            return np.arange(start, stop, dtype=np.int64)
        array: npt.NDArray[np.int64] = np.load(self.path / "indices.npy", mmap_mode="r")
        return array

    def inputs(self, log: ColumnarLog) -> Inputs:
        """The sampled inputs of the log it was made from."""
        return Inputs(log.ids, log.labels, range(*log.split("train")) if self.is_exact else np.asarray(self.indices))


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
    inputs = Inputs(log.ids, log.labels, range(start, stop) if indices is None else indices)
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
