"""How close the synthetic log comes to the real one: skew, hot-input share, drift, best AUC. Writes JSON.

    python benchmarks/micro/synthetic_shape.py [--out benchmarks/results/synthetic_shape.json]

The figures of the real log (79,335 Criteo Kaggle inputs) are constants below; the budget is a share of the rows that
the log accesses, and the hot set is the globally most frequent rows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from fae.data.synthetic import SyntheticConfig, SyntheticLog, write_criteo_tsv
from fae.data.synthetic_columns import COLUMNS
from fae.data.synthetic_inputs import CHUNK_INPUTS

NUM_INPUTS = 79_335
BUDGETS = (0.01, 0.05, 0.10, 0.20)
REAL = {
    "hot_input_share": [0.035, 0.20, 0.33, 0.46],
    "columns_shuffled": [0.0001, 0.004, 0.020, 0.068],
    "first_10000_inputs_at_10_percent": 0.109,
    "first_59500_at_10_percent": 0.294,
    "next_19835_with_that_hot_set": 0.258,
}


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
    config = SyntheticConfig(num_inputs=NUM_INPUTS, scale=scale, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        summary = write_criteo_tsv(config, Path(folder) / "log.tsv")
        seconds = time.perf_counter() - start
    log = SyntheticLog(config)
    ids = np.concatenate([log.chunk(index).ids for index in range(-(-NUM_INPUTS // CHUNK_INPUTS))])[:NUM_INPUTS]
    shuffled = np.random.default_rng(seed).permuted(ids, axis=0)
    return {
        "scale": scale,
        "seed": seed,
        "hot_input_share": hot_shares(ids),
        "columns_shuffled": hot_shares(shuffled),
        "first_10000_inputs_at_10_percent": hot_shares(ids[:10_000])[2],
        "first_59500_at_10_percent": hot_shares(ids[:59_500])[2],
        "next_19835_with_that_hot_set": hot_shares(ids, train=59_500)[2],
        "distinct": {shape.name: len(np.unique(ids[:, column])) for column, shape in enumerate(COLUMNS)},
        "click_rate": summary.click_rate,
        "best_auc": summary.best_auc,
        "best_log_loss": summary.best_log_loss,
        "lines_per_second": NUM_INPUTS / seconds,
    }


def main() -> None:
    """Measure five seeds at two scales."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/synthetic_shape.json"))
    out = parser.parse_args().out
    runs = [measure(scale, seed) for scale in (1.0, 0.01) for seed in range(1, 6)]
    out.parent.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    source = {
        "command": "python benchmarks/micro/synthetic_shape.py",
        "commit": commit,
        "machine": {"architecture": platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }
    out.write_text(json.dumps({**source, "real": REAL, "budgets": BUDGETS, "runs": runs}, indent=1) + "\n")
    for run in runs:
        print({key: np.round(value, 4).tolist() for key, value in run.items() if key != "distinct"})


if __name__ == "__main__":
    main()
