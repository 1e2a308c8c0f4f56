"""The step on a GPU, kernel by kernel: what each takes, and how near it is to what the device could do.

    python benchmarks/gpu_step.py dlrm [--inputs 1000000] [--shares 0.05] [--optimizers sgd] [--out FILE]
    python benchmarks/gpu_step.py rmc1 [--batch-sizes 256] [--folder runs/bench_rmc1] [--out FILE]
    python benchmarks/gpu_step.py parts [--file benchmarks/results/gpu_step_h100.json] [--placement device]

``dlrm``: where does a step of `device` and of `tiered` spend its time? DLRM 13-512-256-64-16 / 512-256-1 over Criteo
Kaggle's tables (33.8 M rows), bf16 dense part. Writes benchmarks/results/gpu_step.json. ``rmc1`` to ``rmc3``: the same
of one of the paper's workloads at `device`, compiled and not, in bf16 and fp32; log and packed batches are those of
`fae bench paper` in the same folder. Batches of 256 are bound by launches: look at the number of kernels first. Writes
benchmarks/results/workload_kernels_<workload>.json. Contenders take turns.

``parts`` measures nothing: it prints, from a result of ``dlrm``, a table of the parts of a step beside their ceilings.
Bytes and operations are counted by hand, each operand once, and lookups of rows as if none was in a cache. Ceilings:
4.03 TB/s on an H200 and 2.96 TB/s on an H100 (a copy, measured), and 989 TFLOP/s (bfloat16, data sheet). The ideal time
is the larger of the two.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from contenders import OurPlacement, interleaved_runs, kernel_table
from fae.bench.config import BenchConfig
from fae.bench.contenders import OurContender
from fae.bench.preparation import Preparation
from fae.bench.workloads import WORKLOADS

from common import KAGGLE_ROWS, RESULTS, capped_rows, hot_set, open_log, packed_log, record, save_record, working_folder

BYTES_A_SECOND = {"H200": 4.03e12, "H100 80GB HBM3": 2.96e12}
OPERATIONS_A_SECOND = 989e12
FEATURES, DIM, PADDED_DENSE, JOINED = 26, 16, 16, 368
BOTTOM = [(PADDED_DENSE, 512), (512, 256), (256, 64), (64, DIM)]
TOP = [(JOINED, 512), (512, 256)]
HALF, FULL = 2, 4  # bytes of bfloat16 and float32
UNIQUE_ROWS_AN_INPUT = 4.0
"""Rows that a batch of 32,768 touches, over its inputs: independent Zipf 1.05 columns, Criteo's cardinalities."""
FORMS = {
    f"{precision}{', compiled' if compiled else ''}": {"precision": precision, "compiled": compiled}
    for precision in ("bf16", "fp32")
    for compiled in (False, True)
}


@dataclass(frozen=True)
class Part:
    """Kernels whose names hold one of `names` (and none of `but`), and the bytes and operations that an input needs."""

    what: str
    names: tuple[str, ...]
    bytes_an_input: float
    operations_an_input: float = 0.0
    but: tuple[str, ...] = ()

    def holds(self, kernel: str) -> bool:
        """Whether a kernel belongs here."""
        return any(name in kernel for name in self.names) and not any(name in kernel for name in self.but)


def products(layers: list[tuple[int, int]], operands: int) -> tuple[float, float]:
    """Bytes and operations an input of one product a layer; `operands` of 2 or 3 matrices of B rows."""
    moved = sum(HALF * (a + b if operands == 2 else 2 * a + b) for a, b in layers)
    return moved, sum(2.0 * a * b for a, b in layers)


def parts() -> list[Part]:
    """All of a step; a kernel counts for the first part that holds it."""
    rows = FEATURES * (DIM * FULL + 4)
    row_gradients = FEATURES * DIM * HALF
    pairs = 2.0 * (FEATURES + 1) ** 2 * DIM
    return [
        Part("forward products, with bias and ReLU", ("relubias",), *products(BOTTOM + TOP, 2)),
        Part("gradients of weights", ("splitK",), *products(BOTTOM + TOP, 2)),
        Part("gradients of inputs through ReLU", ("_masked_product",), *products([*BOTTOM[1:], TOP[1]], 3)),
        Part("gradient of the joined vectors", ("_NNN",), *products(TOP[:1], 2)),
        Part("lookup and dot interaction", ("_forward_kernel",), rows + HALF * (DIM + JOINED), pairs),
        Part(
            "lookup and interaction, backward", ("_backward_kernel",),
            rows + row_gradients + HALF * (2 * DIM + JOINED), pairs, but=("logit", "relu"),
        ),
        Part(
            "sums of rows' gradients, update", ("_block_sums", "_long_rows"),
            row_gradients + FEATURES * 4 + UNIQUE_ROWS_AN_INPUT * (2 * DIM * FULL + 8),
        ),
        Part(
            "last layer, loss, their gradients", ("_logit", "_loss"),
            HALF * 256 * 3 + 5 * FULL, 6.0 * 256,
        ),
        Part("ReLU backward of the bottom's end", ("_relu_backward",), HALF * 3 * DIM),
        Part("dense input to bfloat16", ("bfloat16_copy",), 13 * FULL + PADDED_DENSE * HALF),
        Part("biases, dense weights, fills", ("_sum_parts", "_dense_update", "Memset", "FillFunctor"), 0.0),
    ]  # fmt: skip


