"""How near the CPU baselines are to what the machine could do: ceilings, and whole steps under them.

    python benchmarks/roofline.py [--device cuda] [--out FILE] [--folder DIR] [--quick]

Are the baselines as fast as they could be? They are `cpu` and `hybrid` (FAE's CPU kernels) and plain PyTorch in the
same two forms, each with its dense part in fp32 or, on a CPU as well, in bf16. Work: DLRM 13-512-256-64-16 / 512-256-1,
Criteo Kaggle's tables, batches of 32,768, dim 16, independent Zipf columns (exponent 1.05). A part's ideal time is the
larger of (operations / rate of the best product measured here) and (bytes that the step cannot do without, each operand
once / bandwidth of a copy); of rows, (different rows of a batch / rows a second of a bare loop); with a GPU, lookup and
update include the bus. Ideals are added up: an exact step has no parts that could overlap, since the next batch reads
what this one writes. Prints Markdown and writes benchmarks/results/baseline_roofline.json; cells that the file has are
not measured again.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fae  # noqa: F401 isort: skip  # before torch: it sets how long torch's threads spin

import numpy as np
import torch
from numba import njit

from fae.bench.cells import Cells
from fae.core.compiling.prefetch import prefetch
from fae.core.threads import run_ranges
from fae.streaming.huge_pages import host_zeros
from fae.training.step import cpu_multiplies_bf16

from common import KAGGLE_ROWS, RESULTS, capped_rows, hot_set, open_log, packed_log, record, working_folder
from contenders import OurPlacement, PlainPyTorch

FEATURES, DIM, NUM_DENSE = 26, 16, 13
LAYERS = [(NUM_DENSE, 512), (512, 256), (256, 64), (64, DIM), (DIM + 351, 512), (512, 256), (256, 1)]
OPTIMIZERS = ("sgd", "rowwise_adagrad")
WARM_UP = 4  # that many steps compile a GPU's kernels
_AHEAD = 16
_FLUSH_BYTES = 2**29  # more than any last-level cache


def best_seconds(
    work: Callable[[], Any],
    seconds: float,
    synchronize: Callable[[], None] = lambda: None,
    before: Callable[[], Any] = lambda: None,
) -> float:
    """The shortest of calls that take `seconds` together, five at least; one more warms up. `before` takes no time."""
    work()
    synchronize()
    best, spent, calls = float("inf"), 0.0, 0
    while spent < seconds or calls < 5:
        before()
        started = time.perf_counter()
        work()
        synchronize()
        taken = time.perf_counter() - started
        best, spent, calls = min(best, taken), spent + taken, calls + 1
        if spent > 8 * seconds and calls >= 2:
            break
    return best


def product_rates(
    layers: list[tuple[int, int]], batch_size: int, dtype: torch.dtype, device: torch.device, seconds: float
) -> dict[str, float]:
    """Operations a second of the three products of every layer, of all of them together, and of a square."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    rates, total, operations = {}, 0.0, 0.0

    def filled(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device).to(dtype)

    for a, b in layers:
        x, weight, grad = filled(batch_size, a), filled(a, b), filled(batch_size, b)
        y, grad_weight, grad_x = torch.empty_like(grad), torch.empty_like(weight), torch.empty_like(x)
        products = {
            "forward": lambda x=x, w=weight, y=y: torch.mm(x, w, out=y),
            "weights": lambda x=x, g=grad, out=grad_weight: torch.mm(x.t(), g, out=out),
            "inputs": lambda g=grad, w=weight, out=grad_x: torch.mm(g, w.t(), out=out),
        }
        for name, product in products.items():
            taken = best_seconds(product, seconds / 4, synchronize)
            count = 2.0 * batch_size * a * b
            rates[f"{a}x{b} {name}"] = count / taken
            total, operations = total + taken, operations + count
    rates["all layers"] = operations / total
    size, taken = 512, 0.0
    while taken < seconds / 8 and size < 8192:
        size *= 2
        a, b, out = filled(size, size), filled(size, size), filled(size, size)
        taken = best_seconds(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), seconds / 4, synchronize)
        rates["square"] = max(rates.get("square", 0.0), 2.0 * size**3 / taken)
    return rates


