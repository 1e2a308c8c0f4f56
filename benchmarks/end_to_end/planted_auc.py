"""How near training comes to the truth: the planted model of a Criteo-shaped log beside what is trained on it.

    python benchmarks/end_to_end/planted_auc.py [--inputs 500000 2000000] [--seeds 3] [--set section.key=value ...]
    python benchmarks/end_to_end/planted_auc.py --table [--name NAME]

A seed makes a log (`fae.synthetic.columnar_writer`, ``scale`` 0.01) and a training of it with the default recipe: DLRM,
tiered, interleaved, one epoch; only the budget is smaller (4 MiB), so that rows are cold. On the last tenth of the
inputs, which training never reads, the AUC and the log loss of

* the planted probabilities, from which the labels were drawn: no model can do better, but for chance;
* the trained model;
* a logistic regression (scikit-learn, one column an id and the dense features), its regularisation chosen on the
  validation split of the first seed of each size;
* the click rate of the training split, for everybody.

``planted_auc.json`` is of ``--set train.dense_learning_rate=0.02``, which was the default then; the same with today's
is ``--no-linear --name planted_auc_dense_rate``. Differences are paired by seed; intervals are 95 % Student-t over
seeds. Writes ``results/<name>.json``; ``--table`` prints the rows of the table in docs/guide/synthetic.md from it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import scipy.stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

import fae
from fae.checkpoint.save_load import read_progress
from fae.core.config import to_table
from fae.core.units import format_count
from fae.run.recipe import Recipe
from fae.synthetic.click_log import SyntheticLog
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.config import SyntheticConfig
from fae.synthetic.inputs import CHUNK_INPUTS
from fae.synthetic.text_writer import log_config
from fae.training.metrics import compute_metrics

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import RESULTS, record, save_record

STRENGTHS = (0.01, 0.03, 0.1)
METRICS = ("auc", "log_loss")
WHO = {
    "planted": "planted probabilities",
    "trained": "**trained DLRM**",
    "logistic": "logistic regression",
    "constant": "click rate of the training split",
}


def scores(labels: npt.NDArray[np.uint8], logits: npt.NDArray[np.float64]) -> dict[str, float | None]:
    """AUC and log loss of logits."""
    metrics = compute_metrics(labels.astype(np.float32), logits)  # type: ignore[arg-type]
    return {"auc": metrics.auc, "log_loss": metrics.log_loss}


def planted_logits(config: SyntheticConfig, start: int, stop: int) -> npt.NDArray[np.float64]:
    """Of the inputs ``[start, stop)``, float64, drawn again."""
    log = SyntheticLog(config)
    chunks = range(start // CHUNK_INPUTS, -(-stop // CHUNK_INPUTS))
    probabilities = np.concatenate([log.chunk(index).probabilities for index in chunks])
    probabilities = probabilities[start - chunks[0] * CHUNK_INPUTS :][: stop - start]
    return np.log(probabilities) - np.log1p(-probabilities)


def linear_features(log: fae.ColumnarLog) -> scipy.sparse.csr_matrix:
    """One column an id and one a dense feature, these standardised on the training split."""
    dense = np.asarray(log.dense)
    training = dense[: log.split("train")[1]]
    dense = (dense - training.mean(0)) / np.maximum(training.std(0), 1e-6)
    num_ids, num_rows = int(log.table_offsets[-1]), len(dense)
    ids = np.asarray(log.ids) + log.table_offsets[:-1].astype(np.int32)
    places = np.broadcast_to(np.arange(num_ids, num_ids + dense.shape[1], dtype=np.int32), dense.shape)
    columns = np.concatenate([ids, places], axis=1)
    values = np.concatenate([np.ones(ids.shape, np.float32), dense.astype(np.float32)], axis=1)
    ends = np.arange(num_rows + 1, dtype=np.int32) * columns.shape[1]
    return scipy.sparse.csr_matrix(
        (values.reshape(-1), columns.reshape(-1), ends), shape=(num_rows, num_ids + dense.shape[1])
    )


def fit_linear(matrix: Any, labels: npt.NDArray[np.uint8], strength: float) -> LogisticRegression:
    """A logistic regression of L2 penalty 1 / `strength`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=100).fit(matrix, labels)


def logistic_regression(log: fae.ColumnarLog, strength: float | None) -> dict[str, Any]:
    """Its test scores; None chooses the strength on the validation split."""
    matrix, labels = linear_features(log), np.asarray(log.labels)
    (_, train_stop), (first, last), (start, stop) = (log.split(name) for name in ("train", "validation", "test"))
    tried: dict[float, float] = {}
    models = {}
    for candidate in STRENGTHS if strength is None else (strength,):
        models[candidate] = fit_linear(matrix[:train_stop], labels[:train_stop], candidate)
        logits = models[candidate].decision_function(matrix[first:last]).astype(np.float64)
        tried[candidate] = float(scores(labels[first:last], logits)["log_loss"] or 0)
    best = min(tried, key=lambda candidate: tried[candidate])
    logits = models[best].decision_function(matrix[start:stop]).astype(np.float64)
    return {**scores(labels[start:stop], logits), "C": best, "validation_log_loss": tried}