def rows_of(kernels: list[dict[str, Any]], batch_size: int, bytes_a_second: float) -> list[dict[str, Any]]:
    """One row a part: microseconds, megabytes, billions of operations, ideal microseconds."""
    table = [
        {"part": part.what, "us": 0.0, "mb": part.bytes_an_input * batch_size / 1e6,
         "gop": part.operations_an_input * batch_size / 1e9}
        for part in parts()
    ]  # fmt: skip
    for kernel in kernels:
        for part, row in zip(parts(), table, strict=True):
            if part.holds(kernel["kernel"]):
                row["us"] += kernel["microseconds_a_step"]
                break
        else:
            if "Memcpy" not in kernel["kernel"]:
                raise SystemExit(f"no part holds the kernel {kernel['kernel']}")
    for row in table:
        row["ideal"] = max(row["mb"] * 1e12 / bytes_a_second, row["gop"] * 1e15 / OPERATIONS_A_SECOND)
    return table


def print_parts(options: argparse.Namespace) -> None:
    """As Markdown: every part of a measured step, its amounts, and its share of the ceiling."""
    found = json.loads(options.file.read_text())
    gpu = str(found["machine"]["gpu"])
    if (card := next((name for name in BYTES_A_SECOND if name in gpu), None)) is None:
        raise SystemExit(f"no ceiling is known of {gpu}; measure a copy and add it to BYTES_A_SECOND")
    optimizer = options.optimizers[0]
    steps = [
        row for row in found["rows"]
        if (row["placement"], row["optimizer"], row["dim"]) == (options.placement, optimizer, DIM)
    ]  # fmt: skip
    if not steps:
        raise SystemExit(f"{options.file} has no {options.placement} with {optimizer} at dim {DIM}")
    step = steps[0]
    table = rows_of(step["kernels"], step["batch_size"], BYTES_A_SECOND[card])
    print("| part | us | MB | Gop | ideal us | share of the ceiling |\n|---|---|---|---|---|---|")
    for row in sorted(table, key=lambda row: -row["us"]):
        share = f"{100 * row['ideal'] / row['us']:.0f} %" if row["us"] and row["ideal"] else ""
        print(
            f"| {row['part']} | {row['us']:.1f} | {row['mb']:.0f} | {row['gop']:.1f} | {row['ideal']:.1f} | {share} |"
        )
    busy, ideal = (sum(row[key] for row in table) for key in ("us", "ideal"))
    alone = 1e6 * step["seconds_alone"]["run_graph"]
    print(f"| all kernels | {busy:.0f} | | | {ideal:.0f} | {100 * ideal / busy:.0f} % |")
    print(f"| the step alone, overlapped | {alone:.0f} | | | {ideal:.0f} | {100 * ideal / alone:.0f} % |")


def say_kernels(contender: Any, on_gpu: bool) -> list[dict[str, Any]]:
    """The kernels of a step; the longest are printed."""
    kernels = kernel_table(contender, 40) if on_gpu else []
    calls, total = (sum(kernel[key] for kernel in kernels) for key in ("calls_a_step", "microseconds_a_step"))
    print(f"  {calls:.0f} kernels, {total:.1f} us in all", flush=True)
    for kernel in kernels[:28]:
        print(f"  {kernel['microseconds_a_step']:8.1f} us {kernel['calls_a_step']:5.1f} x {kernel['kernel'][:90]}")
    return kernels


def dlrm_group(log: Any, batch_size: int, dim: int, optimizer: str, options: Any, folder: Path) -> list[dict]:
    """`device` and `tiered` at every share."""
    contenders: dict[str, OurPlacement] = {}
    on_gpu = options.device == "cuda"
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
    """Every log, batch size, dim and optimizer."""
    with working_folder(options.folder) as folder:
        return [
            row
            for name in options.logs
            for log in [open_log(name, folder, options.inputs or 1_000_000, capped_rows(options.cap))]
            for batch_size in options.batch_sizes or [32768]
            for dim in options.dims
            for optimizer in options.optimizers
            for row in dlrm_group(log, batch_size, dim, optimizer, options, folder)
        ]


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
    parser.add_argument("what", choices=("dlrm", *WORKLOADS, "parts"))
    parser.add_argument("--inputs", type=int, default=0, help="default: 1 M, or the workload's")
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="default: 32,768, or the paper's")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=None)
    dlrm = parser.add_argument_group("dlrm")
    dlrm.add_argument("--logs", nargs="+", default=["zipf"])
    dlrm.add_argument("--dims", type=int, nargs="+", default=[16])
    dlrm.add_argument("--shares", type=float, nargs="+", default=[0.05])
    dlrm.add_argument("--optimizers", nargs="+", default=["sgd"])
    dlrm.add_argument("--cap", type=int, default=max(KAGGLE_ROWS), help="rows of a table at most")
    workload = parser.add_argument_group("workloads")
    workload.add_argument("--scale", type=float, default=1.0)
    workload.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS))
    parts = parser.add_argument_group("parts")
    parts.add_argument("--file", type=Path, default=RESULTS / "gpu_step_h100.json")
    parts.add_argument("--placement", default="device")
    options = parser.parse_args()
    if options.what == "parts":
        print_parts(options)
        return
    is_dlrm = options.what == "dlrm"
    rows = measure_dlrm(options) if is_dlrm else measure_workload(options)
    name = "gpu_step" if is_dlrm else f"workload_kernels_{options.what}"
    save_record(options.out or RESULTS / f"{name}.json", record(torch_version=torch.__version__, rows=rows))


if __name__ == "__main__":
    main()
