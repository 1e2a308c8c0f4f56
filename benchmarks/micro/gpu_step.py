"""The step on a GPU, kernel by kernel: what each takes, and the rate of whole steps, `device` and `tiered`.

    python benchmarks/micro/gpu_step.py [--inputs 1000000] [--batch-size 32768] [--shares 0.05] [--optimizers sgd]

DLRM 13-512-256-64-16 / 512-256-1 over Criteo Kaggle's tables (33.8 M rows), bf16 dense part. Writes
benchmarks/results/gpu_step.json (or --out).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import torch

from speed import OurPlacement, hot_set, interleaved_runs, kernel_table, open_log, packed_log

from common import KAGGLE_ROWS, RESULTS, record, working_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--logs", nargs="+", default=["zipf"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32768])
    parser.add_argument("--dims", type=int, nargs="+", default=[16])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05])
    parser.add_argument("--optimizers", nargs="+", default=["sgd"])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cap", type=int, default=max(KAGGLE_ROWS), help="rows of a table at most")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--no-capture", action="store_true")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_step.json")
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    results = []
    with working_folder(options.folder) as folder:
        for log_name in options.logs:
            log = open_log(log_name, folder, options.inputs, [min(rows, options.cap) for rows in KAGGLE_ROWS])
            for batch_size in options.batch_sizes:
                for dim in options.dims:
                    for optimizer in options.optimizers:
                        results += group(options, folder, log, batch_size, dim, optimizer)
    options.out.write_text(json.dumps(record(torch_version=torch.__version__, rows=results), indent=1))


def group(options, folder, log, batch_size, dim, optimizer) -> list[dict]:
    contenders = {}
    for share in options.shares:
        hot = hot_set(log, share, dim=dim, batch_size=batch_size, mixed=True, optimizer=optimizer)
        packed = packed_log(log, hot, folder)
        for placement in ("device", "tiered"):
            if placement == "tiered" or "device" not in contenders:
                contenders[placement if placement == "device" else f"tiered {share}"] = OurPlacement(
                    packed, hot, placement, dim=dim, optimizer=optimizer, device=options.device,
                    precision=options.precision, capture=not options.no_capture,
                )  # fmt: skip
    samples = interleaved_runs(contenders, dict.fromkeys(contenders, options.steps), options.rounds, print)
    rows = []
    for name, seconds in samples.items():
        rate = batch_size / statistics.median(seconds)
        print(f"{log.path.name} B={batch_size} D={dim} {optimizer} {name}: {rate / 1e6:.2f} M samples/s", flush=True)
        parts = {}
        if options.device == "cuda":
            for part in ("run_feeds", "run_graph") if not options.no_capture else ("run_feeds",):
                call = getattr(contenders[name], part)
                call(20)
                parts[part] = statistics.median(call(options.steps // 4) / (options.steps // 4) for _ in range(3))
            print("  alone, us a step:", {part: round(1e6 * value) for part, value in parts.items()}, flush=True)
        kernels = kernel_table(contenders[name], 40) if options.device == "cuda" else []
        for kernel in kernels[:28]:
            print(f"  {kernel['microseconds_a_step']:8.1f} us {kernel['calls_a_step']:5.1f} x {kernel['kernel'][:90]}")
        total = sum(kernel["microseconds_a_step"] for kernel in kernels)
        print(f"  {total:8.1f} us in all", flush=True)
        rows.append(
            {"log": log.path.name, "placement": name, "batch_size": batch_size, "dim": dim, "optimizer": optimizer,
             "samples_per_second": rate, "samples": [batch_size / each for each in seconds], "seconds_alone": parts,
             "kernels": kernels}
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
