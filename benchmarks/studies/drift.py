"""Drift: a hot set chosen on day 1, and the days that follow; with and without re-calibration between days.

    python benchmarks/studies/drift.py [--days 7] [--inputs-per-day 150000] [--seeds 3] [--until SECONDS]

What does a hot set lose as values come and go, and what does a new one each night cost? A synthetic log of Criteo's
shape is cut into days, and ``--drifts`` of the large columns' values are replaced by new ones every day (0.005 is what
the generator has by default, see docs/guide/synthetic.md). Day 1 is ingested, profiled, calibrated, packed and trained
on; every later day is ingested with the day before as parent (ids that it shows first are appended) and trained on with
the same model, in the same process:

* ``kept``: the hot set of day 1 as it was; rows that were appended since are cold;
* ``recalibrated``: profile and calibrate on the day's own log, then every row moves to its place, with its optimizer
  state (`fae.checkpoint.continuation.move_rows`). That no bit of any row changes on the way is checked each night.

A day's record has coverage (hot lookups), hot-input share, batches, cold rows a batch, rows that changed tier, seconds
of every stage and the held-out AUC. ``yesterday``, without training, is what a hot set of the day before would serve.
Writes benchmarks/results/drift.json after each cell (a drift, a
seed, a policy); cells that it has are skipped. `studies/tables.py drift` prints and draws.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import fae
from fae.artifacts.columnar_log import FeatureSchema
from fae.artifacts.row_layout import RowLayout
from fae.calibrate.calibrate import calibrate
from fae.calibrate.table_facts import Tables
from fae.checkpoint.continuation import move_rows
from fae.embedding.base import Embeddings
from fae.embedding.placements import make_embeddings
from fae.ingest.config import LogConfig
from fae.ingest.ingest import ingest
from fae.models.config import DLRMConfig
from fae.models.registry import build_model
from fae.pack.pack import pack
from fae.profile.config import HotConfig
from fae.profile.profile import profile
from fae.streaming.row_store import RowOptimizer
from fae.synthetic.config import SyntheticConfig
from fae.synthetic.text_writer import write_text
from fae.training.config import TrainConfig
from fae.training.trainer import Trainer

from common import made_once
from study import inputs_of, measured, open_cells, shares
from tables import print_drift

ROOT = Path(__file__).resolve().parents[2]
POLICIES = ("recalibrated", "kept")
MODEL = DLRMConfig(embedding_dim=16, bottom_mlp=(64,), top_mlp=(64,))


class Days:
    """The days of one log as text, and its columnar form, each day's behind the one before."""

    def __init__(self, folder: Path, options: argparse.Namespace, drift: float, seed: int) -> None:
        self.folder, self.num = folder, options.days
        folder.mkdir(parents=True, exist_ok=True)
        config = SyntheticConfig(
            num_inputs=options.days * options.inputs_per_day, scale=options.scale, num_days=options.days, drift=drift,
            seed=seed,
        )  # fmt: skip

        def write_days() -> None:
            write_text(config, folder / "all.tsv")
            with (folder / "all.tsv").open("rb") as lines:
                for day in range(1, options.days + 1):
                    with (folder / f"day{day}.tsv").open("wb") as file:
                        file.writelines(islice(lines, options.inputs_per_day))
            (folder / "all.tsv").unlink()

        made_once(folder / "day1.tsv", asdict(config), write_days)

    def log(self, day: int) -> tuple[fae.ColumnarLog, float]:
        """The day's log and the seconds its ingest took (0 where it was there)."""
        path, started = self.folder / f"log{day}", time.perf_counter()
        if path.exists():
            return fae.ColumnarLog(path), 0.0
        config = LogConfig(train=f"day{day}.tsv", format="criteo")
        parent = self.log(day - 1)[0] if day > 1 else None
        return ingest(config, path, base=self.folder, parent=parent), time.perf_counter() - started


