"""Accuracy by the order of batches: AUC and log loss on held-out inputs against inputs seen, beside simple baselines.

    python benchmarks/studies/accuracy.py WORKLOAD [--seeds N] [--orders NAME ...] [--set SECTION.KEY=VALUE] [--until S]

Does an order of batches cost accuracy, and how near does training come to what is possible? Workloads: ``frappe`` (the
real log, its recipe), ``planted`` (a synthetic log whose clicks hardly differ between hot and cold inputs),
``planted-gap`` (they differ a lot), ``planted-reversed`` (hot inputs are clicked less), ``truth`` (another log of the
default recipe for each seed), ``rmc1-quarter`` (a quarter of
RMC1's rows and inputs), ``rmc2`` and ``rmc2-32k`` (Criteo's cardinalities, 20 M training inputs and a test split of
1 M; for a GPU), ``rmc3-tenth``.

Every order trains on the same inputs, once an epoch: batches of hot or of cold inputs in proportion (``interleaved``),
mixed batches (``shuffled``), the paper's scheduler (``adaptive``) and its phases at fixed rates (``R(r)``), each also
with a last stretch in proportion (``+tail``). A seed draws first rows, dense weights, the order and, on small logs,
which inputs share a batch; the log and its splits stay. The validation split is evaluated along the way, the test split
once, at the end of a training. Three more names take the place of an order and train nothing like it: ``planted``, the
probabilities from which the labels of a synthetic log were drawn (no model can do better, but for chance);
``logistic``, a logistic regression (scikit-learn, one column an id and the dense features, its strength chosen on the
validation split); ``click rate``, that of the training split for every input.

On a CPU that others use too, ``OMP_NUM_THREADS=1 FAE_NUM_THREADS=1`` in front is several times faster and gives the
same numbers. Writes benchmarks/results/accuracy_<workload>.json (``--name`` for another) after each cell, an order with
a seed; cells that it has are skipped, a file of other settings is an error. Cells of one seed come together, so that
they can be paired. Logs and packed batches stay in ``--folder``. `studies/tables.py accuracy` prints and draws.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shutil
import sys
import tempfile
import time
import warnings
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fae
from fae.artifacts.access_profile import AccessProfile
from fae.artifacts.hot_set import HotSet
from fae.artifacts.packed import PackedDataset
from fae.bench.workloads import WORKLOADS as PAPER
from fae.core.config import to_table
from fae.core.seeds import derive_seed
from fae.embedding.placements import make_embeddings
from fae.ingest.ingest import ingest
from fae.models.registry import build_model
from fae.run import prepare
from fae.run.recipe import Recipe
from fae.streaming.row_store import RowOptimizer
from fae.synthetic.click_log import SyntheticLog
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.config import SyntheticConfig
from fae.synthetic.inputs import CHUNK_INPUTS
from fae.training.dense import make_dense_optimizer
from fae.training.quality.evaluate import evaluate, validation_sample
from fae.training.quality.metrics import compute_metrics
from fae.training.runner import StepRunner
from fae.training.schedule import Schedule

from study import RESULTS, ROOT, frappe_settings, measured, open_cells
from tables import print_accuracy, summarise

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
BASELINES = ("planted", "logistic", "click rate")
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
Scores = dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A log and how it is trained on.

    Attributes
    ----------
    recipe
        Tables of a recipe, or its file.
    log
        The synthetic log; None reads the recipe's.
    test_fraction, validation_fraction
        Shares of the synthetic log's inputs.
    repack
        Whether every seed packs anew.
    new_log
        Whether every seed has a log with that seed.
    orders
        Names in `ORDERS` that are measured unless the command line names others.
    """

    recipe: dict[str, dict[str, Any]] | Path
    log: SyntheticConfig | None = None
    test_fraction: float = 0.2
    validation_fraction: float = 0.1
    repack: bool = True
    new_log: bool = False
    seeds: int = 5
    points: int = 12
    orders: tuple[str, ...] = tuple(ORDERS)


