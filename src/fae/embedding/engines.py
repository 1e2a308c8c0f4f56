"""Which engine trains slices of batches, and the one of a GPU, made here because not every machine has Triton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from fae.artifacts.row_layout import RowLayout
from fae.core.errors import DeviceError
from fae.distributed.group import Group
from fae.kernels.geometry import GroupGeometry
from fae.streaming.row_store import RowOptimizer

if TYPE_CHECKING:
    from fae.embedding.gpu_rows import GpuRows


def make_gpu_rows(
    layout: RowLayout,
    geometries: Sequence[GroupGeometry],
    optimizer: RowOptimizer,
    batch_size: int,
    device: torch.device,
    *,
    staged: bool,
) -> GpuRows:
    """Make the GPU engine.

    Raises
    ------
    DeviceError
        If there is no Triton.
    """
    try:
        from fae.embedding.gpu_rows import GpuRows
    except ImportError as error:
        raise DeviceError(
            f"the GPU engine needs Triton, which comes with torch's CUDA builds on Linux ({error}); "
            "run `pip install triton`, or choose --device cpu"
        ) from error

    return GpuRows(layout, geometries, optimizer, batch_size, device, staged=staged)


def slice_size(batch_size: int, group: Group, engine: str) -> int:
    """Inputs of a slice: B / S, or B where batches are whole.

    Raises
    ------
    ValueError
        If the engine cannot train slices, or S does not divide B.
    """
    plan = group.slices
    if plan.is_cut and (batch_size % plan.num_slices or engine == "reference"):
        how = f" by {plan.num_slices} slices" if group.reproducible else ""
        raise ValueError(f"{group.world} ranks cannot train {batch_size} inputs{how} by engine {engine!r} here")
    return batch_size // plan.num_slices