def copy_rate(num_bytes: int, device: torch.device, seconds: float) -> float:
    """Bytes a second of a copy inside one memory, read and written."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)
    if device.type == "cuda":
        source, target = (torch.ones(num_bytes // 4, device=device) for _ in range(2))
    else:
        source, target = (host_zeros(num_bytes // 4, 1).view(-1).fill_(1.0) for _ in range(2))
    return 2 * num_bytes / best_seconds(lambda: target.copy_(source), seconds, synchronize)


def bus_rates(num_bytes: int, device: torch.device, seconds: float) -> dict[str, float]:
    """Bytes a second between pinned host memory and the device."""
    host, there = torch.ones(num_bytes // 4, pin_memory=True), torch.ones(num_bytes // 4, device=device)
    return {
        "to device": num_bytes
        / best_seconds(lambda: there.copy_(host, non_blocking=True), seconds, torch.cuda.synchronize),
        "to host": num_bytes
        / best_seconds(lambda: host.copy_(there, non_blocking=True), seconds, torch.cuda.synchronize),
    }


@njit(nogil=True)
def _read(rows, where, sums, start, stop):
    total = np.zeros(DIM, np.float32)
    for index in range(start, stop):
        if index + _AHEAD < stop:
            prefetch(rows, where[index + _AHEAD])
        row = where[index]
        for d in range(DIM):
            total[d] += rows[row, d]
    sums[start] = total.sum()


@njit(nogil=True)
def _rewrite(rows, where, sums, start, stop):
    for index in range(start, stop):
        if index + _AHEAD < stop:
            prefetch(rows, where[index + _AHEAD])
        row = where[index]
        for d in range(DIM):
            rows[row, d] += np.float32(1e-9)
    sums[start] = 1.0


def row_rates(rows: np.ndarray, of_batch: np.ndarray, seconds: float) -> dict[str, float]:
    """Rows of 64 bytes a second, by one loop with all threads, none of them in a cache: what lies between a step's
    lookup and the next one's has driven them out.

    Parameters
    ----------
    rows
        float32 ``[R, 16]``; read, and written where it says so.
    of_batch
        int64: different rows that a batch touches, ascending.
    """
    random = np.random.default_rng(1)
    uniform = random.integers(0, len(rows), max(len(of_batch), 2**20))
    orders = {
        "uniform, read": (_read, uniform),
        "of a batch, read in random order": (_read, random.permutation(of_batch)),
        "of a batch, read ascending": (_read, of_batch),
        "of a batch, read and written ascending": (_rewrite, of_batch),
    }
    rates, other = {}, host_zeros(_FLUSH_BYTES // 4, 1).view(-1)
    for name, (loop, where) in orders.items():
        sums = np.zeros(len(where), np.float32)

        def work(loop=loop, where=where, sums=sums) -> None:
            run_ranges(lambda start, stop: loop(rows, where, sums, start, stop), len(where), min_range=4096)

        rates[name] = len(where) / best_seconds(work, seconds / 4, before=lambda: other.add_(1.0))
    return rates


def needed(batch_size: int, optimizer: str, unique_rows: int, precision: str) -> dict[str, dict[str, float]]:
    """Operations, bytes and rows that each part cannot do without."""
    each = 2 if precision == "bf16" else 4  # bytes of an activation
    forward = sum(2.0 * a * b for a, b in LAYERS) + 2.0 * 351 * DIM
    # Gradients of weights and of inputs; those of the dense features are not wanted.
    back = 2 * forward - 2.0 * LAYERS[0][0] * LAYERS[0][1]
    moved_forward = sum(each * (a + b) for a, b in LAYERS) + 4 * FEATURES * DIM
    moved_back = sum(each * (2 * a + b) for a, b in LAYERS) + 2 * 4 * FEATURES * DIM
    pooled = 4.0 * batch_size * FEATURES * DIM
    lists = batch_size * FEATURES
    lines = 1 if optimizer == "sgd" else 2  # of 64 bytes a row: the weight, and its state
    return {
        "lookup": {"bytes": pooled + 4.0 * lists, "rows": unique_rows, "bus": pooled},
        "dense": {
            "operations": batch_size * (forward + back), "bytes": batch_size * (moved_forward + moved_back),
        },
        "update": {"bytes": pooled + 4.0 * lists, "rows written": unique_rows * lines, "bus": pooled},
    }  # fmt: skip


def ideals(
    need: dict[str, dict[str, float]], ceilings: dict[str, Any], on_gpu: bool, precision: str
) -> dict[str, float]:
    """Seconds of each part under the ceilings."""
    side, rows = ceilings["gpu" if on_gpu else "cpu"], ceilings["rows"]
    rate = max(side[precision].values())
    read = max(value for name, value in rows.items() if "written" not in name and "of a batch" in name)
    host = ceilings["cpu"]["copy"]
    seconds = {
        "lookup": max(need["lookup"]["bytes"] / host, need["lookup"]["rows"] / read),
        "dense": max(need["dense"]["operations"] / rate, need["dense"]["bytes"] / side["copy"]),
        "update": max(
            need["update"]["bytes"] / host,
            need["update"]["rows written"] / rows["of a batch, read and written ascending"],
        ),
    }
    if on_gpu:
        seconds["lookup"] += need["lookup"]["bus"] / ceilings["bus"]["to device"]
        seconds["update"] += need["update"]["bus"] / ceilings["bus"]["to host"]
    return seconds


def measure_ceilings(batch_size: int, of_batch: np.ndarray, num_rows: int, options: Any) -> dict[str, Any]:
    """All ceilings, about ``options.seconds`` each; bf16 on a CPU where its steps are measured, too."""
    cpu, seconds = torch.device("cpu"), options.seconds
    ceilings: dict[str, Any] = {"cpu": {}, "threads": {"torch": torch.get_num_threads()}}
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    for precision in ("fp32", "bf16") if options.bf16 else ("fp32",):
        ceilings["cpu"][precision] = product_rates(LAYERS[:-1], batch_size, kinds[precision], cpu, seconds)
    ceilings["cpu"]["copy"] = copy_rate(options.copy_bytes, cpu, seconds)
    table = host_zeros(num_rows, DIM).fill_(0.01)
    ceilings["rows"] = row_rates(table.numpy(), of_batch, seconds)
    if options.device == "cuda":
        gpu = torch.device("cuda")
        ceilings["gpu"] = {
            precision: product_rates(LAYERS[:-1], batch_size, dtype, gpu, seconds / 10)
            for precision, dtype in kinds.items()
        }
        ceilings["gpu"]["copy"] = copy_rate(4 * options.copy_bytes, gpu, seconds / 4)
        ceilings["bus"] = bus_rates(options.copy_bytes // 4, gpu, seconds / 2)
    return ceilings


def rows_of_batch(packed: Any, hot: Any) -> np.ndarray:
    """Different rows of one batch as placement ``cpu`` numbers them, ascending, int64."""
    batch, hot_rows = packed.train.batch(0), hot.layout.groups[0].num_hot_rows
    addresses = np.unique(np.asarray(batch.addresses)).astype(np.int64)
    cold = np.asarray(batch.cold_rows[0])
    is_cold = addresses >= hot_rows
    return np.unique(
        np.concatenate([addresses[~is_cold & (addresses >= 0)], cold[addresses[is_cold] - hot_rows]])
    ).astype(np.int64)


def contenders(log: Any, packed: Any, hot: Any, optimizer: str, options: Any) -> dict[str, tuple[str, bool, Any]]:
    """Precision, whether a GPU computes the dense part, and constructor of every contender, by name."""
    common = {"dim": DIM, "optimizer": optimizer}
    plain = {**common, "batch_size": options.batch_size, "num_batches": 4}

    def ours(device: str) -> OurPlacement:
        return OurPlacement(packed, hot, "cpu" if device == "cpu" else "hybrid", device=device, **common)

    made: dict[str, tuple[str, bool, Any]] = {}
    for suffix, precision in (("", "fp32"), (" bf16", "bf16")) if options.bf16 else (("", "fp32"),):
        made[f"cpu{suffix}"] = (precision, False, lambda: ours("cpu"))
        made[f"plain PyTorch cpu{suffix}"] = (precision, False, lambda: PlainPyTorch(log, device="cpu", **plain))
    if options.device == "cuda":
        made["hybrid"] = ("bf16", True, lambda: ours("cuda"))
        made["plain PyTorch hybrid"] = ("bf16", True, lambda: PlainPyTorch(log, device="cuda", **plain))
    return made


def measure(precision: str, on_gpu: bool, make: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Seconds of whole steps."""
    contender = make()
    if not on_gpu:
        contender.precision = precision
    contender.run(WARM_UP if on_gpu else 2)
    steps = 12 if isinstance(contender, OurPlacement) and on_gpu else 3
    seconds = [contender.run(steps) / steps for _ in range(rounds)]
    del contender
    gc.collect()
    return {"precision": precision, "on_gpu": on_gpu, "seconds_a_step": seconds}


