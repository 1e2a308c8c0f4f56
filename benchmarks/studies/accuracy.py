"""Accuracy by the order of batches: AUC and log loss on held-out inputs against inputs seen.

    python benchmarks/studies/accuracy.py WORKLOAD [--seeds N] [--orders NAME ...] [--until SECONDS]
    python benchmarks/studies/accuracy.py WORKLOAD --table [--against FILE] | --draw

Workloads: ``frappe`` (the real log, its recipe), ``planted`` (a made-up log whose clicks hardly differ between hot and
cold inputs), ``planted-gap`` (they differ a lot), ``planted-reversed`` (hot inputs are clicked less), ``rmc1-quarter``
(a quarter of RMC1's rows and inputs), ``rmc2`` and ``rmc2-32k`` (Criteo's cardinalities, 20 M training inputs and a
test split of 1 M; for a GPU), ``rmc3-tenth``.

Every order trains on the same inputs, once an epoch: batches of hot or of cold inputs in proportion (``interleaved``),
mixed batches (``shuffled``), the paper's scheduler (``adaptive``) and its phases at fixed rates (``R(r)``), each also
with a last stretch in proportion (``+tail``). A seed draws first rows, dense weights, the order and, on small logs,
which inputs share a batch; the log and its splits stay. Along the way the validation split is looked at; the test
split is looked at once, at the end of a training.

On a CPU that others use too, ``OMP_NUM_THREADS=1 FAE_NUM_THREADS=1`` in front is several times faster and gives the
same numbers. Resumable: a cell is an order with a seed, the file is written behind each, and what it holds is skipped
(cells of another configuration are an error: name another file with ``--name``). Cells of one seed come together, so
whatever is there can be paired. Logs and packed batches stay in ``--folder`` for the next start.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import fae
from fae.artifacts.access_profile import AccessProfile
from fae.artifacts.hot_set import HotSet
from fae.artifacts.manifest import is_current
from fae.artifacts.packed import PackedDataset
from fae.calibrate.calibrate import calibrate, plan_calibrate
from fae.core.seeds import derive_seed
from fae.embedding.placements import make_embeddings
from fae.ingest.ingest import ingest
from fae.models.registry import build_model
from fae.pack.pack import pack, plan_pack
from fae.profile.profile import plan_profile, profile
from fae.run.recipe import Recipe
from fae.streaming.row_store import RowOptimizer
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.config import SyntheticConfig
from fae.training.dense import make_dense_optimizer
from fae.training.evaluate import evaluate, validation_sample
from fae.training.runner import StepRunner
from fae.training.schedule import Schedule
from studies.accuracy_tables import draw, print_difference, print_table, summarise

from common import RESULTS, record

ROOT = Path(__file__).resolve().parents[2]
TAIL = 0.05
ORDERS: dict[str, dict[str, Any]] = {
    "shuffled": {"order": "shuffled"},
    "interleaved": {"order": "interleaved"},
    "adaptive": {"order": "adaptive", "rate": 50},
    "R(1)": {"order": "fixed_rate", "rate": 1},
    "R(50)": {"order": "fixed_rate", "rate": 50},
    "R(100)": {"order": "fixed_rate", "rate": 100},
    "adaptive +tail": {"order": "adaptive", "rate": 50, "tail": TAIL},
    "R(100) +tail": {"order": "fixed_rate", "rate": 100, "tail": TAIL},
    "adaptive +tail 25 %": {"order": "adaptive", "rate": 50, "tail": 0.25},
    "adaptive from R(1)": {"order": "adaptive", "rate": 1},
}


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A log and how it is trained on.

    Attributes
    ----------
    recipe
        Tables of a recipe, or its file.
    log
        The made-up log; None reads the recipe's.
    test_fraction
        Of a made-up log.
    repack
        Whether every seed packs anew.
    orders
        Names in `ORDERS` that are measured unless others are asked for.
    """

    recipe: dict[str, dict[str, Any]] | Path
    log: SyntheticConfig | None = None
    test_fraction: float = 0.2
    validation_fraction: float = 0.1
    repack: bool = True
    seeds: int = 5
    points: int = 12
    orders: tuple[str, ...] = tuple(ORDERS)


def small_planted(gap: float) -> Workload:
    """400 k inputs of the ``criteo`` shape, a small DLRM: minutes of one core for all orders and seeds."""
    return Workload(
        recipe={
            "model": {"name": "dlrm", "embedding_dim": 16, "bottom_mlp": [64], "top_mlp": [64]},
            "hot": {"budget": "4MiB", "ring_depth": 4},
            "train": {"batch_size": 256},
        },
        log=SyntheticConfig(num_inputs=400_000, label_gap=gap),
    )