def kept(hot_set: Any, log: fae.ColumnarLog) -> Any:
    """A hot set for a log that has more ids: appended rows come last, cold."""
    layout = hot_set.layout
    ranks = []
    for rank, before, after in zip(layout.ranks, layout.features, log.features, strict=True):
        more = np.arange(before.num_embeddings, after.num_embeddings, dtype=np.int32)
        ranks.append(None if rank is None else np.concatenate([rank, more]))
    return SimpleNamespace(
        layout=RowLayout(log.features, layout.embedding_dims, layout.num_hot, ranks),
        staging_rows=hot_set.staging_rows, ring_depth=hot_set.ring_depth, batch_size=hot_set.batch_size,
        mixed=hot_set.mixed, optimizer=hot_set.optimizer, manifest=hot_set.manifest,
    )  # fmt: skip


def served(log: fae.ColumnarLog, layout: RowLayout) -> dict[str, float]:
    """Coverage and hot-input share of the training split under a hot set."""
    tables = Tables(log.features, log.counts, layout.embedding_dims, "sgd")
    ranks = [
        np.arange(f.num_embeddings) if r is None else r for f, r in zip(layout.features, layout.ranks, strict=True)
    ]
    flat, num_hot = np.concatenate(ranks).astype(np.int32), np.array(layout.num_hot, np.int64)
    found = shares(tables, flat, num_hot, train=inputs_of(log, "train"))["train"]
    return {key: found[key] for key in ("coverage", "input_share")}


class DaysTrained:
    """One policy over all days: the model continues from day to day, its rows through every hot set."""

    def __init__(self, days: Days, policy: str, options: argparse.Namespace, seed: int) -> None:
        self.days, self.policy, self.options, self.seed = days, policy, options, seed
        self.config = TrainConfig(batch_size=options.batch_size, seed=seed, placement=options.placement)
        self.hot = HotConfig(budget=options.budget, ring_depth=4)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{policy}_", dir=days.folder))
        self.hot_set: Any = None
        self.embeddings: Embeddings | None = None
        self.dense_state: dict[str, Any] | None = None
        self.model: torch.nn.Module | None = None

    def run(self) -> list[dict[str, Any]]:
        """The record of every day."""
        return [self._day(day) for day in range(1, self.days.num + 1)]

    def _day(self, day: int) -> dict[str, Any]:
        log, ingest_seconds = self.days.log(day)
        seconds = {"ingest": ingest_seconds}
        clock = Clock(seconds)
        before = self.hot_set
        yesterday = served(log, kept(before, log).layout) if before is not None else None
        if before is None or self.policy == "recalibrated":
            folder = self.folder / f"day{day}"
            clock.start()
            access = profile(log, self.hot, folder / "profile", seed=self.seed)
            clock.stop("profile")
            self.hot_set = calibrate(
                log, access, self.hot, folder / "hot_set", embedding_dims=[MODEL.embedding_dim] * len(log.features),
                optimizer=self.config.optimizer, batch_size=self.config.batch_size, mixed=False, seed=self.seed,
            )  # fmt: skip
            clock.stop("calibrate")
        else:
            self.hot_set = kept(before, log)
        clock.start()
        packed = pack(log, self.hot_set, self.folder / f"day{day}" / "packed", seed=self.seed)
        clock.stop("pack")
        moved = self._place_rows(log.features, clock)
        clock.start()
        trainer = Trainer(self._same_model(log.features, packed.num_dense), self.embeddings, packed, self.config)
        if self.dense_state is not None:
            trainer.dense_optimizer.load_state_dict(self.dense_state)
        result = trainer.fit()
        self.dense_state = trainer.dense_optimizer.state_dict()
        clock.stop("train")
        summary = packed.manifest.summary
        return {
            "day": day, "rows": int(log.table_offsets[-1]), "hot_rows": int(sum(self.hot_set.layout.num_hot)),
            "coverage": summary["coverage"], "input_share": summary["input_share"], "yesterday": yesterday,
            "num_batches": summary["num_batches"], "closed_early": summary["closed_early"],
            "cold_rows_per_batch": summary["cold_rows_per_batch"], "moved": moved, "seconds": seconds,
            "samples_per_second": result["train"]["samples_per_second"], "test": result["test"],
        }  # fmt: skip

    def _place_rows(self, features: tuple[FeatureSchema, ...], clock: Clock) -> dict[str, Any] | None:
        """Embeddings of the day's hot set with the rows of the day before; None on the first day."""
        rule = RowOptimizer(name=self.config.optimizer, learning_rate=self.config.learning_rate)
        old = self.embeddings
        clock.start()
        new = make_embeddings(self.config.placement, self.hot_set, rule, device=self.options.device)
        clock.stop("allocate")
        self.embeddings = new
        if old is None:
            new.initialise(self.seed)
            return None
        clock.start()
        move_rows(old, new, seed=self.seed)
        if new.device.type == "cuda":
            torch.cuda.synchronize()
        clock.stop("move")
        return _changes(old, new)

    def _same_model(self, features: tuple[FeatureSchema, ...], num_dense: int) -> torch.nn.Module:
        if self.model is None:
            self.model = build_model(MODEL, features, num_dense, seed=self.seed).to(self.embeddings.device)
        return self.model


