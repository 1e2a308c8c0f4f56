"""The step on a GPU, kernel by kernel: microseconds and calls of each, and the rate of whole steps.

    python benchmarks/gpu_step.py dlrm [--inputs 1000000] [--shares 0.05] [--optimizers sgd] [--out FILE]
    python benchmarks/gpu_step.py rmc1 [--batch-sizes 256] [--folder runs/bench_rmc1] [--out FILE]

``dlrm``: where does a step of `device` and of `tiered` spend its time? DLRM 13-512-256-64-16 / 512-256-1 over Criteo
Kaggle's tables (33.8 M rows), bf16 dense part. Writes benchmarks/results/gpu_step.json. ``rmc1`` to ``rmc3``: the same
of one of the paper's workloads at `device`, compiled and not, in bf16 and fp32; log and packed batches are those of
`fae bench paper` in the same folder. Batches of 256 are bound by launches: look at the number of kernels first. Writes
benchmarks/results/workload_kernels_<workload>.json. Contenders take turns.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

from fae.bench.config import BenchConfig
from fae.bench.contenders import OurContender
from fae.bench.preparation import Preparation
from fae.bench.workloads import WORKLOADS

from common import KAGGLE_ROWS, RESULTS, capped_rows, hot_set, open_log, packed_log, record, save_record, working_folder
from contenders import OurPlacement, interleaved_runs, kernel_table

FORMS = {
    f"{precision}{', compiled' if compiled else ''}": {"precision": precision, "compiled": compiled}
    for precision in ("bf16", "fp32")
    for compiled in (False, True)
}


def say_kernels(contender: Any, on_gpu: bool) -> list[dict[str, Any]]:
    """The kernels of a step; the longest are printed."""
    kernels = kernel_table(contender, 40) if on_gpu else []
    calls, total = (sum(kernel[key] for kernel in kernels) for key in ("calls_a_step", "microseconds_a_step"))
    print(f"  {calls:.0f} kernels, {total:.1f} us in all", flush=True)
    for kernel in kernels[:28]:
        print(f"  {kernel['microseconds_a_step']:8.1f} us {kernel['calls_a_step']:5.1f} x {kernel['kernel'][:90]}")
    return kernels


def dlrm_group(log: Any, batch_size: int, optimizer: str, options: Any, folder: Path) -> list[dict]:
    """`device` and `tiered` at every share."""
    contenders: dict[str, OurPlacement] = {}
    dim, on_gpu = options.dim, options.device == "cuda"
    for share in options.shares:
        hot = hot_set(log, share, dim=dim, batch_size=batch_size, mixed=True, optimizer=optimizer)
        packed = packed_log(log, hot, folder)
        for placement in ("device", "tiered"):
            if placement == "tiered" or "device" not in contenders:
                where = placement if on_gpu or placement == "tiered" else "cpu"
                contenders[placement if placement == "device" else f"tiered {share}"] = OurPlacement(
                    packed, hot, where, dim=dim, optimizer=optimizer, device=options.device,
                    precision="bf16" if on_gpu else "fp32",
                )  # fmt: skip
    samples = interleaved_runs(contenders, dict.fromkeys(contenders, options.steps), options.rounds)
    rows = []
    for name, seconds in samples.items():
        rate = batch_size / statistics.median(seconds)
        print(f"{log.path.name} B={batch_size} D={dim} {optimizer} {name}: {rate / 1e6:.2f} M inputs/s", flush=True)
        parts = {}
        for part in ("run_without_steps", "run_graph") if on_gpu else ():
            call = getattr(contenders[name], part)
            call(20)
            parts[part] = statistics.median(call(options.steps // 4) / (options.steps // 4) for _ in range(3))
            print(f"  {part}, us a step: {1e6 * parts[part]:.0f}", flush=True)
        rows.append(
            {"log": log.path.name, "placement": name, "batch_size": batch_size, "dim": dim, "optimizer": optimizer,
             "samples_per_second": rate, "samples": [batch_size / each for each in seconds], "seconds_alone": parts,
             "kernels": say_kernels(contenders[name], on_gpu)}
        )  # fmt: skip
    return rows


def measure_dlrm(options: Any) -> list[dict[str, Any]]:
    """Every optimizer at every batch size."""
    with working_folder(options.folder) as folder:
        log = open_log(options.log, folder, options.inputs or 1_000_000, capped_rows(options.cap))
        every = [(size, optimizer) for size in options.batch_sizes or [32768] for optimizer in options.optimizers]
        return [row for each in every for row in dlrm_group(log, *each, options, folder)]


def measure_workload(options: Any) -> list[dict[str, Any]]:
    """One of the paper's workloads in every form."""
    sizes = tuple(options.batch_sizes or ())
    config = BenchConfig(
        workload=options.what, num_inputs=options.inputs, scale=options.scale, batch_sizes=sizes
    )  # fmt: skip
    size = sizes[0] if sizes else config.sizes()[0]
    prepared = Preparation(config, options.folder or Path("runs") / f"bench_{options.what}")
    hot, packed = prepared.packed("own", size)
    on_gpu = options.device == "cuda"
    contenders = {
        name: OurContender(
            packed, hot, "device" if on_gpu else "cpu", model=prepared.model, optimizer=prepared.optimizer,
            learning_rate=float(prepared.workload.train["learning_rate"]), device=options.device, **FORMS[name],
        )
        for name in options.forms
    }  # fmt: skip
    samples = interleaved_runs(contenders, dict.fromkeys(contenders, options.steps), options.rounds)
    rows = []
    for name, seconds in samples.items():
        print(f"{options.what} B={size} {name:16} {1e6 * statistics.median(seconds):.0f} us a step")
        kernels = say_kernels(contenders[name], on_gpu)
        rows.append({"form": name, "batch_size": size, "seconds_a_step": seconds, "kernels": kernels})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("dlrm", *WORKLOADS))
    parser.add_argument("--inputs", type=int, default=0, help="default: 1 M, or the workload's")
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="default: 32,768, or the paper's")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=None)
    dlrm = parser.add_argument_group("dlrm")
    dlrm.add_argument("--log", choices=("zipf", "criteo"), default="zipf")
    dlrm.add_argument("--dim", type=int, default=16)
    dlrm.add_argument("--shares", type=float, nargs="+", default=[0.05])
    dlrm.add_argument("--optimizers", nargs="+", default=["sgd"])
    dlrm.add_argument("--cap", type=int, default=max(KAGGLE_ROWS), help="rows of a table at most")
    workload = parser.add_argument_group("workloads")
    workload.add_argument("--scale", type=float, default=1.0)
    workload.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS))
    options = parser.parse_args()
    is_dlrm = options.what == "dlrm"
    rows = measure_dlrm(options) if is_dlrm else measure_workload(options)
    name = "gpu_step" if is_dlrm else f"workload_kernels_{options.what}"
    save_record(options.out or RESULTS / f"{name}.json", record(torch_version=torch.__version__, rows=rows))


if __name__ == "__main__":
    main()