def rmc1_quarter() -> Workload:
    """The paper's RMC1 with a quarter of its rows, 1 M inputs: 5 minutes a training on one core."""
    return Workload(
        recipe={
            "model": {
                "name": "tbsm", "embedding_dim": 16, "bottom_mlp": [], "top_mlp": [15, 15], "inner": "definite",
                "attention": "mlp", "attention_mlp": [15, 15], "final_mlp": [60],
            },
            "hot": {"budget": "64MiB", "ring_depth": 4},
            "train": {
                "batch_size": 256, "optimizer": "adagrad", "learning_rate": 0.05, "dense_learning_rate": 0.05,
            },
        },
        log=SyntheticConfig(shape="taobao", num_inputs=1_000_000, scale=0.25, click_rate=0.5, drift=0.0),
        test_fraction=0.1,
        validation_fraction=0.05,
        repack=False,
        points=4,
        orders=("shuffled", "interleaved"),
    )  # fmt: skip


def rmc2(train: dict[str, Any]) -> Workload:
    """The paper's RMC2 on 22.2 M made-up inputs: 20.0 M to train on, 1.05 M to validate, 1.1 M to test."""
    return Workload(
        recipe={
            "model": {"name": "dlrm", "embedding_dim": 16, "bottom_mlp": [512, 256, 64], "top_mlp": [512, 256]},
            "hot": {"budget": "256MiB", "ring_depth": 4},
            "train": {"precision": "bf16", **train},
        },
        log=SyntheticConfig(num_inputs=22_200_000, scale=1.0),
        test_fraction=0.05,
        validation_fraction=0.05,
        repack=False,
        points=4,
        orders=("shuffled", "interleaved", "adaptive"),
    )


def rmc3_tenth() -> Workload:
    """The paper's RMC3 with a tenth of the rows of its large tables, 2 M inputs: 3 minutes a training on two cores."""
    return Workload(
        recipe={
            "model": {"name": "dlrm", "embedding_dim": 64, "bottom_mlp": [512, 256], "top_mlp": [512, 512, 256]},
            "hot": {"budget": "13MiB", "ring_depth": 4},
            "train": {"batch_size": 2048, "optimizer": "sgd", "learning_rate": 0.1},
        },
        log=SyntheticConfig(shape="terabyte", num_inputs=2_000_000, scale=0.1, drift=0.0),
        test_fraction=0.1,
        validation_fraction=0.05,
        repack=False,
        points=4,
        orders=("shuffled", "interleaved", "adaptive"),
    )


WORKLOADS: dict[str, Workload] = {
    "frappe": Workload(recipe=ROOT / "recipes/frappe.toml", seeds=10),
    "planted": small_planted(0.0),
    "planted-gap": small_planted(2.0),
    "planted-reversed": small_planted(-1.0),
    "rmc1-quarter": rmc1_quarter(),
    "rmc2": rmc2({"batch_size": 1024, "optimizer": "sgd", "learning_rate": 0.1}),
    "rmc2-32k": rmc2({"batch_size": 32768, "optimizer": "rowwise_adagrad"}),
    "rmc3-tenth": rmc3_tenth(),
}