PAIR = ("shuffled", "interleaved")
LARGE: dict[str, Any] = {"repack": False, "points": 4, "test_fraction": 0.1, "validation_fraction": 0.05}


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


def rmc2(train: dict[str, Any]) -> Workload:
    """The paper's RMC2 on 22.2 M synthetic inputs: 20.0 M to train on, 1.05 M to validate, 1.1 M to test."""
    return Workload(
        recipe={
            "model": dict(PAPER["rmc2"].model),
            "hot": {"budget": "256MiB", "ring_depth": 4},
            "train": {"precision": "bf16", **train},
        },
        log=SyntheticConfig(num_inputs=22_200_000, scale=1.0),
        orders=(*PAIR, "adaptive"),
        **{**LARGE, "test_fraction": 0.05},
    )


WORKLOADS: dict[str, Workload] = {
    "frappe": Workload(recipe=ROOT / "recipes/frappe.toml", seeds=10),
    "planted": small_planted(0.0),
    "planted-gap": small_planted(2.0),
    "planted-reversed": small_planted(-1.0),
    "truth": Workload(
        recipe={"hot": {"budget": "4MiB", "ring_depth": 4}}, log=SyntheticConfig(num_inputs=500_000), new_log=True,
        seeds=3, test_fraction=0.1, validation_fraction=0.05, orders=("planted", "interleaved", *BASELINES[1:]),
    ),
    # The paper's RMC1 with a quarter of its rows, 1 M inputs: 5 minutes a training on one core.
    "rmc1-quarter": Workload(
        recipe={
            "model": dict(PAPER["rmc1"].model),
            "hot": {"budget": "64MiB", "ring_depth": 4},
            "train": {key: value for key, value in PAPER["rmc1"].train.items() if key != "compile"},
        },
        log=SyntheticConfig(shape="taobao", num_inputs=1_000_000, scale=0.25, click_rate=0.5, drift=0.0),
        orders=PAIR, **LARGE,
    ),
    "rmc2": rmc2(dict(PAPER["rmc2"].train)),
    "rmc2-32k": rmc2({"batch_size": 32768, "optimizer": "rowwise_adagrad"}),
    # The paper's RMC3 with a tenth of the rows of its large tables, 2 M inputs: 3 minutes a training on two cores.
    "rmc3-tenth": Workload(
        recipe={
            "model": dict(PAPER["rmc3"].model),
            "hot": {"budget": "13MiB", "ring_depth": 4},
            "train": dict(PAPER["rmc3"].train),
        },
        log=SyntheticConfig(shape="terabyte", num_inputs=2_000_000, scale=0.1, drift=0.0),
        orders=(*PAIR, "adaptive"), **LARGE,
    ),
}  # fmt: skip


