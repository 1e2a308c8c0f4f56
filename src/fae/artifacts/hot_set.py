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

from fae.artifacts.checksums import check_contents, damaged
from fae.artifacts.columnar_log import read_features
from fae.artifacts.manifest import Manifest, read_manifest
from fae.artifacts.row_layout import RowLayout
from fae.artifacts.schema import MOST_DIM, Fields, open_array
from fae.core.npy import save_array
from fae.core.optimizers import OPTIMIZERS
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

    def __init__(self, path: str | Path, *, command: str = COMMAND) -> None:
        self.path = path = Path(path)
        self.manifest: Manifest = read_manifest(path, KIND, FORMAT_VERSION, command=command)
        self.summary: dict[str, Any] = self.manifest.summary
        self._command = command
        parameters = Fields(self.manifest.parameters, "parameters", path, command)
        self.batch_size: int = parameters.whole("batch_size", 1, 2**31 - 1)
        self.mixed: bool = parameters.flag("mixed")
        self.optimizer: str = parameters.text("optimizer", OPTIMIZERS)
        fields = Fields(self.summary, "summary", path, command)
        fitted = self.manifest.parameters.get("ring_depth") == "auto"
        self.ring_depth: int = (fields if fitted else parameters).whole("ring_depth", 1, 2**20)
        self._features = read_features(fields)
        self._dims, self._num_hot = [], []
        tables = fields.parts("tables")
        if len(tables) != len(self._features):
            raise fields.fault(f"tables for {len(self._features)} features")
        for feature, table in zip(self._features, tables, strict=True):
            self._dims.append(table.whole("embedding_dim", 1, MOST_DIM))
            self._num_hot.append(table.whole("num_hot", 0, feature.num_embeddings))
            table.whole("num_embeddings", feature.num_embeddings, feature.num_embeddings)
        self.staging_rows: tuple[int, ...] = tuple(fields.wholes("staging_rows", count=len(set(self._dims))))
        for name in ("num_rows", "bytes", "staging_bytes", "budget_bytes"):
            fields.whole(name)
        for name in ("coverage", "input_share"):
            fields.number(name)
        fields.text("selection"), fields.texts("notes")

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
        ranks: list[npt.NDArray[np.int32] | None] = []
        for table, feature in enumerate(self._features):
            name, order = str(rank_file(table)), None
            if name in self.manifest.files:
                order = open_array(self.path, name, np.int32, (feature.num_embeddings,), self._command)
                check_contents(self.path, self.manifest.files, name, command=self._command)
                key = (str(self.path.resolve()), name, self.manifest.digest, (self.path / name).stat().st_ctime_ns)
                if key not in _checked and not _is_permutation(order):
                    raise damaged(self.path, name, self._command, "its ranks are no order of the table's rows")
                _checked.add(key)
            ranks.append(order)
        return RowLayout(self._features, self._dims, self._num_hot, ranks)


_checked: set[tuple[object, ...]] = set()
"""Storage orders that this process has found to be permutations."""


def _is_permutation(order: npt.NDArray[np.int32]) -> bool:
    seen = np.zeros(len(order), np.bool_)
    if order.min() < 0 or order.max() >= len(order):
        return False
    seen[order] = True
    return bool(seen.all())


def rank_file(table: int) -> Path:
    """Where the storage order of a table is, inside the artifact."""
    return Path("ranks") / f"{table}.npy"


def write_ranks(folder: Path, ranks: Sequence[npt.NDArray[np.int32]]) -> None:
    """Write the storage orders (int32 ``[num_embeddings]`` per table) that are not the identity."""
    for table, rank in enumerate(ranks):
        if not np.array_equal(rank, np.arange(rank.size, dtype=np.int32)):
            (folder / "ranks").mkdir(exist_ok=True)
            save_array(folder / rank_file(table), rank)
