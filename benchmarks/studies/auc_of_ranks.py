"""Test AUC of several GPUs less that of one: the same log, the same batches of all ranks together, the same seeds.

    python benchmarks/studies/auc_of_ranks.py [--ranks 1 2 4] [--seeds 3] [--inputs N] [--folder DIR] [--out FILE]

Does a training by several GPUs lose accuracy? W ranks sum gradients in another order than one does, and no two orders
round alike, so the answer is a difference, paired by seed. The log is synthetic, of Criteo's shape, its truth planted;
a tenth of it is for the test. Every training is a `fae run` of its own; the first of a seed makes its packed batches.
With ``--device cpu`` ranks are processes. Fewer inputs differ by more: rounding alone moves the AUC of 6,000 test
inputs by 0.0005. Writes benchmarks/results/auc_of_ranks.json after each training and continues it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import ROOT, made_once, working_folder
from study import measured, open_cells

LIMIT = 0.0003
"""A paired difference of this much or less is none, on a test split of two million inputs."""


def fae(*words: str) -> None:
    """Run a command; it ends this script where it fails."""
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run([sys.executable, "-m", "fae", *words], env=environment)
    if done.returncode:
        raise SystemExit(done.returncode)


def train(folder: Path, ranks: int, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train by that many ranks; the test metrics, the rate and how ranks exchanged."""
    settings = {
        "train.seed": seed, "train.placement": options.placement, "train.batch_size": options.batch_size,
        "train.precision": options.precision, "train.validate_batches": 0, "hot.budget": options.budget,
    }  # fmt: skip
    words = [f"{name}={value}" for name, value in settings.items()]
    sets = [word for each in words for word in ("--set", each)]
    where = ["--device", options.device, *(["--gpus", str(ranks)] if ranks > 1 else [])]
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)  # a finished training counts for any number of ranks
    fae("run", str(folder / "recipe.toml"), "--out", str(folder), "--quiet", *where, *sets)
    record = json.loads((folder / "run.json").read_text())
    told = record["train"]
    if told["ranks"] != ranks:
        raise SystemExit(f"{told['ranks']} ranks have trained where {ranks} were wanted")
    return {
        "ranks": ranks, "wire": told["wire"], "seed": seed, "inputs_per_second": told["samples_per_second"],
        "test": {name: record["test"][name] for name in ("auc", "log_loss", "num_inputs")},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], metavar="W", help="the first is the base")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--inputs", type=int, default=20_000_000)
    parser.add_argument("--scale", type=float, default=1.0, help="of the tables; 1 is the published number of rows")
    parser.add_argument("--placement", default="tiered")
    parser.add_argument("--budget", default="256MiB")
    parser.add_argument("--batch-size", type=int, default=8192, help="of all ranks together")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--folder", type=Path, default=None, help="for the log and the run, which stay there")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    kinds = ("inputs", "scale", "placement", "budget", "batch_size", "precision", "device")
    cells = open_cells(options.out or "auc_of_ranks", {kind: getattr(options, kind) for kind in kinds})
    with working_folder(options.folder) as folder:
        run, size = folder / "run", {"inputs": options.inputs, "scale": options.scale}
        words = ["--inputs", str(options.inputs), "--scale", str(options.scale), "--columnar", "--out", str(run)]
        made_once(run, size, lambda: fae("synthetic", *words))
        for seed in range(1, options.seeds + 1):
            auc = {}
            for ranks in options.ranks:
                cell = measured(
                    cells, f"{ranks} ranks/seed {seed}", lambda ranks=ranks, seed=seed: train(run, ranks, seed, options)
                )
                auc[ranks] = cell["test"]["auc"]
            base = options.ranks[0]
            for ranks in options.ranks[1:]:
                less = auc[ranks] - auc[base]
                within = "within" if abs(less) <= LIMIT else "BEYOND"
                on = f"on {cell['test']['num_inputs']:,} test inputs"
                print(f"seed {seed}: AUC of {ranks} ranks less that of {base}: {less:+.5f}, {within} {LIMIT}, {on}")


if __name__ == "__main__":
    main()