class Prepared:
    """The log and, on demand, its packed batches; everything is kept in `folder`."""

    def __init__(self, workload: Workload, folder: Path, options: argparse.Namespace) -> None:
        self.workload, self.folder = workload, folder
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(workload.recipe, Path):
            found = frappe_settings() if workload.log is None else []
            self.recipe: Recipe = fae.load_recipe(workload.recipe, [*found, *options.overrides])
        else:
            file = folder / "recipe.toml"
            tables = {"log": {"train": "synthetic", "format": "criteo"}, **workload.recipe}
            lines = [
                line
                for name, table in tables.items()
                for line in (f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()))
            ]
            file.write_text("\n".join(lines) + "\n")
            self.recipe = fae.load_recipe(file, options.overrides)
        self.log_config = workload.log
        if workload.log is not None and options.inputs:
            scale = options.scale or workload.log.scale
            self.log_config = dataclasses.replace(workload.log, num_inputs=options.inputs, scale=scale)
        self._opened: dict[tuple[bool, int, int], tuple[HotSet, PackedDataset]] = {}
        self._embeddings: tuple[Any, Any] = (None, None)

    def settings(self) -> dict[str, Any]:
        """What names the configuration in the result file."""
        recipe = {name: to_table(getattr(self.recipe, name)) for name in ("log", "model", "hot", "train")}
        synthetic = asdict(self.log_config) if self.log_config else None
        return {"recipe": recipe, "synthetic": synthetic, "repack": self.workload.repack}

    def log_of(self, seed: int) -> tuple[fae.ColumnarLog, SyntheticConfig | None]:
        """The log of a seed, made where it is missing, and what it was made of."""
        config, path = self.log_config, self.folder / "log"
        if config is not None and self.workload.new_log:
            config, path = dataclasses.replace(config, seed=seed), self.folder / f"seed{seed}" / "log"
        if not path.exists() and config is None:
            ingest(self.recipe.log, path, base=self.recipe.base)
        elif not path.exists() and config is not None:
            fractions = {name: getattr(self.workload, name) for name in ("test_fraction", "validation_fraction")}
            write_columnar(config, path, **fractions)
        log = fae.ColumnarLog(path)
        if config and log.manifest.parameters["synthetic"] != to_table(config):
            raise SystemExit(f"{path} is another log; give another --folder or delete it")
        return log, config

    def packed(self, mixed: bool, seed: int) -> tuple[HotSet, PackedDataset]:
        """Hot set and batches; the hot set is of seed 1, and batches too unless the workload packs anew."""
        log, _ = self.log_of(seed)
        pack_seed = seed if self.workload.repack else 1
        key = (mixed, pack_seed, seed if self.workload.new_log else 1)
        if key not in self._opened:
            first = dataclasses.replace(prepare.PackOptions.from_recipe(self.recipe, log.features), mixed=mixed, seed=1)
            second = dataclasses.replace(first, seed=pack_seed)
            root = log.path.parent
            folder = root / f"{'mixed' if mixed else 'pure'}_{first.batch_size}_{first.optimizer}"
            profile = root / "profile"
            prepare.make_missing(
                profile, prepare.planned_profile(log, first), lambda path: prepare.make_profile(log, first, path)
            )
            access = AccessProfile(profile)
            prepare.make_missing(
                folder / "hot_set", prepare.planned_hot_set(log, access, first),
                lambda path: prepare.make_hot_set(log, access, first, path),
            )  # fmt: skip
            hot = HotSet(folder / "hot_set")
            self._opened = {each: kept for each, kept in self._opened.items() if each[0] != mixed}
            prepare.make_missing(
                folder / "packed", prepare.planned_packed(log, hot, second),
                lambda path: prepare.make_packed(log, hot, second, path),
            )  # fmt: skip
            self._opened[key] = hot, PackedDataset(folder / "packed")
        return self._opened[key]

    def embeddings(self, hot_set: HotSet, device: str) -> Any:
        """Embeddings of the recipe's placement, made once a hot set; each training gives them first values."""
        if self._embeddings[0] is not hot_set:
            train = self.recipe.train
            rule = RowOptimizer(name=train.optimizer, learning_rate=train.learning_rate)
            self._embeddings = hot_set, make_embeddings(train.placement, hot_set, rule, device=device)
        return self._embeddings[1]