class Clock:
    """Seconds of named parts."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds, self._since = seconds, 0.0

    def start(self) -> None:
        self._since = time.perf_counter()

    def stop(self, name: str) -> None:
        now = time.perf_counter()
        self._seconds[name] = now - self._since
        self._since = now


def _changes(old: Embeddings, new: Embeddings) -> dict[str, Any]:
    """Rows that changed tier or are new, and whether every known row kept its bytes."""
    to_hot = to_cold = appended = 0
    exact = old.steps == new.steps
    for table, (before, after) in enumerate(zip(old.layout.features, new.layout.features, strict=True)):
        known = before.num_embeddings
        was = old.layout.row_numbers(table) < _num_hot_rows(old, table)
        now = new.layout.row_numbers(table)[:known] < _num_hot_rows(new, table)
        to_hot, to_cold = to_hot + int((now & ~was).sum()), to_cold + int((was & ~now).sum())
        appended += after.num_embeddings - known
        for one, other in zip(old.export_table(table), new.export_table(table), strict=True):
            exact &= one.numpy().tobytes() == other[:known].contiguous().numpy().tobytes()
    return {"cold_to_hot": to_hot, "hot_to_cold": to_cold, "appended": appended, "exact": bool(exact)}


def _num_hot_rows(embeddings: Embeddings, table: int) -> int:
    layout = embeddings.layout
    return layout.groups[int(layout.group_of_table[table])].num_hot_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--inputs-per-day", type=int, default=150_000)
    parser.add_argument("--scale", type=float, default=0.02)
    parser.add_argument("--drifts", type=float, nargs="+", default=[0.005, 0.05])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", default="4MiB")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--placement", default="tiered")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--until", type=float, default=0.0, metavar="SECONDS", help="start no cell after")
    parser.add_argument("--folder", type=Path, help="for logs and batches (default: one in the temporary folder)")
    parser.add_argument("--name", default="drift", help="of the result file")
    options = parser.parse_args()
    keys = ("days", "inputs_per_day", "scale", "budget", "batch_size", "placement", "device")
    cells = open_cells(options.name, {key: getattr(options, key) for key in keys}, until_seconds=options.until)
    root = options.folder or Path(tempfile.gettempdir()) / f"fae_{options.name}"
    for seed in range(1, options.seeds + 1):
        for drift in options.drifts:
            for policy in POLICIES:
                key = f"{drift:g}/{seed}/{policy}"
                if key in cells:
                    continue
                if cells.late():
                    print(f"stopped after {options.until:.0f} s; the same command continues", file=sys.stderr)
                    return

                def work(seed: int = seed, drift: float = drift, policy: str = policy) -> dict[str, Any]:
                    days = Days(root / f"drift{drift}_seed{seed}", options, drift, seed)
                    records = DaysTrained(days, policy, options, seed).run()
                    return {"drift": drift, "seed": seed, "policy": policy, "days": records}

                last = measured(cells, key, work)["days"][-1]
                print(
                    f"{key} last day: hot inputs {last['input_share']:.4f}, AUC {last['test']['auc']:.4f}", flush=True
                )
    print_drift(cells.record)


if __name__ == "__main__":
    main()
