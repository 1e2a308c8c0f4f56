"""Where the streaming pipeline waits: whole steps, moves alone and the step alone, under several settings. JSON.

python benchmarks/micro/gpu_pipeline.py [--shares 0.05 0.01] [--log zipf] [--folder DIR] [--out FILE]

`device` (every row on the GPU) and `tiered` take turns; "as it is" has four slots; a setting is threads of a kind
(gather, scatter), slots of the ring, yields and longest sleep (us) of a lane that waits, or feeds through pinned
buffers. `waits` are the consumer's, for staging and for feeds; `cpu` is of all threads; all in microseconds a step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import torch

from fae.streaming import input_ring, workers
from fae.streaming.staging import WorkerCounts
from speed import OurPlacement, hot_set, open_log, packed_log

from common import KAGGLE_ROWS, RESULTS, record, working_folder

SETTINGS: dict[str, dict] = {
    "as it is": {},
    "feeds by lanes": {"smallest": 2**40},
    "2 2": {"lanes": (2, 2)},
    "4 4": {"lanes": (4, 4)},
    "sleep": {"patience": (0, 32)},
    "depth 6": {"depth": 6},
    "depth 8, 4 4": {"depth": 8, "lanes": (4, 4)},
    "depth 8": {"depth": 8},
    "depth 16": {"depth": 16},
    "depth 8, feeds by lanes": {"depth": 8, "smallest": 2**40},
    "depth 8, awake": {"depth": 8, "patience": (400, 8)},
    "depth 8, 6 6": {"depth": 8, "lanes": (6, 6)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=4_000_000)
    parser.add_argument("--batch-size", type=int, default=32768)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--optimizer", default="sgd")
    parser.add_argument("--log", default="zipf")
    parser.add_argument("--cap", type=int, default=max(KAGGLE_ROWS))
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.01])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_pipeline.json")
    options = parser.parse_args()
    results, patience, smallest = [], workers.PATIENCE, input_ring._SMALLEST_MAPPED
    kind = {"dim": options.dim, "optimizer": options.optimizer, "device": options.device}
    with working_folder(options.folder) as folder:
        log = open_log(options.log, folder, options.inputs, [min(rows, options.cap) for rows in KAGGLE_ROWS])
        device = None
        for share in options.shares:
            by_depth = {}
            for depth in sorted({SETTINGS[setting].get("depth", 4) for setting in ["as it is", *options.settings]}):
                hot = hot_set(log, share, dim=options.dim, batch_size=options.batch_size, mixed=True, depth=depth)
                packed = packed_log(log, hot, folder)
                by_depth[depth] = OurPlacement(packed, hot, "tiered", **kind)
                by_depth[depth].run(20)
                if device is None:
                    device = OurPlacement(packed, hot, "device", **kind)
                    device.run(20)
            print("share", share, "cold rows a batch", packed.summary["cold_rows_per_batch"], flush=True)
            for setting in options.settings:
                values = SETTINGS[setting]
                ours = by_depth[values.get("depth", 4)]
                pipeline, feeds = ours.embeddings._pipeline, ours.embeddings._gpu and ours.embeddings._gpu._feeds
                before = pipeline.counts
                if "lanes" in values:
                    gather, scatter = values["lanes"]
                    pipeline.counts = WorkerCounts(gather=gather, scatter=scatter)
                facts: dict[str, object] = {}
                workers.PATIENCE = values.get("patience", patience)
                input_ring._SMALLEST_MAPPED = values.get("smallest", smallest)
                ours.run(8)
                for part in ("run_feeds", "run"):
                    used = time.process_time()
                    seconds = [getattr(ours, part)(options.steps) / options.steps for _ in range(2)]
                    facts[part] = round(1e6 * statistics.median(seconds))
                    facts[f"cpu of {part}"] = round(1e6 * (time.process_time() - used) / (2 * options.steps))
                    waits = {"staging": pipeline.lanes.waited, "feed": feeds.source.waited if feeds else 0.0}
                    facts[f"waits of {part}"] = {k: round(1e6 * v / options.steps) for k, v in waits.items()}
                for part in ("run_feeds", "run", "run_graph"):
                    if options.device == "cuda":
                        facts[f"device {part}"] = round(1e6 * getattr(device, part)(options.steps) / options.steps)
                if options.device == "cuda":
                    for each, contender in (("tiered", ours), ("device", device)):
                        times = contender.run_timed(options.steps)
                        facts[f"{each} on the device"] = {k: round(1e6 * v) for k, v in times.items()}
                pipeline.counts, workers.PATIENCE = before, patience
                input_ring._SMALLEST_MAPPED = smallest
                results.append({"share": share, "setting": setting, **facts})
                print(f"{setting:12} {facts}", flush=True)
            del by_depth
    options.out.write_text(json.dumps(record(torch_version=torch.__version__, rows=results), indent=1) + "\n")


if __name__ == "__main__":
    main()