def one_training(prepared: Prepared, name: str, seed: int, device: str) -> dict[str, Any]:
    """Train one order from one seed; returns the cell."""
    how = ORDERS[name]
    mixed, train = how["order"] == "shuffled", prepared.recipe.train
    hot_set, packed = prepared.packed(mixed, seed)
    started = time.perf_counter()
    embeddings = prepared.embeddings(hot_set, device)
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
    batches, sample = packed.train, validation_sample(packed.validation)
    schedule = Schedule(
        how["order"], num_hot=batches.num_hot_batches, num_cold=batches.num_batches - batches.num_hot_batches,
        epochs=train.epochs, seed=seed, rate=how.get("rate", 50), tail=how.get("tail", 0.0),
    )  # fmt: skip

    def scores(split: Any, order: Any = None) -> Scores:
        metrics = evaluate(model, embeddings, split, order, precision=precision)
        return {"auc": metrics.auc, "log_loss": metrics.log_loss}

    total, points = batches.num_batches * train.epochs, prepared.workload.points
    cuts = {round(total * (i + 1) / points) for i in range(points)}
    done = seen = 0
    curve: list[dict[str, Any]] = []
    diverged, ready = False, time.perf_counter()
    while not schedule.done and not diverged:
        segment, start = schedule.next_segment(), 0
        while start < len(segment.batches) and not diverged:  # cut where the curve has a point
            stop = min([len(segment.batches), *(cut - done + start for cut in cuts if cut > done)])
            with closing(embeddings.stream(batches, segment.batches[start:stop])) as stream:
                for batch in stream:
                    runner(batch)
                    seen += batch.num_inputs
            done, start = done + stop - start, stop
            diverged = not math.isfinite(runner.take_loss())
            if done in cuts and not diverged:
                curve.append({"inputs": seen, **scores(packed.validation, sample)})
        if segment.wants_loss and not diverged:
            schedule.observe(scores(packed.validation, sample)["log_loss"])
    trained, summary = time.perf_counter(), packed.manifest.summary
    return {
        "inputs": seen, "curve": curve, "diverged": diverged,
        "validation": scores(packed.validation), "test": scores(packed.test), "trace": schedule.trace[:60],
        "input_share": summary["num_hot_inputs"] / summary["num_inputs"] if mixed else summary["input_share"],
        "label_rate": summary["label_rate"],
        "seconds": {"prepare": ready - started, "train": trained - ready, "evaluate": time.perf_counter() - trained},
    }  # fmt: skip


