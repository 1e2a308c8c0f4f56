"""From a workload to packed batches: the synthetic log, its profile, hot sets and packs, each made once per folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fae.artifacts.columnar_log import ColumnarLog, model_features
from fae.artifacts.hot_set import HotSet
from fae.artifacts.packed import PackedDataset
from fae.bench.config import BenchConfig
from fae.bench.workloads import WORKLOADS, Workload
from fae.core.errors import BudgetError, RecipeError
from fae.core.optimizers import row_bytes
from fae.core.progress import say
from fae.core.units import format_bytes, parse_bytes
from fae.kernels.geometry import group_geometries
from fae.models.config import ModelConfig, model_config
from fae.profile.config import HotConfig
from fae.run.prepare import PackOptions, prepare_packed
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.config import SyntheticConfig

KINDS = ("threshold", "own", "mixed")
"""Packs of a batch size: the paper's hot set, the configured one, and that one with batches that mix hot and cold."""
_LARGEST_RING = 30.0
"""No larger budget is tried once the estimate of the staging ring has been multiplied by more than this."""
_RING_DEPTH = 8


class Preparation:
    """The artifacts of one workload in one folder.

    Parameters
    ----------
    folder
        Receives ``log``, ``profile``, ``<batch size>/<kind>/hot_set`` and ``packed``.
    """

    def __init__(self, config: BenchConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.workload: Workload = WORKLOADS[config.workload]
        self.model: ModelConfig = model_config(self.workload.model)
        self.optimizer: str = self.workload.train["optimizer"]
        self.learning_rate = float(self.workload.train["learning_rate"])
        self.log = self._open_log()
        counts = np.asarray(self.log.counts)
        self.num_rows, self.touched_rows = len(counts), int(np.count_nonzero(counts))
        self.row_bytes = row_bytes(self.optimizer, self.model.embedding_dim)
        self.table_bytes = self.num_rows * self.row_bytes
        self.input_bytes = 4 * (int(self.log.ids.shape[1]) + len(self.log.dense_names) + 1)
        self._rings: dict[int, int] = {}
        self._growth: dict[tuple[str, int], float] = {}

    def _open_log(self) -> ColumnarLog:
        config, workload = self.config, self.workload
        if config.log:
            log = ColumnarLog(Path(config.log))
        else:
            synthetic = SyntheticConfig(
                shape=workload.shape,  # type: ignore[arg-type]
                num_inputs=config.num_inputs or workload.num_inputs,
                scale=config.scale, drift=0.0, click_rate=workload.click_rate, seed=config.seed,
            )  # fmt: skip
            path = self.folder / "log"
            if not path.exists():
                say(f"bench: making a log of {synthetic.num_inputs:,} inputs like {workload.shape}: {path}")
                # Encoded: values that a log this short never shows keep their rows, as in the full tables.
                write_columnar(synthetic, path, ids="encoded")
            log = ColumnarLog(path)
        counts = (1, *self.config.rank_counts())
        needed = max(self.config.sizes()) * counts[-1]
        start, stop = log.split("train")
        if stop - start < needed:
            of_gpus = f" of {counts[-1]} GPUs" if counts[1:] else ""
            raise RecipeError(
                f"the log has {stop - start:,} training inputs, fewer than one batch of {needed:,}{of_gpus}; give more "
                f"--inputs or smaller --batch-sizes{' or --gpus' if of_gpus else ''}"
            )
        return log

    def budget(self, batch_size: int, ring: float = 1.0) -> int:
        """Bytes of the hot set's budget, with `ring` times the estimate of the staging ring.

        The recipe's budget is meant for the full log, which touches every row. A shorter log touches fewer, and the
        same bytes would hold all of them. So the default is in proportion, and the staging ring is added to it.
        """
        if self.config.budget:
            return parse_bytes(self.config.budget, what="--budget")
        # At a smaller scale the recipe's budget shrinks with the tables.
        whole = parse_bytes(self.workload.hot["budget"]) * min(1.0, self.config.scale)
        share = min(1.0, whole / self.table_bytes)
        rows = int(share * self.touched_rows)
        return rows * self.row_bytes + int(ring * self._ring_bytes(batch_size, rows))

    def _ring_bytes(self, batch_size: int, hot_rows: int) -> int:
        """Estimate of the staging ring of a batch size: rows that are not among the hottest, in a few batches."""
        if batch_size not in self._rings:
            counts = np.asarray(self.log.counts)
            place = max(0, len(counts) - hot_rows - 1)
            limit = np.partition(counts, place)[place]
            tables = [table for table, f in enumerate(self.log.features) for _ in range(f.length)]
            base = np.asarray(self.log.table_offsets)[tables]
            start, stop = self.log.split("train")
            most, window = 0, min(3 * batch_size, stop - start)
            for part in range(4):
                first = start + part * ((stop - start - window) // 4)
                ids = np.asarray(self.log.ids[first : first + window]).astype(np.int64)
                rows = ids + base
                cold = (ids >= 0) & (counts[np.maximum(rows, 0)] <= limit)
                chosen = np.flatnonzero(cold.any(axis=1))[:batch_size]
                most = max(most, len(np.unique(rows[chosen][cold[chosen]])))
            # Calibrate reserves a tenth more than the largest batch that it probes.
            self._rings[batch_size] = int(1.15 * most + 64) * _RING_DEPTH * self.row_bytes
        return self._rings[batch_size]

    def packed(self, kind: str, batch_size: int) -> tuple[HotSet, PackedDataset]:
        """Hot set and packed batches of one of `KINDS`."""
        kind = self._kind(kind)
        ring = self._growth.get((kind, batch_size), 1.0)
        while True:
            try:
                made = self._packed(kind, batch_size, self.budget(batch_size, ring))
                self._growth[kind, batch_size] = ring
                return made
            except BudgetError:
                if self.config.budget or ring > _LARGEST_RING:
                    raise
                ring *= 1.5  # the estimate was too small; the same every time, so artifacts are found again

    def opened(self, kind: str, batch_size: int) -> tuple[HotSet, PackedDataset]:
        """Open what `packed` has made, perhaps in another process."""
        folder = self.folder / str(batch_size) / self._kind(kind)
        return HotSet(folder / "hot_set"), PackedDataset(folder / "packed")

    def _kind(self, kind: str) -> str:
        """With the threshold's selection, ``own`` has the same hot set and the same batches as ``threshold``."""
        return "threshold" if kind == "own" and self.config.selection == "threshold" else kind

    def _packed(self, kind: str, batch_size: int, budget: int) -> tuple[HotSet, PackedDataset]:
        selection = "threshold" if kind == "threshold" else self.config.selection
        options = PackOptions(
            hot=HotConfig(budget=budget, selection=selection, ring_depth=_RING_DEPTH),
            embedding_dims=(self.model.embedding_dim,) * len(self.log.features),
            optimizer=self.optimizer, batch_size=batch_size, mixed=kind == "mixed", seed=self.config.seed,
        )  # fmt: skip
        note = f"{kind} hot set ({selection}), batches of {batch_size:,}, {format_bytes(budget)}"
        return prepare_packed(
            self.log, options, self.folder / str(batch_size) / kind, profile_path=self.folder / "profile", note=note
        )

    def pack_facts(self, batch_size: int, packs: Mapping[str, tuple[HotSet, PackedDataset]]) -> dict[str, Any]:
        """What the record says about packs by kind: hot sets, shares of hot inputs, batches, rows that are staged."""
        features = model_features(self.log.features)
        geometries = group_geometries(
            [feature.length for feature in features], [feature.pooling for feature in features],
            [self.model.embedding_dim] * len(features),
        )  # fmt: skip
        facts: dict[str, Any] = {
            "batch_size": batch_size, "row_bytes": self.row_bytes, "width": sum(each.width for each in geometries),
        }  # fmt: skip
        for kind, (hot_set, packed) in packs.items():
            train, summary = packed.train, hot_set.summary
            facts[kind] = {
                "selection": summary["selection"], "budget_bytes": summary["budget_bytes"],
                "hot_rows": summary["num_rows"], "hot_bytes": summary["bytes"],
                "staging_bytes": summary["staging_bytes"],
                "input_share": packed.summary["input_share"], "coverage": packed.summary["coverage"],
                "label_rate": packed.summary.get("label_rate"),
                "hot_batches": train.num_hot_batches, "cold_batches": train.num_batches - train.num_hot_batches,
                "train_inputs": train.num_inputs, "staged_rows": staged_rows(packed),
            }  # fmt: skip
        return facts

    def facts(self) -> dict[str, Any]:
        """What the record says about the log."""
        splits = {name: self.log.split(name) for name in ("train", "validation", "test")}
        synthetic = self.log.manifest.summary.get("synthetic") or {}
        return {
            "num_inputs": self.log.num_inputs,
            **{f"{name}_inputs": stop - start for name, (start, stop) in splits.items()},
            "made_up": not self.config.log,
            "num_rows": self.num_rows, "touched_rows": self.touched_rows,
            "row_bytes": self.row_bytes, "table_bytes": self.table_bytes,
            "input_bytes": self.input_bytes,
            "best_auc": synthetic.get("best_auc"),
            "fingerprint": self.log.manifest.fingerprint,
        }  # fmt: skip


def staged_rows(packed: PackedDataset) -> int:
    """Cold rows that the training batches of an epoch bring to the device, and take back."""
    return sum(
        len(rows) for index in range(packed.train.num_hot_batches, packed.train.num_batches)
        for rows in packed.train.batch(index).cold_rows
    )  # fmt: skip
