"""Why a training went wrong, where the packed batches show it: dense columns of a size that no weight is made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.packed import BatchSet, PackedDataset

LARGE = 1e4
"""A dense value above it, behind the transform, is one that no common learning rate can train."""
MUCH_WORSE = 1.05
"""Normalised entropy from which the bare click rate is clearly the better prediction."""
_ENOUGH = 200
"""Inputs from which such an entropy is no chance; among fewer it must be twice as large."""
_MOST_BATCHES = 64


def largest_dense(batches: BatchSet) -> npt.NDArray[np.float64]:
    """float64 ``[K]``: largest size of each dense feature, in up to 64 batches spread evenly over a split."""
    if not batches.num_batches:
        return np.zeros(batches.num_dense)
    chosen = np.unique(np.linspace(0, batches.num_batches - 1, _MOST_BATCHES).astype(np.int64))
    found = [np.abs(batches.arrays.dense[index]).max(axis=0, initial=0.0) for index in chosen.tolist()]
    largest: npt.NDArray[np.float64] = np.max(found, axis=0).astype(np.float64)
    return largest


def large_columns(packed: PackedDataset) -> str:
    """The dense columns of the training split above `LARGE`, in words; empty where there are none."""
    names = packed.summary.get("dense") or [f"number {index}" for index in range(packed.num_dense)]
    large = [
        f"{name!r} (up to {size:.3g})"
        for name, size in zip(names, largest_dense(packed.train), strict=False)
        if size > LARGE
    ]
    shown = ", ".join(large[:3]) + (f" and {len(large) - 3} more" if len(large) > 3 else "")
    return f"dense column{'s' * (len(large) > 1)} {shown}" if large else ""


def cause_of_divergence(packed: PackedDataset) -> str:
    """What to do about a loss that is not finite, where a dense column is the likely cause; else empty."""
    large = large_columns(packed)
    return large and (
        f"the likely cause is {large}: such numbers need [log] dense_transform = \"log1p\" or \"signed_log1p\", or to "
        "be scaled in the log"
    )  # fmt: skip


def worse_than_the_rate(split: str, metrics: Mapping[str, Any], packed: PackedDataset) -> str:
    """A line where predictions of a split are much worse than its bare click rate; else empty."""
    entropy = metrics.get("normalized_entropy")
    if entropy is None or metrics.get("log_loss") is None:
        return ""
    if entropy <= (MUCH_WORSE if metrics["num_inputs"] >= _ENOUGH else 2 * MUCH_WORSE):
        return ""
    base = metrics["log_loss"] / entropy
    large = large_columns(packed)
    cause = (
        f"the likely cause is {large}: use [log] dense_transform, or scale it in the log"
        if large
        else "lower [train] learning_rate or epochs, or see whether the split's click rate is that of training"
    )
    return (
        f"the {split} log loss {metrics['log_loss']:.5g} is {entropy:.3g} times the {base:.5f} of the bare click rate "
        f"{metrics['label_rate']:.4f}: the model is worse than none; {cause}"
    )