class Prepared:
    """The log and, on demand, its packed batches; everything is kept in `folder`."""

    def __init__(self, workload: Workload, folder: Path, options: argparse.Namespace) -> None:
        self.workload, self.folder = workload, folder
        tables = workload.recipe
        if isinstance(tables, Path):
            self.recipe: Recipe = fae.load_recipe(tables, options.overrides)
        else:
            (folder / "recipe.toml").parent.mkdir(parents=True, exist_ok=True)
            base = {"log": {"train": "made up", "format": "criteo"}, **tables}
            (folder / "recipe.toml").write_text(_as_toml(base))
            self.recipe = fae.load_recipe(folder / "recipe.toml", options.overrides)
        self.log_config = workload.log
        if workload.log is not None and options.inputs:
            self.log_config = SyntheticConfig(
                **{**asdict(workload.log), "num_inputs": options.inputs, "scale": options.scale or workload.log.scale}
            )
        self._opened: dict[str, tuple[HotSet, PackedDataset, int]] = {}
        self._embeddings: dict[str, Any] = {}

    def description(self) -> dict[str, Any]:
        """What names the configuration in the result file."""
        recipe = {
            name: fae.core.config.to_table(getattr(self.recipe, name)) for name in ("log", "model", "hot", "train")
        }
        return {
            "recipe": recipe,
            "synthetic": asdict(self.log_config) if self.log_config else None,
            "repack": self.workload.repack,
        }

    def log(self) -> fae.ColumnarLog:
        path = self.folder / "log"
        if not path.exists():
            if self.log_config is None:
                ingest(self.recipe.log, path, base=self.recipe.base)
            else:
                write_columnar(
                    self.log_config,
                    path,
                    test_fraction=self.workload.test_fraction,
                    validation_fraction=self.workload.validation_fraction,
                )
        log = fae.ColumnarLog(path)
        if self.log_config and log.manifest.parameters["synthetic"] != fae.core.config.to_table(self.log_config):
            raise SystemExit(f"{path} is another log; give another --folder or delete it")
        return log

    def packed(self, mixed: bool, seed: int) -> tuple[HotSet, PackedDataset]:
        """Hot set and batches; packed once for all seeds unless the workload packs anew."""
        seed = seed if self.workload.repack else 1
        key = f"{'mixed' if mixed else 'pure'}_{self.recipe.train.batch_size}_{self.recipe.train.optimizer}"
        if key in self._opened and self._opened[key][2] == seed:
            return self._opened[key][:2]
        log, recipe, folder = self.log(), self.recipe, self.folder / key
        folder.mkdir(exist_ok=True)
        access_path = self.folder / "profile"
        if not is_current(access_path, plan_profile(log, recipe.hot, seed=1)):
            profile(log, recipe.hot, access_path, seed=1)
        access = AccessProfile(access_path)
        arguments: dict[str, Any] = {
            "embedding_dims": [recipe.model.embedding_dim] * len(log.features),
            "optimizer": recipe.train.optimizer,
            "batch_size": recipe.train.batch_size,
            "mixed": mixed,
            "seed": 1,
        }
        if not is_current(folder / "hot_set", plan_calibrate(log, access, recipe.hot, **arguments)):
            calibrate(log, access, recipe.hot, folder / "hot_set", **arguments)
        hot_set = HotSet(folder / "hot_set")
        if not is_current(folder / "packed", plan_pack(log, hot_set, seed=seed)):
            self._opened.pop(key, None)
            pack(log, hot_set, folder / "packed", seed=seed)
        self._opened[key] = hot_set, PackedDataset(folder / "packed"), seed
        return self._opened[key][:2]

    def embeddings(self, mixed: bool, hot_set: HotSet, device: str) -> Any:
        """Of the recipe's placement, made once and given first values by each training."""
        kind, train = "mixed" if mixed else "pure", self.recipe.train
        if kind not in self._embeddings:
            self._embeddings[kind] = make_embeddings(
                train.placement,
                hot_set,
                RowOptimizer(name=train.optimizer, learning_rate=train.learning_rate),
                device=device,
            )
        return self._embeddings[kind]


def one_training(prepared: Prepared, name: str, seed: int, device: str) -> dict[str, Any]:
    """Train one order from one seed; returns the cell."""
    how = ORDERS[name]
    mixed, train = how["order"] == "shuffled", prepared.recipe.train
    hot_set, packed = prepared.packed(mixed, seed)
    started = time.perf_counter()
    embeddings = prepared.embeddings(mixed, hot_set, device)
    embeddings.initialise(derive_seed(seed, "rows"))
    torch.manual_seed(derive_seed(seed, "training"))
    model = build_model(prepared.recipe.model, hot_set.layout.features, packed.num_dense, seed=seed)
    model = model.to(embeddings.device)
    on_gpu = embeddings.device.type == "cuda"
    precision = train.precision if on_gpu else "fp32"
    optimizer = make_dense_optimizer(
        train.optimizer, model, train.dense_rate, flat=on_gpu, bf16=on_gpu and precision == "bf16"
    )
    runner = StepRunner(model, embeddings, optimizer, precision=precision)
    batches = packed.train
    schedule = Schedule(
        how["order"], num_hot=batches.num_hot_batches, num_cold=batches.num_batches - batches.num_hot_batches,
        epochs=train.epochs, seed=seed, rate=how.get("rate", 50), tail=how.get("tail", 0.0),
    )  # fmt: skip
    sample = validation_sample(packed.validation)

    def look(split: Any, order: Any = None) -> dict[str, float | None]:
        metrics = evaluate(model, embeddings, split, order, precision=precision)
        return {"auc": metrics.auc, "log_loss": metrics.log_loss}

    def finite() -> bool:
        return math.isfinite(runner.take_loss())

    ready = time.perf_counter()
    curve, seen, diverged = _train(prepared, schedule, embeddings, batches, runner, finite, look, packed, sample)
    trained = time.perf_counter()
    summary = packed.manifest.summary
    return {
        "order": name, "seed": seed, "inputs": seen, "curve": curve, "diverged": diverged,
        "validation": look(packed.validation), "test": look(packed.test),
        "trace": schedule.trace if len(schedule.trace) <= 60 else schedule.trace[:60],
        "input_share": summary["num_hot_inputs"] / summary["num_inputs"] if mixed else summary["input_share"],
        "label_rate": summary["label_rate"],
        "seconds": {"prepare": ready - started, "train": trained - ready, "evaluate": time.perf_counter() - trained},
    }  # fmt: skip


