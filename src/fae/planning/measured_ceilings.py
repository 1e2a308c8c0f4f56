"""Measure what a machine's memories, products and bus do at best, in a second or two."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from fae.training.step import Precision

_GPU_KERNEL_SECONDS = 2e-6
"""A kernel inside a captured graph, the shortest: launch and the wait for the one before it."""
_ROWS, _ROW_FLOATS = 2**22, 16
_TAKEN = 2**19


def median_seconds(work: Callable[[], object], device: torch.device, *, repeats: int = 5) -> float:
    """Median time of a call that ends on `device`; one call more warms up."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    work()
    samples = []
    for _ in range(repeats):
        wait()
        started = time.perf_counter()
        work()
        wait()
        samples.append(time.perf_counter() - started)
    return statistics.median(samples)


def memory_rate(device: torch.device) -> float:
    """Bytes/s that a copy reads and writes."""
    size = 2**28 if device.type == "cuda" else 2**26
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / median_seconds(lambda: target.copy_(source), device)


def product_rate(device: torch.device, precision: Precision) -> float:
    """Operations/s of a product of square matrices."""
    size = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2.0 * size**3 / median_seconds(lambda: torch.mm(a, b, out=out), device)


def kernel_seconds(device: torch.device) -> float:
    """Seconds of the smallest operator: on a CPU with what autograd adds, on a GPU inside a captured graph."""
    if device.type == "cuda":
        return _GPU_KERNEL_SECONDS
    weight, x = torch.ones(8, requires_grad=True), torch.ones(8)
    repeats = 100

    def work() -> None:
        y = x
        for _ in range(repeats):
            y = y * weight
        y.sum().backward()  # type: ignore[no-untyped-call]

    return median_seconds(work, device) / (3 * repeats)


def host_rate() -> float:
    """Bytes/s, read and written, of single rows of 64 bytes taken from a table of 256 MiB in random order."""
    table = torch.full((_ROWS, _ROW_FLOATS), 0.01)
    rows = torch.randint(0, _ROWS, (_TAKEN,), generator=torch.Generator().manual_seed(1))
    out = torch.empty(_TAKEN, _ROW_FLOATS)
    seconds = median_seconds(lambda: torch.index_select(table, 0, rows, out=out), torch.device("cpu"), repeats=9)
    return 2.0 * out.numel() * out.element_size() / seconds


def bus_rate(device: torch.device) -> float:
    """Bytes/s of the slower way between page-locked memory and a GPU; 0 on a CPU."""
    if device.type != "cuda":
        return 0.0
    host = torch.ones(2**24, pin_memory=True)
    there = torch.empty(2**24, device=device)
    up = median_seconds(lambda: there.copy_(host, non_blocking=True), device)
    down = median_seconds(lambda: host.copy_(there, non_blocking=True), device)
    return 2**26 / max(up, down)
