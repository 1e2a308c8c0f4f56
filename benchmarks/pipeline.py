"""Where the streaming pipeline waits: steps, transfers and rows on the host, each alone and together.

    python benchmarks/pipeline.py [--shares 0.05 0.01] [--settings "depth 8"] [--folder DIR] [--out FILE] [--quick]

Which of the step, the transfers and the host bounds `tiered`? `device` (every row on the GPU) and `tiered` take turns;
a setting is the depth of the ring and how long a waiting worker yields and sleeps (us). Microseconds a step: of whole
runs, of transfers without steps, and of a replayed step alone; ``cpu`` is of all threads. Writes
benchmarks/results/gpu_pipeline.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from fae.streaming import workers

from common import KAGGLE_ROWS, RESULTS, capped_rows, hot_set, open_log, packed_log, record, save_record, working_folder
from contenders import OurPlacement

SETTINGS: dict[str, dict[str, Any]] = {
    "depth 4": {},
    "depth 6": {"depth": 6},
    "depth 8": {"depth": 8},
    "depth 16": {"depth": 16},
    "depth 8, sleep": {"depth": 8, "patience": (0, 32)},
    "depth 8, awake": {"depth": 8, "patience": (400, 8)},
}


def measure(log: Any, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Every share under every setting."""
    kind = {"dim": options.dim, "optimizer": options.optimizer, "device": options.device}
    results, device = [], None
    for share in options.shares:
        by_depth: dict[int, OurPlacement] = {}
        for depth in sorted({SETTINGS[setting].get("depth", 4) for setting in options.settings}):
            hot = hot_set(log, share, dim=kind["dim"], batch_size=options.batch_size, mixed=True, depth=depth)
            packed = packed_log(log, hot, folder)
            by_depth[depth] = OurPlacement(packed, hot, "tiered", **kind)
            by_depth[depth].run(20)
            if device is None:
                device = OurPlacement(packed, hot, "device" if options.device == "cuda" else "cpu", **kind)
                device.run(20)
        for setting in options.settings:
            ours = by_depth[SETTINGS[setting].get("depth", 4)]
            results.append({"share": share, "setting": setting, **facts_of(ours, device, setting, options)})
            print(results[-1], flush=True)
    return results


def facts_of(ours: OurPlacement, device: Any, setting: str, options: argparse.Namespace) -> dict[str, Any]:
    """Microseconds a step under one setting."""
    facts: dict[str, Any] = {}
    patience, steps = workers.PATIENCE, options.steps
    workers.PATIENCE = SETTINGS[setting].get("patience", patience)
    try:
        ours.run(8)
        for part in ("run_without_steps", "run"):
            used = time.process_time()
            seconds = [getattr(ours, part)(steps) / steps for _ in range(2)]
            facts[part] = round(1e6 * statistics.median(seconds))
            facts[f"cpu of {part}"] = round(1e6 * (time.process_time() - used) / (2 * steps))
        if options.device == "cuda":
            for part in ("run_without_steps", "run", "run_graph"):
                facts[f"device {part}"] = round(1e6 * getattr(device, part)(steps) / steps)
    finally:
        workers.PATIENCE = patience
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=4_000_000)
    parser.add_argument("--batch-size", type=int, default=32768)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--optimizer", default="sgd")
    parser.add_argument("--log", default="zipf")
    parser.add_argument("--cap", type=int, default=max(KAGGLE_ROWS), help="rows of a table at most")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.01])
    parser.add_argument("--settings", nargs="+", choices=tuple(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--folder", type=Path, default=None, help="for the log and packed batches, which stay there")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_pipeline.json")
    parser.add_argument("--quick", action="store_true", help="tiny, on the CPU: shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.inputs, options.batch_size, options.cap = 20_000, 512, 2000
        options.steps, options.device = 4, "cpu"
    with working_folder(options.folder) as folder:
        log = open_log(options.log, folder, options.inputs, capped_rows(options.cap))
        rows = measure(log, options, folder)
    save_record(options.out, record(torch_version=torch.__version__, rows=rows))


if __name__ == "__main__":
    main()