def _train(
    prepared: Prepared, schedule: Schedule, embeddings: Any, batches: Any, runner: StepRunner,
    finite: Callable[[], bool], look: Callable[..., dict[str, float | None]], packed: PackedDataset, sample: Any,
) -> tuple[list[dict[str, Any]], int, bool]:  # fmt: skip
    """All segments, cut where the curve wants a point: curve, inputs seen, whether the loss stopped being finite."""
    total = batches.num_batches * prepared.recipe.train.epochs
    cuts = {round(total * (i + 1) / prepared.workload.points) for i in range(prepared.workload.points)}
    done = seen = 0
    curve: list[dict[str, Any]] = []
    while not schedule.done:
        segment = schedule.next_segment()
        start = 0
        while start < len(segment.batches):
            stop = min([len(segment.batches), *(cut - done + start for cut in cuts if cut > done)])
            with closing(embeddings.stream(batches, segment.batches[start:stop])) as stream:
                for batch in stream:
                    runner(batch)
                    seen += batch.num_inputs
            done, start = done + stop - start, stop
            if not finite():
                return curve, seen, True
            if done in cuts:
                curve.append({"inputs": seen, **look(packed.validation, sample)})
        if segment.wants_loss:
            schedule.observe(look(packed.validation, sample)["log_loss"])
    return curve, seen, False


def _as_toml(tables: dict[str, dict[str, Any]]) -> str:
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=tuple(WORKLOADS))
    parser.add_argument("--seeds", type=int, help="default: the workload's")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--orders", nargs="+", choices=tuple(ORDERS), help="default: the workload's")
    parser.add_argument("--inputs", type=int, help="inputs of the made-up log, to try things out")
    parser.add_argument(
        "--scale", type=float, help="with --inputs: rows of its large tables, 1 for the published number"
    )
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--until", type=float, default=math.inf, metavar="SECONDS", help="start no cell after")
    parser.add_argument(
        "--folder", type=Path, help="for logs and packed batches (default: one in the temporary folder)"
    )
    parser.add_argument("--name", help="of the result file (default: accuracy_WORKLOAD)")
    parser.add_argument("--out", type=Path, help="the result file, where it is not in benchmarks/results")
    parser.add_argument("--table", action="store_true", help="print the tables of a result and do nothing else")
    parser.add_argument("--against", type=Path, help="with --table: also the difference to this result, by seed")
    parser.add_argument("--draw", action="store_true", help="draw a result into docs/images and do nothing else")
    options = parser.parse_args()
    started = time.perf_counter()
    name = options.name or f"accuracy_{options.workload.replace('-', '_')}"
    out = options.out or RESULTS / f"{name}.json"
    if options.table or options.draw:
        result = json.loads(out.read_text())
        if options.draw:
            draw(result, ROOT / "docs/images" / f"{name}.svg")
        print_table(result)
        if options.against:
            print()
            print_difference(result, json.loads(options.against.read_text()))
        return
    workload = WORKLOADS[options.workload]
    # Both batch sizes of RMC2 share a log; every pair of packed forms beside it takes 13 GB.
    folder = options.folder or Path(tempfile.gettempdir()) / f"fae_accuracy_{options.workload.removesuffix('-32k')}"
    prepared = Prepared(workload, folder, options)
    about = {"workload": options.workload, **prepared.description()}
    cells, result = _finished(out, about), record(**about)
    for seed in range(options.first_seed, options.first_seed + (options.seeds or workload.seeds)):
        for order in options.orders or workload.orders:
            if any(cell["order"] == order and cell["seed"] == seed for cell in cells):
                continue
            if time.perf_counter() - started > options.until:
                print(f"stopped after {options.until:.0f} s; the same command goes on", file=sys.stderr)
                return
            cell = one_training(prepared, order, seed, options.device)
            cell["commit"], cell["machine"] = result["commit"], result["machine"]
            cells.append(cell)
            _save(out, {**result, "summary": summarise(cells), "cells": cells})
            test, seconds = cell["test"], ", ".join(f"{k} {v:.1f} s" for k, v in cell["seconds"].items())
            now = f"{time.perf_counter() - started:5.0f} s, seed {seed} {order:20}"
            scores = f"test AUC {test['auc'] or math.nan:.5f} log loss {test['log_loss'] or math.nan:.5f}"
            print(f"{now} {scores}; {seconds}", file=sys.stderr, flush=True)
    if cells:
        print_table(json.loads(out.read_text()))


def _finished(out: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    if not out.exists():
        return []
    result = json.loads(out.read_text())
    if any(result.get(key) != json.loads(json.dumps(value)) for key, value in about.items()):
        raise SystemExit(f"{out} is of another configuration; give --name or delete it")
    cells: list[dict[str, Any]] = result["cells"]
    return cells


def _save(out: Path, result: dict[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(part, out)


if __name__ == "__main__":
    main()
