"""From a workload to packed batches: the made-up log, its profile, hot sets and packs, each made once per folder.

Place in the flow: before the contenders of `fae bench paper`; uses the stages' own functions. Invariant: an artifact
whose fingerprint is the one it would have is not made again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fae.artifacts.access_profile import AccessProfile
from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.hot_set import HotSet
from fae.artifacts.manifest import Plan, is_current
from fae.artifacts.packed import PackedDataset
from fae.bench.config import BenchConfig
from fae.bench.workloads import WORKLOADS, Workload
from fae.calibrate.calibrate import calibrate, plan_calibrate
from fae.core.errors import BudgetError, RecipeError
from fae.core.optimizers import row_bytes
from fae.core.progress import say
from fae.core.units import format_bytes, parse_bytes
from fae.models.config import ModelConfig, model_config
from fae.pack.pack import pack, plan_pack
from fae.profile.config import HotConfig
from fae.profile.profile import plan_profile, profile
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.config import SyntheticConfig

KINDS = ("threshold", "own", "mixed")
"""Packs of a batch size: the published system's, ours, and ours with batches that mix hot and cold inputs."""
_LARGEST_RING = 30.0


class Preparation:
    """The artifacts of one workload in one folder.

    Parameters
    ----------
    folder
        Where they go: ``log``, ``profile``, ``<batch size>/<kind>/hot_set`` and ``packed``.
    """

    def __init__(self, config: BenchConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.workload: Workload = WORKLOADS[config.workload]
        self.model: ModelConfig = model_config(self.workload.model)
        self.optimizer: str = self.workload.train["optimizer"]
        self.log = self._open_log()
        counts = np.asarray(self.log.counts)
        self.num_rows, self.touched_rows = len(counts), int(np.count_nonzero(counts))
        self.row_bytes = row_bytes(self.optimizer, self.model.embedding_dim)
        self._rings: dict[int, int] = {}
        self._growth: dict[tuple[str, int], float] = {}

    def _open_log(self) -> ColumnarLog:
        config, workload = self.config, self.workload
        if config.log:
            log = ColumnarLog(Path(config.log))
        else:
            made_up = SyntheticConfig(
                shape=workload.shape,  # type: ignore[arg-type]
                num_inputs=config.num_inputs or workload.num_inputs,
                scale=config.scale, drift=0.0, click_rate=workload.click_rate, seed=config.seed,
            )  # fmt: skip
            path = self.folder / "log"
            if not path.exists():
                say(f"bench: making a log of {made_up.num_inputs:,} inputs like {workload.shape}: {path}")
                # Encoded: values that so short a log never shows keep their rows, as in the published tables.
                write_columnar(made_up, path, ids="encoded")
            log = ColumnarLog(path)
        needed = max(self.config.sizes())
        start, stop = log.split("train")
        if stop - start < needed:
            raise RecipeError(
                f"the log has {stop - start:,} training inputs, fewer than one batch of {needed:,}; give more --inputs "
                "or smaller --batch-sizes"
            )
        return log

    def budget(self, batch_size: int, ring: float = 1.0) -> int:
        """Bytes of the hot set's budget, with `ring` times the estimate of the staging ring.

        The recipe's is meant for the published log, whose every row is touched; a shorter log touches fewer, and the
        same bytes would hold all of them. So the default is in proportion, and the staging ring comes on top.
        """
        if self.config.budget:
            return parse_bytes(self.config.budget, what="--budget")
        # At a smaller scale the recipe's budget shrinks with the tables.
        whole = parse_bytes(self.workload.hot["budget"]) * min(1.0, self.config.scale)
        share = min(1.0, whole / (self.num_rows * self.row_bytes))
        rows = int(share * self.touched_rows)
        return rows * self.row_bytes + int(ring * self._ring_bytes(batch_size, rows))

    def _ring_bytes(self, batch_size: int, hot_rows: int) -> int:
        """About what the staging ring of a batch size takes: rows that are not among the hottest, in a few batches."""
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
            self._rings[batch_size] = int(1.15 * most + 64) * HotConfig().ring_depth * self.row_bytes
        return self._rings[batch_size]

    def packed(self, kind: str, batch_size: int) -> tuple[HotSet, PackedDataset]:
        """Hot set and packed batches of one of `KINDS`."""
        if kind == "own" and self.config.selection == "threshold":
            kind = "threshold"  # the same hot set, the same batches
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

    def _packed(self, kind: str, batch_size: int, budget: int) -> tuple[HotSet, PackedDataset]:
        selection, mixed = "threshold" if kind == "threshold" else self.config.selection, kind == "mixed"
        folder, seed, log = self.folder / str(batch_size) / kind, self.config.seed, self.log
        config = HotConfig(budget=budget, selection=selection)
        _make(
            self.folder / "profile", plan_profile(log, config, seed=seed), "profile",
            lambda path: profile(log, config, path, seed=seed),
        )  # fmt: skip
        accesses = AccessProfile(self.folder / "profile")
        arguments: dict[str, Any] = {
            "embedding_dims": [self.model.embedding_dim] * len(log.features), "optimizer": self.optimizer,
            "batch_size": batch_size, "mixed": mixed, "seed": seed,
        }  # fmt: skip
        _make(
            folder / "hot_set", plan_calibrate(log, accesses, config, **arguments),
            f"calibrate ({selection}, batches of {batch_size:,}, {format_bytes(budget)})",
            lambda path: calibrate(log, accesses, config, path, **arguments),
        )  # fmt: skip
        hot_set = HotSet(folder / "hot_set")
        _make(
            folder / "packed", plan_pack(log, hot_set, seed=seed), f"pack ({kind}, batches of {batch_size:,})",
            lambda path: pack(log, hot_set, path, seed=seed),
        )  # fmt: skip
        return hot_set, PackedDataset(folder / "packed")

    def facts(self) -> dict[str, Any]:
        """What the record says about the log."""
        splits = {name: self.log.split(name) for name in ("train", "validation", "test")}
        synthetic = self.log.manifest.summary.get("synthetic") or {}
        return {
            "num_inputs": self.log.num_inputs,
            **{f"{name}_inputs": stop - start for name, (start, stop) in splits.items()},
            "made_up": not self.config.log,
            "num_rows": self.num_rows, "touched_rows": self.touched_rows,
            "row_bytes": self.row_bytes, "table_bytes": self.num_rows * self.row_bytes,
            "input_bytes": 4 * (int(self.log.ids.shape[1]) + len(self.log.dense_names) + 1),
            "best_auc": synthetic.get("best_auc"),
            "fingerprint": self.log.manifest.fingerprint,
        }  # fmt: skip


def _make(path: Path, plan: Plan, what: str, work: Callable[[Path], Any]) -> None:
    if not is_current(path, plan):
        say(f"bench: {what}")
        path.parent.mkdir(parents=True, exist_ok=True)
        work(path)
