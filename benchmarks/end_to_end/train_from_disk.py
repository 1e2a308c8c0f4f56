"""All stages on a made-up log of Criteo's shape, timed: columnar log to trained model; the epoch beside the step alone.

    python benchmarks/end_to_end/train_from_disk.py [--inputs 20000000] [--device cuda] [--folder DIR] [--out FILE]

`fae profile`, `calibrate`, `pack` and `train` as the command line runs them, on a log that `fae synthetic --columnar`
made (Criteo Kaggle's cardinalities). JSON: seconds of each stage, samples a second of the epoch, test AUC, bytes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import torch

from fae.artifacts.packed import PackedDataset
from fae.run.folder import RunFolder
from fae.run.recipe import load_recipe
from fae.synthetic.columnar_writer import write_columnar
from fae.synthetic.config import SyntheticConfig
from speed import OurPlacement

from common import RESULTS, record

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
    """Samples a second of one captured step on one feed, again and again, and of an epoch without `Trainer`."""
    packed = PackedDataset(run.path("pack"))
    kind = {"dim": 16, "optimizer": options.optimizer, "device": options.device}
    ours = OurPlacement(packed, run.open_hot_set(), placement, **kind)
    ours.run(60)
    steps = len(ours._order)
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
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        started = time.perf_counter()
        log = folder / "made"
        write_columnar(
            SyntheticConfig(shape="criteo", num_inputs=options.inputs, scale=options.scale), log, ids="popularity"
        )
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
    options.out.write_text(
        json.dumps(record(torch_version=torch.__version__, inputs=options.inputs, rows=results), indent=1)
    )


if __name__ == "__main__":
    main()
