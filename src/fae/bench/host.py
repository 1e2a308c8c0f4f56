"""How fast the host is at the moment: on a shared machine a baseline may have half the processor that it had before.

`fae bench paper` takes a reading before and after every sample, so that a table whose baselines were disturbed says so
itself. On 2026-11-27 rates of plain PyTorch fell from 9,000 to 2,500 inputs/s within one table, where a quiet machine
of the kind does 24,000, and those of a GPU that held all rows stayed within 0.1 % (docs/journal/). A reading times
work that is done here; the load average showed none of it.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch

_WIDTH = 1024
_LEAST_SECONDS, _LEAST_PRODUCTS = 0.02, 4


def product_gflops() -> float:
    """Speed of float32 products on torch's threads, in 10^9 operations a second; the median over 20 ms or more."""
    a, b = torch.ones(_WIDTH, _WIDTH), torch.ones(_WIDTH, _WIDTH)
    seconds: list[float] = []
    while sum(seconds) < _LEAST_SECONDS or len(seconds) < _LEAST_PRODUCTS:
        begun = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - begun)
    return 2 * _WIDTH**3 / statistics.median(seconds[1:]) / 1e9


def stolen_seconds(stat: str | Path = "/proc/stat") -> float:
    """Core-seconds since the start that other guests of the machine had; 0 where the system does not say.

    >>> stolen_seconds("/nowhere")
    0.0
    """
    try:
        fields = Path(stat).read_text().split("\n", 1)[0].split()
        return int(fields[8]) / 100.0
    except (OSError, ValueError, IndexError):
        return 0.0
