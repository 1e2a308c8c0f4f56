"""All stages on a synthetic log of Criteo's shape, timed: columnar log to trained model, beside the step alone.

    python benchmarks/from_disk.py [--inputs 20000000] [--device cuda] [--folder DIR] [--out FILE] [--quick]

How long does a training take from disk to its test AUC, and does the epoch reach the speed of the step? `fae profile`,
`calibrate`, `pack` and `train` as the command line runs them, on a log that `fae synthetic --columnar` made (Criteo
Kaggle's cardinalities). Writes benchmarks/results/train_from_disk.json: seconds of each stage, inputs a second of the
epoch, test AUC, bytes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from fae.artifacts.packed import PackedDataset
from fae.run.folder import RunFolder
from fae.run.recipe import load_recipe
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.config import SyntheticConfig

from common import RESULTS, record, save_record
from contenders import OurPlacement

RECIPE = """
[log]
format = "criteo"
train = "log.tsv"
[model]
name = "dlrm"
[hot]
budget = "{budget}"
ring_depth = {ring_depth}
selection = "threshold"
[train]
batch_size = {batch_size}
optimizer = "{optimizer}"
learning_rate = 0.02
precision = "{precision}"
order = "{order}"
placement = "{placement}"
checkpoint_minutes = 0
"""


def step_alone(run: RunFolder, placement: str, options: argparse.Namespace) -> dict[str, float]:
    """Inputs a second of one captured step, replayed on one batch, and of an epoch without `Trainer`."""
    packed = PackedDataset(run.path("pack"))
    kind = {"dim": 16, "optimizer": options.optimizer, "device": options.device}
    ours = OurPlacement(packed, run.open_hot_set(), placement, **kind)
    ours.run(60)
    steps = packed.train.num_batches
    epochs = [ours.run(steps) for _ in range(3)]
    alone = [ours.run_graph(steps) for _ in range(3)]
    inputs = steps * options.batch_size
    return {
        "step_alone_samples_per_second": inputs / statistics.median(alone),
        "epoch_of_the_benchmark_samples_per_second": inputs / statistics.median(epochs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000_000)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=32768)
    parser.add_argument("--budget", default="128MiB")
    parser.add_argument("--ring-depth", type=int, default=6)
    parser.add_argument("--optimizer", default="rowwise_adagrad")
    parser.add_argument("--orders", nargs="+", default=["interleaved"])
    parser.add_argument("--placements", nargs="+", default=["tiered"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=RESULTS / "train_from_disk.json")
    parser.add_argument("--quick", action="store_true", help="tiny, on the CPU: shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.inputs, options.scale, options.batch_size, options.budget = 20_000, 0.01, 256, "2MiB"
        options.device = "cpu"
    results = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        started = time.perf_counter()
        log = folder / "made"
        write_columnar(SyntheticConfig(shape="criteo", num_inputs=options.inputs, scale=options.scale), log)
        seconds = {"synthetic": time.perf_counter() - started}
        print(seconds, flush=True)
        for order in options.orders:
            for placement in options.placements:
                facts = vars(options) | {"order": order, "placement": placement}
                facts["precision"] = "bf16" if options.device == "cuda" else "fp32"
                recipe_file = folder / f"{order}_{placement}.toml"
                recipe_file.write_text(RECIPE.format(**facts))
                out = folder / order
                out.mkdir(exist_ok=True)
                if not (out / "log").exists():
                    (out / "log").symlink_to(log)
                run = RunFolder(load_recipe(str(recipe_file)), out, device=options.device)
                rows = {}
                for stage in ("profile", "calibrate", "pack", "train"):
                    started = time.perf_counter()
                    found = run.stage(stage)
                    rows[stage] = {"seconds": time.perf_counter() - started, "skipped": found["skipped"]}
                    print(order, placement, stage, rows[stage], flush=True)
                result, hot = found["summary"], run.open_hot_set().summary
                alone = step_alone(run, placement, options) if options.device == "cuda" else {}
                results.append(
                    {"order": order, "placement": placement, "stages": {**seconds, **rows},
                     "samples_per_second": result["train"]["samples_per_second"],
                     "train_seconds": result["train"]["seconds"], "num_inputs": result["train"]["num_inputs"],
                     "test": result["test"], **alone, "device_bytes": result["train"]["device_bytes"],
                     "hot_set": {key: hot[key] for key in ("coverage", "input_share", "bytes", "staging_bytes")}}
                )  # fmt: skip
                print(json.dumps(results[-1]["test"]), results[-1]["samples_per_second"], flush=True)
    save_record(options.out, record(torch_version=torch.__version__, inputs=options.inputs, rows=results))


if __name__ == "__main__":
    main()
