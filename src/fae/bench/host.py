"""How fast the host is at the moment: on a shared machine a baseline may have half the processor that it had before.

Place in the flow: `fae bench paper` takes a reading beside every sample, so that a table whose baselines were disturbed
says so itself. On 2026-11-27 plain PyTorch fell from 24,000 to 2,600 samples/s within one table, while everything
that a GPU computes stayed within one per cent (docs/journal.md).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

_WIDTH = 1024
_LEAST_SECONDS = 0.02
STEADY = 1.5
"""Readings of a quiet machine differ by less than this factor."""


def product_gflops() -> float:
    """10^9 operations a second of float32 products on torch's threads, the best of those of a fiftieth of a second."""
    a, b = torch.ones(_WIDTH, _WIDTH), torch.ones(_WIDTH, _WIDTH)
    best, started = 0.0, time.perf_counter()
    while time.perf_counter() - started < _LEAST_SECONDS or not best:
        begun = time.perf_counter()
        torch.mm(a, b)
        best = max(best, 2 * _WIDTH**3 / (time.perf_counter() - begun) / 1e9)
    return best


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


def warning(readings: Sequence[float]) -> str:
    """What to say of readings that are far apart; empty where they are not.

    >>> warning([1200.0, 1100.0])
    ''
    """
    if not readings or max(readings) < STEADY * min(readings):
        return ""
    return (
        f"the host was not steady: its products ran at {min(readings):,.0f} to {max(readings):,.0f} GFLOP/s; ratios "
        "over what computes on the CPU may be far off, run it again on a quiet machine"
    )
