"""The hot set: which rows every GPU keeps, in which order rows are stored, and what the staging ring may hold.

The hot rows of a table are the ids whose storage rank is less than ``num_hot``; hot rows and staging ring together fit
the budget: ``bytes + staging_bytes <= budget_bytes``. The bytes are described in ``formats/hot_set.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import FeatureSchema
from fae.artifacts.manifest import Manifest, read_manifest
from fae.artifacts.row_layout import RowLayout
from fae.core.npy import save_array
from fae.core.units import format_bytes, format_count

KIND = "hot_set"
FORMAT_VERSION = 1
COMMAND = "fae calibrate RECIPE.toml"


class HotSet:
    """An opened hot set.

    Attributes
    ----------
    ring_depth
        Staging slots k: batches whose cold rows may be in flight at once.
    staging_rows
        U_cap: most unique cold rows of a batch, per group.
    batch_size, mixed, optimizer
        The training it was calibrated for: inputs of a batch, whether hot and cold inputs share batches, the optimizer
        of the rows.
    summary
        What calibrate found: see ``docs/guide/calibrate.md``.

    Raises
    ------
    ArtifactError
        If it is missing, damaged or of another format.
    """

    def __init__(self, path: Path, *, command: str = COMMAND) -> None:
        self.path = path
        self.manifest: Manifest = read_manifest(path, KIND, FORMAT_VERSION, command=command)
        self.summary: dict[str, Any] = self.manifest.summary
        parameters = self.manifest.parameters
        self.ring_depth: int = parameters["ring_depth"]
        self.batch_size: int = parameters["batch_size"]
        self.mixed: bool = parameters["mixed"]
        self.optimizer: str = parameters["optimizer"]
        self.staging_rows: tuple[int, ...] = tuple(self.summary["staging_rows"])

    def __repr__(self) -> str:
        summary, tables = self.summary, self.summary["tables"]
        return (
            f"HotSet({str(self.path)!r}: {format_count(summary['num_rows'])} of "
            f"{format_count(sum(table['num_embeddings'] for table in tables))} rows in {len(tables)} tables, "
            f"{format_bytes(summary['bytes'])} + {format_bytes(summary['staging_bytes'])} of staging, "
            f"coverage {100 * summary['coverage']:.1f} %)"
        )

    @cached_property
    def layout(self) -> RowLayout:
        """Where every row of every table lies. Storage orders are opened here, as memory maps."""
        features = [FeatureSchema(**feature) for feature in self.summary["features"]]
        ranks: list[npt.NDArray[np.int32] | None] = []
        for table in range(len(features)):
            file = self.path / rank_file(table)
            ranks.append(np.load(file, mmap_mode="r") if str(rank_file(table)) in self.manifest.files else None)
        tables = self.summary["tables"]
        return RowLayout(
            features,
            [table["embedding_dim"] for table in tables],
            [table["num_hot"] for table in tables],
            ranks,
        )


def rank_file(table: int) -> Path:
    """Where the storage order of a table is, inside the artifact."""
    return Path("ranks") / f"{table}.npy"


def write_ranks(folder: Path, ranks: Sequence[npt.NDArray[np.int32]]) -> None:
    """Write the storage orders (int32 ``[num_embeddings]`` per table) that are not the identity."""
    for table, rank in enumerate(ranks):
        if not np.array_equal(rank, np.arange(rank.size, dtype=np.int32)):
            (folder / "ranks").mkdir(exist_ok=True)
            save_array(folder / rank_file(table), rank)
