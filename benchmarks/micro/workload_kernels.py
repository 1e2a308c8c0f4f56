"""A step of one of the paper's workloads on a GPU, kernel by kernel, compiled and not, in bf16 and fp32. JSON.

    python benchmarks/micro/workload_kernels.py rmc1 [--batch-size 256] [--folder runs/bench_rmc1] [--out FILE]

Placement `device`, so the step alone counts; log and packed batches are those of `fae bench paper` in the same folder
(made there where they are missing). Forms take turns. Batches of 256 are bound by launches: look at the number of
kernels first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import torch

from fae.bench.config import BenchConfig
from fae.bench.contenders import OurContender
from fae.bench.preparation import Preparation
from fae.bench.workloads import WORKLOADS
from speed import interleaved_runs, kernel_table

from common import RESULTS, record

FORMS = {
    f"{precision}{', compiled' if compiled else ''}": {"precision": precision, "compiled": compiled}
    for precision in ("bf16", "fp32")
    for compiled in (False, True)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--batch-size", type=int, default=0, help="default: the paper's")
    parser.add_argument("--inputs", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--folder", type=Path, help="of `fae bench paper` (default: runs/bench_<workload>)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sizes = (options.batch_size,) if options.batch_size else ()
    config = BenchConfig(
        workload=options.workload, num_inputs=options.inputs, scale=options.scale, batch_sizes=sizes
    )  # fmt: skip
    size = options.batch_size or config.sizes()[0]
    prepared = Preparation(config, options.folder or Path("runs") / f"bench_{options.workload}")
    hot_set, packed = prepared.packed("own", size)
    contenders = {
        name: OurContender(
            packed, hot_set, "device" if options.device == "cuda" else "cpu", model=prepared.model,
            optimizer=prepared.optimizer, learning_rate=float(prepared.workload.train["learning_rate"]),
            device=options.device, **FORMS[name],
        )
        for name in options.forms
    }  # fmt: skip
    samples = interleaved_runs(contenders, dict.fromkeys(contenders, options.steps), options.rounds, print)
    rows = []
    for name, seconds in samples.items():
        kernels = kernel_table(contenders[name], 40) if options.device == "cuda" else []
        calls, total = (sum(kernel[key] for kernel in kernels) for key in ("calls_a_step", "microseconds_a_step"))
        step = 1e6 * statistics.median(seconds)
        print(f"{options.workload} B={size} {name:16} {step:.0f} us a step; {calls:.0f} kernels, {total:.0f} us")
        for kernel in kernels[:20]:
            print(f"  {kernel['microseconds_a_step']:8.1f} us {kernel['calls_a_step']:5.1f} x {kernel['kernel'][:90]}")
        rows.append({"form": name, "batch_size": size, "seconds_a_step": seconds, "kernels": kernels})
    out = options.out or RESULTS / f"workload_kernels_{options.workload}.json"
    out.write_text(json.dumps(record(torch_version=torch.__version__, rows=rows), indent=1) + "\n")


if __name__ == "__main__":
    main()
