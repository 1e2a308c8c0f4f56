"""How close the Criteo-shaped log comes to the real one, and how fast synthetic logs are made.

    python benchmarks/synthetic.py shape [--table]             docs/guide/synthetic.md; --table prints its tables
    python benchmarks/synthetic.py speed [--inputs 4000000] [--repeats 3] [--scale 1]

``shape``: skew per column, hot-input share, drift and best AUC of synthetic logs beside 79,335 inputs of Criteo Kaggle,
whose figures are in that file. The budget is a share of the rows that the log accesses, and the hot set is the
globally most frequent rows. A missing value counts as an id. Writes benchmarks/results/synthetic_shape.json.

``speed``: inputs a second straight into the columnar form, by shape, and peak memory; a sample is everything that
`write_columnar` does, checksums included. Writes benchmarks/results/synthetic_speed.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fae.core.progress import say
from fae.synthetic.click_log import ClickTally, SyntheticLog
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.config import SyntheticConfig
from fae.synthetic.inputs import CHUNK_INPUTS
from fae.synthetic.text_writer import write_text

from common import RESULTS, record, save_record

CASES = (
    ("criteo", "popularity"), ("criteo", "encoded"), ("zipf", "popularity"), ("avazu", "popularity"),
    ("taobao", "popularity"), ("criteo", "text"),
)  # fmt: skip
NUM_INPUTS = 79_335
BUDGETS = (0.01, 0.05, 0.10, 0.20)


class ColumnFigures(NamedTuple):
    """Figures of one column: distinct ids, and shares of the inputs, or of the ids (`singletons`)."""

    distinct: int
    missing: float
    top_1: float
    top_1_percent: float
    top_10_percent: float
    singletons: float


def describe_column(ids: np.ndarray) -> ColumnFigures:
    """The figures of a column of the synthetic log."""
    counts = np.sort(np.unique(ids, return_counts=True)[1])[::-1]
    shares = np.cumsum(counts) / len(ids)
    top_1_percent, top_10_percent = (shares[int(np.ceil(part * len(counts))) - 1] for part in (0.01, 0.1))
    return ColumnFigures(
        len(counts), float((ids < 0).mean()), float(shares[0]), float(top_1_percent), float(top_10_percent),
        float((counts == 1).mean()),
    )  # fmt: skip


def input_counts(ids: np.ndarray, train: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts of every accessed row (descending), and per input the count of its rarest row, both in ``ids[:train]``."""
    rarest = np.full(len(ids), np.iinfo(np.int64).max)
    counts = []
    for column in range(ids.shape[1]):
        _, inverse = np.unique(ids[:, column], return_inverse=True)
        count = np.bincount(inverse[:train], minlength=int(inverse.max()) + 1)
        rarest = np.minimum(rarest, count[inverse])
        counts.append(count[count > 0])
    return np.sort(np.concatenate(counts))[::-1], rarest


def hot_shares(ids: np.ndarray, train: int | None = None) -> list[float]:
    """Hot-input share per budget: of all inputs, or, with `train`, of the inputs behind the first `train`."""
    counts, rarest = input_counts(ids, train or len(ids))
    return [float((rarest[train or 0 :] > counts[int(budget * len(counts))]).mean()) for budget in BUDGETS]


