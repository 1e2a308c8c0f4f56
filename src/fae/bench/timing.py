"""Clocks of the contenders: warm up, time a sample of a given length, read the host's speed beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from fae.bench.host import product_gflops, stolen_seconds

WARM_UP_BATCHES = 24
"""Batches before a sample of what captures graphs: three steps that compile, then one capture a slot of the ring."""

Run = Callable[[int], float]
"""Trains that many batches; returns the seconds they took."""
Sample = dict[str, Any]
"""``batches``, ``seconds``, ``samples_per_second`` (inputs/s), and what a contender adds."""


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done everything; returns at once for a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def warm_up(run: Run, seconds: float, least: int) -> float:
    """Train `least` batches, and more while they take less than `seconds`; seconds a batch of the last ones."""
    run(least)
    a_batch = run(1)
    more = min(WARM_UP_BATCHES, int(seconds / max(a_batch, 1e-6)))
    return run(more) / more if more else float(a_batch)


def timed_sample(run: Run, a_batch: float, seconds: float, min_batches: int, batch_size: int) -> Sample:
    """One sample of at least `seconds` and `min_batches`.

    Parameters
    ----------
    a_batch
        Seconds that a batch is expected to take; 0 where it is not known.
    """
    count = max(min_batches, math.ceil(seconds / a_batch) if a_batch else 0)
    spent = run(count)
    return {"batches": count, "seconds": spent, "samples_per_second": count * batch_size / spent}


def sample_beside_host(take: Callable[[], Sample]) -> Sample:
    """What `take` returns, with the host's speed around it: the slower of two readings, and core-seconds stolen."""
    before, stolen = product_gflops(), stolen_seconds()
    sample = take()
    return {
        **sample, "host_gflops": min(before, product_gflops()), "stolen_core_seconds": stolen_seconds() - stolen,
    }  # fmt: skip
