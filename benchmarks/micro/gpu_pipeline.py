"""Where the streaming pipeline waits: whole steps and moves alone, under several settings. JSON.

python benchmarks/micro/gpu_pipeline.py [--shares 0.05 0.01] [--folder DIR] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import torch

import fae.embedding.gpu_transfer as gpu_transfer
import fae.embedding.pipeline as pipeline
from speed import OurPlacement, hot_set, open_log, packed_log

from common import KAGGLE_ROWS, RESULTS, record

SETTINGS = {
    "as it is": {},
    "switch interval 100 us": {"switch": 1e-4},
    "one thread a copy": {"min_rows": 10**9},
    "one thread a copy, 100 us": {"min_rows": 10**9, "switch": 1e-4},
    "one planner": {"planners": 1},
    "one feeder": {"feeders": 1},
    "depth 8": {"depth": 8},
    "depth 8, 100 us": {"depth": 8, "switch": 1e-4},
    "depth 8, one thread a copy, 100 us": {"depth": 8, "switch": 1e-4, "min_rows": 10**9},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2_000_000)
    parser.add_argument("--batch-size", type=int, default=32768)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.01])
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_pipeline.json")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        log = open_log("zipf", Path(name), options.inputs, KAGGLE_ROWS)
        for share in options.shares:
            by_depth = {}
            for depth in (4, 8):
                hot = hot_set(log, share, dim=16, batch_size=options.batch_size, mixed=True, depth=depth)
                packed = packed_log(log, hot, Path(name))
                by_depth[depth] = OurPlacement(packed, hot, "tiered", dim=16, optimizer="sgd", device="cuda")
                by_depth[depth].run(20)
            print("share", share, "cold rows a batch", packed.summary["cold_rows_per_batch"], flush=True)
            for setting, values in SETTINGS.items():
                ours = by_depth[values.get("depth", 4)]
                sys.setswitchinterval(values.get("switch", 0.005))
                gpu_transfer._MIN_ROWS = values.get("min_rows", 12_288)
                pipeline._PLANNERS = values.get("planners", 3)
                ours.embeddings._gpu._feeds._num_threads = values.get("feeders", 2)
                ours.run(12)
                facts = {}
                for part in ("run_feeds", "run"):
                    seconds = [getattr(ours, part)(options.steps) / options.steps for _ in range(2)]
                    facts[part] = round(1e6 * statistics.median(seconds))
                waits = Counter()
                for (_, stage), seconds in ours.embeddings._pipeline._worker.waited.items():
                    waits[stage] += round(1e6 * seconds / options.steps)
                results.append({"share": share, "setting": setting, **facts, "waits": dict(waits)})
                print(f"{setting:36} {facts} waits for {dict(waits)}", flush=True)
    options.out.write_text(json.dumps(record(torch_version=torch.__version__, rows=results), indent=1))


if __name__ == "__main__":
    main()