def planted_logits(config: SyntheticConfig, start: int, stop: int) -> np.ndarray:
    """float64 logits of the probabilities from which the labels of the inputs ``[start, stop)`` were drawn."""
    log = SyntheticLog(config)
    chunks = range(start // CHUNK_INPUTS, -(-stop // CHUNK_INPUTS))
    probabilities = np.concatenate([log.chunk(index).probabilities for index in chunks])
    probabilities = probabilities[start - chunks[0] * CHUNK_INPUTS :][: stop - start]
    return np.log(probabilities) - np.log1p(-probabilities)


def linear_features(log: fae.ColumnarLog) -> Any:
    """Sparse ``[inputs, ids + dense]``: one column an id and one a dense feature, these standardised."""
    import scipy.sparse

    dense = np.asarray(log.dense)
    training = dense[: log.split("train")[1]]
    dense = (dense - training.mean(0)) / np.maximum(training.std(0), 1e-6)
    num_ids, num_rows = int(log.table_offsets[-1]), len(dense)
    ids = np.asarray(log.ids) + log.table_offsets[:-1].astype(np.int32)
    places = np.broadcast_to(np.arange(num_ids, num_ids + dense.shape[1], dtype=np.int32), dense.shape)
    columns = np.concatenate([ids, places], axis=1)
    values = np.concatenate([np.ones(ids.shape, np.float32), dense.astype(np.float32)], axis=1)
    ends = np.arange(num_rows + 1, dtype=np.int32) * columns.shape[1]
    shape = (num_rows, num_ids + dense.shape[1])
    return scipy.sparse.csr_matrix((values.reshape(-1), columns.reshape(-1), ends), shape=shape)


def baseline(prepared: Prepared, name: str, seed: int) -> dict[str, Any]:
    """The cell of one of `BASELINES`."""
    log, config = prepared.log_of(seed)
    labels, splits = np.asarray(log.labels), {name: log.split(name) for name in ("train", "validation", "test")}
    facts: dict[str, Any] = {}

    def scores(split: str, logits: np.ndarray) -> Scores:
        metrics = compute_metrics(labels[slice(*splits[split])].astype(np.float32), logits)
        return {"auc": metrics.auc, "log_loss": metrics.log_loss}

    if name == "logistic":
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        matrix, models = linear_features(log), {}
        part = slice(*splits["train"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for strength in STRENGTHS:
                models[strength] = LogisticRegression(C=strength, max_iter=100).fit(matrix[part], labels[part])
        held_out = {
            (strength, split): model.decision_function(matrix[slice(*splits[split])]).astype(np.float64)
            for strength, model in models.items() for split in ("validation", "test")
        }  # fmt: skip
        best = min(STRENGTHS, key=lambda strength: scores("validation", held_out[strength, "validation"])["log_loss"])
        logits, facts = {split: held_out[best, split] for split in ("validation", "test")}, {"C": best}
    elif name == "planted":
        if config is None:
            raise SystemExit("only a synthetic log has planted probabilities")
        logits = {split: planted_logits(config, *splits[split]) for split in ("validation", "test")}
    else:
        rate = float(labels[slice(*splits["train"])].mean())
        logit = np.log(rate / (1 - rate))
        logits = {split: np.full(splits[split][1] - splits[split][0], logit) for split in ("validation", "test")}
    found = {split: scores(split, values) for split, values in logits.items()}
    return {"inputs": splits["train"][1], "curve": [], "diverged": False, **found, **facts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=tuple(WORKLOADS))
    parser.add_argument("--seeds", type=int, help="default: the workload's")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--orders", nargs="+", choices=(*ORDERS, *BASELINES), help="default: the workload's")
    parser.add_argument("--inputs", type=int, help="inputs of the synthetic log, to try things out")
    parser.add_argument("--scale", type=float, help="with --inputs: rows of its large tables, 1 for the paper's number")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--until", type=float, default=0.0, metavar="SECONDS", help="start no cell after")
    parser.add_argument("--folder", type=Path, help="for logs and batches (default: one in the temporary folder)")
    parser.add_argument("--name", help="of the result file (default: accuracy_WORKLOAD)")
    parser.add_argument("--out", type=Path, help="the result file, where it is not in benchmarks/results")
    options = parser.parse_args()
    workload = WORKLOADS[options.workload]
    # Both batch sizes of RMC2 share a log; every pair of packed forms beside it takes 13 GB.
    folder = options.folder or Path(tempfile.gettempdir()) / f"fae_accuracy_{options.workload.removesuffix('-32k')}"
    prepared = Prepared(workload, folder, options)
    out = options.out or RESULTS / f"{options.name or 'accuracy_' + options.workload.replace('-', '_')}.json"
    cells = open_cells(
        out, {"workload": options.workload, **prepared.settings()}, until_seconds=options.until,
        before_saving=lambda record: record.update(summary=summarise(record["cells"].values())),
    )  # fmt: skip
    for seed in range(options.first_seed, options.first_seed + (options.seeds or workload.seeds)):
        for order in options.orders or workload.orders:
            if f"{order}/{seed}" in cells:
                continue
            if cells.late():
                print(f"stopped after {options.until:.0f} s; the same command continues", file=sys.stderr)
                return

            def work(order: str = order, seed: int = seed) -> dict[str, Any]:
                is_baseline = order in BASELINES
                cell = baseline(prepared, order, seed) if is_baseline else one_training(
                    prepared, order, seed, options.device
                )  # fmt: skip
                return {"order": order, "seed": seed, **cell, "machine": cells.record["machine"]}

            test = measured(cells, f"{order}/{seed}", work)["test"]
            print(f"seed {seed} {order:20} test AUC {test['auc'] or math.nan:.5f} log loss "
                  f"{test['log_loss'] or math.nan:.5f}", file=sys.stderr, flush=True)  # fmt: skip
        if workload.new_log:
            shutil.rmtree(folder / f"seed{seed}", ignore_errors=True)
    print_accuracy(cells.record)


if __name__ == "__main__":
    main()