def one_seed(
    num_inputs: int, seed: int, folder: Path, options: argparse.Namespace, strength: float | None
) -> dict[str, Any]:
    """Make a log, train on it, and score everybody on its test split."""
    config = SyntheticConfig(num_inputs=num_inputs, scale=options.scale, seed=seed)
    write_columnar(config, folder / "log")
    # The recipe names a text that is not there: no stage behind ingest looks for it.
    tables: dict[str, dict[str, Any]] = {
        "log": {"train": "log.tsv", "format": log_config(config, "log.tsv").format},
        "hot": {"budget": "4MiB", "ring_depth": 4},
        "train": {"seed": seed},
    }
    for override in options.overrides:
        key, value = override.split("=", 1)
        section, name = key.split(".")
        tables.setdefault(section, {})[name] = json.loads(value) if value[:1] in "0123456789[" else value
    recipe: Recipe = fae.parse_recipe(tables, base=folder)
    run = fae.RunFolder(recipe, folder, device="cpu")
    started = time.perf_counter()
    for stage in ("profile", "calibrate", "pack", "train"):
        run.stage(stage)
    seconds = time.perf_counter() - started
    log, result = fae.ColumnarLog(folder / "log"), read_progress(run.path("train"))["result"]
    start, stop = log.split("test")
    labels, training = np.asarray(log.labels[start:stop]), np.asarray(log.labels[: log.split("train")[1]])
    rate = float(training.mean())
    hot = run.open_packed().manifest.summary
    return {
        "inputs": num_inputs,
        "seed": seed,
        "num_test_inputs": stop - start,
        "rows": int(log.table_offsets[-1]),
        "planted": scores(labels, planted_logits(config, start, stop)),
        "trained": {metric: result["test"][metric] for metric in METRICS},
        **({"logistic": logistic_regression(log, strength)} if options.linear else {}),
        "constant": scores(labels, np.full(stop - start, np.log(rate / (1 - rate)))),
        "hot": {"input_share": hot["input_share"], "coverage": hot["coverage"]},
        "train_seconds": result["train"]["seconds"],
        "stages_seconds": seconds,
        "recipe": {name: to_table(getattr(recipe, name)) for name in ("model", "hot", "train")},
        "summary": {key: value for key, value in asdict(config).items() if key != "seed"},
    }


def interval(values: list[float]) -> dict[str, float]:
    """Mean and half width of the 95 % interval."""
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return {"mean": float(np.mean(values)), "half_width": float(half)}


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per number of inputs: mean and interval of everybody, and of the differences to the planted probabilities."""
    rows = []
    for num_inputs in sorted({run["inputs"] for run in runs}):
        of_size = [run for run in runs if run["inputs"] == num_inputs]
        entry: dict[str, Any] = {"inputs": num_inputs, "seeds": len(of_size)}
        for who in (who for who in WHO if who in of_size[0]):
            entry[who] = {
                metric: interval([run[who][metric] for run in of_size])
                | {"to_planted": interval([run[who][metric] - run["planted"][metric] for run in of_size])}
                for metric in METRICS
            }
        rows.append(entry)
    return rows


def print_table(table: list[dict[str, Any]]) -> None:
    """As Markdown."""
    print("| inputs | | test AUC | below the planted | test log loss | above the planted |")
    print("|---|---|---|---|---|---|")
    for entry in table:
        for who, words in WHO.items():
            if who not in entry:
                continue
            auc, loss = entry[who]["auc"], entry[who]["log_loss"]
            cells = [f"{value['mean']:.4f} ± {value['half_width']:.4f}" for value in (auc, loss)]
            gaps = [
                "" if who == "planted" else f"{sign * gap['mean']:.4f} ± {gap['half_width']:.4f}"
                for sign, gap in ((-1, auc["to_planted"]), (1, loss["to_planted"]))
            ]
            size = format_count(entry["inputs"]) if who == "planted" else ""
            print(f"| {size} | {words} | {cells[0]} | {gaps[0]} | {cells[1]} | {gaps[1]} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, nargs="+", default=[500_000, 2_000_000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=0.01)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--name", default="planted_auc", help="of the result file")
    parser.add_argument("--no-linear", action="store_false", dest="linear", help="leave the logistic regression out")
    parser.add_argument("--table", action="store_true", help="print the table of an earlier result")
    options = parser.parse_args()
    if options.table:
        print_table(json.loads((RESULTS / f"{options.name}.json").read_text())["table"])
        return
    runs: list[dict[str, Any]] = []
    for num_inputs in options.inputs:
        strength = None
        for seed in range(1, options.seeds + 1):
            folder = Path(tempfile.mkdtemp(prefix="planted_auc_"))
            try:
                runs.append(one_seed(num_inputs, seed, folder, options, strength))
            finally:
                shutil.rmtree(folder)
            strength = runs[-1]["logistic"]["C"] if options.linear else None
            print({who: runs[-1][who] for who in WHO if who in runs[-1]}, runs[-1]["stages_seconds"], file=sys.stderr)
        table = summarise(runs)
        save_record(options.name, record(table=table, runs=runs))
    print_table(table)


if __name__ == "__main__":
    main()
