"""Accuracy on a real log: three orders of batches on Frappe, several seeds, beside a logistic regression.

    python benchmarks/end_to_end/frappe_orders.py [--seeds 5] [--set section.key=value ...]

Runs ``recipes/frappe.toml`` with ``placement = "tiered"`` and ``order`` = interleaved, shuffled, adaptive; the last
20 % of the inputs are the test, looked at once a run. The logistic regression (scikit-learn, one column an id) takes
its regularisation from the validation split and is then fitted on training and validation together. Intervals are 95 %
Student-t over seeds; differences are paired by seed. JSON.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import scipy.sparse
import scipy.stats
from sklearn.linear_model import LogisticRegression

import fae
from fae.training.metrics import compute_metrics

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
from common import record, save_record  # noqa: E402

ORDERS = ("interleaved", "shuffled", "adaptive")


def interval(values: list[float]) -> dict[str, float]:
    """Mean and half width of the 95 % interval."""
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return {"mean": float(np.mean(values)), "half_width": float(half)}


def logistic_regression(log: fae.ColumnarLog) -> dict[str, float]:
    """Test AUC and log loss of a linear model over the ids, C chosen on the validation split."""
    ids = np.asarray(log.ids, np.int64) + log.table_offsets[:-1]
    rows = np.repeat(np.arange(len(ids)), ids.shape[1])
    matrix = scipy.sparse.csr_matrix((np.ones(ids.size), (rows, ids.reshape(-1))))
    labels = np.asarray(log.labels)
    (a, b), (c, d), (e, f) = (log.split(name) for name in ("train", "validation", "test"))

    def fit(stop: int, strength: float) -> LogisticRegression:
        return LogisticRegression(C=strength, max_iter=2000).fit(matrix[a:stop], labels[a:stop])

    def logits(model: LogisticRegression, start: int, stop: int) -> np.ndarray:
        return model.decision_function(matrix[start:stop])

    def score(model: LogisticRegression, start: int, stop: int) -> fae.training.metrics.Metrics:
        return compute_metrics(labels[start:stop].astype(np.float32), logits(model, start, stop).astype(np.float32))

    strengths = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    best = max(strengths, key=lambda strength: score(fit(b, strength), c, d).auc)
    test = score(fit(d, best), e, f)
    return {"C": best, "auc": test.auc, "log_loss": test.log_loss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--recipe", default=str(ROOT / "recipes/frappe.toml"))
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--name", default="frappe_orders", help="of the result file")
    options = parser.parse_args()
    runs: dict[str, list[dict]] = {order: [] for order in ORDERS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, options.seeds + 1):
            for order in ORDERS:
                recipe = fae.load_recipe(
                    options.recipe, [*options.overrides, f"train.order={order}", f"train.seed={seed}"]
                )
                run = fae.RunFolder(recipe, Path(folder), device="cpu")
                done = run.run()
                runs[order].append(
                    {
                        "seed": seed,
                        **{key: done["test"][key] for key in ("auc", "log_loss", "accuracy", "normalized_entropy")},
                        "epochs": done["train"]["epochs"],
                        "input_share": done["hot"]["input_share"],
                        "coverage": done["hot"]["coverage"],
                        "label_rate": done["pack"]["label_rate"],
                    }
                )
        linear = logistic_regression(fae.ColumnarLog(run.path("ingest")))
    table = {
        order: {metric: interval([entry[metric] for entry in entries]) for metric in ("auc", "log_loss")}
        for order, entries in runs.items()
    }
    paired = {
        f"{order} - shuffled": interval(
            [one["auc"] - other["auc"] for one, other in zip(runs[order], runs["shuffled"], strict=True)]
        )
        for order in ("interleaved", "adaptive")
    }
    for order, entry in table.items():
        print(f"{order:12} AUC {entry['auc']['mean']:.4f} ± {entry['auc']['half_width']:.4f}, log loss "
              f"{entry['log_loss']['mean']:.4f} ± {entry['log_loss']['half_width']:.4f}", file=sys.stderr)  # fmt: skip
    print(
        f"logistic     AUC {linear['auc']:.4f}, log loss {linear['log_loss']:.4f} (C = {linear['C']})", file=sys.stderr
    )
    for name, entry in paired.items():
        print(f"{name}: {entry['mean']:+.5f} ± {entry['half_width']:.5f}", file=sys.stderr)
    save_record(
        options.name,
        record(
            recipe={name: fae.core.config.to_table(getattr(recipe, name)) for name in ("log", "model", "hot", "train")},
            table=table, paired_auc_difference=paired, logistic_regression=linear, runs=runs,
        ),
    )  # fmt: skip


if __name__ == "__main__":
    main()