def measure(scale: float, seed: int) -> dict[str, object]:
    """Everything about one log."""
    log, tally = SyntheticLog(SyntheticConfig(num_inputs=NUM_INPUTS, scale=scale, seed=seed)), ClickTally()
    chunks = [log.chunk(index) for index in range(-(-NUM_INPUTS // CHUNK_INPUTS))]
    ids = np.concatenate([chunk.ids for chunk in chunks])[:NUM_INPUTS]
    for chunk in chunks:
        tally.add(chunk.labels, chunk.probabilities)
    shuffled = np.random.default_rng(seed).permuted(ids, axis=0)
    summary = tally.summary(0)
    return {
        "scale": scale,
        "seed": seed,
        "hot_input_share": hot_shares(ids),
        "columns_shuffled": hot_shares(shuffled),
        "first_10000_inputs_at_10_percent": hot_shares(ids[:10_000])[2],
        "first_59500_at_10_percent": hot_shares(ids[:59_500])[2],
        "next_19835_with_that_hot_set": hot_shares(ids, train=59_500)[2],
        "columns": {column.name: describe_column(ids[:, index])._asdict() for index, column in enumerate(log.columns)},
        "click_rate": summary.click_rate,
        "best_auc": summary.best_auc,
        "best_log_loss": summary.best_log_loss,
    }


def tables(result: dict) -> str:
    """The tables of docs/guide/synthetic.md."""
    runs = [run for run in result["runs"] if run["scale"] == 1.0]

    def mean(*path: str | int) -> float:
        values = []
        for run in runs:
            for key in path:
                run = run[key]
            values.append(run)
        return float(np.mean(values))

    lines = ["| hot-input share, % | 1 % of the rows | 5 % | 10 % | 20 % |", "|---|---|---|---|---|"]
    names = {"hot_input_share": "log", "columns_shuffled": "log, each column shuffled"}
    for key, name in names.items():
        real, made = result["real"][key], [mean(key, index) for index in range(len(BUDGETS))]
        for what, shares in (("real", real), ("**synthetic**", made)):
            lines.append(" | ".join([f"| {what} {name}", *(f"{100 * share:.3g}" for share in shares)]) + " |")
    lines += ["", "| column | distinct ids | missing, % | top id, % | top 1 % of ids, % | top 10 %, % | seen once, % |",
              "|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, real in result["real_columns"].items():
        cells = [f"{real['distinct']:,} / {mean('columns', name, 'distinct'):,.0f}"]
        for key in ("missing", "top_1", "top_1_percent", "top_10_percent", "singletons"):
            cells.append(f"{100 * real[key]:.1f} / {100 * mean('columns', name, key):.1f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Every case, several times."""
    results = []
    for shape, ids in CASES:
        num_inputs = options.inputs // (8 if ids == "text" else 1)
        samples, cpu = [], []
        for _ in range(options.repeats):
            config = SyntheticConfig(shape=shape, num_inputs=num_inputs, scale=options.scale)
            with tempfile.TemporaryDirectory() as folder:
                start, cpu_start = time.perf_counter(), time.process_time()
                if ids == "text":
                    write_text(config, Path(folder) / "log")
                else:
                    write_columnar(config, Path(folder) / "log", ids=ids)
                samples.append(num_inputs / (time.perf_counter() - start))
                cpu.append(1e6 * (time.process_time() - cpu_start) / num_inputs)
        results.append(
            {"shape": shape, "ids": ids, "inputs": num_inputs, "inputs_per_second": samples,
             "cpu_microseconds_per_input": cpu}
        )  # fmt: skip
        say(f"{shape}, {ids}: {max(samples) / 1e6:.2f} M inputs/s, {min(cpu):.2f} us of CPU an input")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"scale": options.scale, "load_average": os.getloadavg(), "peak_memory_bytes": peak, "results": results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("shape", "speed"))
    parser.add_argument("--table", action="store_true", help="shape: print the tables from the committed result")
    parser.add_argument("--inputs", type=int, default=4_000_000, help="speed: of a log")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--quick", action="store_true", help="tiny, no file: shows that it runs")
    options = parser.parse_args()
    if options.table:
        print(tables(json.loads((RESULTS / "synthetic_shape.json").read_text())))
    elif options.what == "shape":
        runs = [measure(scale, seed) for scale in (1.0, 0.01) for seed in range(1, 2 if options.quick else 6)]
        earlier = json.loads((RESULTS / "synthetic_shape.json").read_text())  # has the figures of the real log
        real = {key: earlier[key] for key in ("real", "real_columns")}
        result = record(**real, budgets=BUDGETS, runs=runs)
        print(tables(result))
        if not options.quick:
            save_record("synthetic_shape", result)
    else:
        if options.quick:
            options.inputs, options.repeats, options.scale = 8000, 1, 0.01
        result = record(**speed(options))
        if not options.quick:
            save_record("synthetic_speed", result)


if __name__ == "__main__":
    main()
