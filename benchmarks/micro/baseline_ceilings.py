"""What a machine gives: the ceilings under which `baseline_roofline.py` puts a step.

Matrix products at the shapes of the model's own layers and at a square, a copy of memory, random rows of 64 bytes, and
the bus to a GPU. Every ceiling is the best of several calls, with all threads; buffers are made and touched beforehand.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit

from fae.core.prefetch import prefetch
from fae.core.threads import run_ranges
from fae.streaming.huge_pages import host_zeros

ROW_FLOATS = 16
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
    total = np.zeros(ROW_FLOATS, np.float32)
    for index in range(start, stop):
        if index + _AHEAD < stop:
            prefetch(rows, where[index + _AHEAD])
        row = where[index]
        for d in range(ROW_FLOATS):
            total[d] += rows[row, d]
    sums[start] = total.sum()


@njit(nogil=True)
def _rewrite(rows, where, sums, start, stop):
    for index in range(start, stop):
        if index + _AHEAD < stop:
            prefetch(rows, where[index + _AHEAD])
        row = where[index]
        for d in range(ROW_FLOATS):
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