def table_of(name: str, cell: dict[str, Any], ideal: dict[str, float], batch_size: int) -> list[str]:
    """Markdown of one contender."""
    step, floor = statistics.median(cell["seconds_a_step"]), sum(ideal.values())
    lines = [f"\n{name}: {batch_size / step / 1e6:.3f} M inputs/s\n", "| part | ideal ms |\n|---|---|"]
    lines += [f"| {part} | {1e3 * seconds:.2f} |" for part, seconds in ideal.items()]
    return [*lines, f"| all, {100 * floor / step:.0f} % of the step of {1e3 * step:.2f} ms | {1e3 * floor:.2f} |"]


def ceiling_lines(ceilings: dict[str, Any]) -> list[str]:
    """Markdown of the ceilings."""
    lines = ["| ceiling | |\n|---|---|"]
    for side in ("cpu", "gpu"):
        for name, value in ceilings.get(side, {}).items():
            if isinstance(value, dict):
                own = f"{value['all layers'] / 1e12:.3f} TFLOP/s at the model's layers, "
                best = max(value, key=lambda key: value[key])
                lines.append(f"| {side} products, {name} | {own}{value[best] / 1e12:.3f} at best ({best}) |")
            else:
                lines.append(f"| {side} {name} | {value / 1e9:.1f} GB/s |")
    lines += [f"| rows of 64 bytes, {name} | {rate / 1e6:.0f} M/s |" for name, rate in ceilings["rows"].items()]
    return [*lines, *(f"| bus {way} | {rate / 1e9:.1f} GB/s |" for way, rate in ceilings.get("bus", {}).items())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument("--inputs", type=int, default=300_000)
    parser.add_argument("--batch-size", type=int, default=32_768)
    parser.add_argument("--cap", type=int, default=max(KAGGLE_ROWS), help="rows of a table at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.2, help="of a ceiling, about")
    parser.add_argument("--until", type=float, default=0.0, help="start no contender after that many seconds")
    parser.add_argument("--out", type=Path, default=RESULTS / "baseline_roofline.json")
    parser.add_argument("--folder", type=Path, default=None, help="of the log and its batches; default: temporary")
    parser.add_argument("--quick", action="store_true", help="tiny: shows that it runs")
    options = parser.parse_args()
    options.bf16, options.copy_bytes = cpu_multiplies_bf16(), 2**28
    if options.quick:
        options.inputs, options.cap, options.rounds, options.seconds = 40_000, 2000, 1, 0.01
        options.batch_size, options.copy_bytes = 1024, 2**24
    with working_folder(options.folder) as folder:
        log = open_log("zipf", folder, options.inputs, capped_rows(options.cap))
        hot = hot_set(log, 0.05, dim=DIM, batch_size=options.batch_size, mixed=True)
        packed = packed_log(log, hot, folder)
        of_batch, num_rows = rows_of_batch(packed, hot), int(log.table_offsets[-1])
        settings = {"batch_size": options.batch_size, "num_rows": num_rows, "rows_of_a_batch": len(of_batch)}
        cells = Cells(options.out, settings, header=record(), until_seconds=options.until)
        ceilings = cells.measure("ceilings", lambda: measure_ceilings(options.batch_size, of_batch, num_rows, options))
        print("\n".join(ceiling_lines(ceilings)), flush=True)
        for optimizer in options.optimizers:
            for name, contender in contenders(log, packed, hot, optimizer, options).items():
                key = f"{name}, {optimizer}"
                if key not in cells and cells.late():
                    continue
                cell = cells.measure(key, lambda contender=contender: measure(*contender, options.rounds))
                need = needed(options.batch_size, optimizer, len(of_batch), cell["precision"])
                ideal = ideals(need, ceilings, cell["on_gpu"], cell["precision"])
                print("\n".join(table_of(key, cell, ideal, options.batch_size)), flush=True)


if __name__ == "__main__":
    main()
