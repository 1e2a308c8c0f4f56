"""What training will take on the GPU, in host memory and on the disk, by the code that training itself asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fae.artifacts.batch_arrays import BatchSizes
from fae.artifacts.columnar_log import FeatureSchema
from fae.core.npy import HEADER_BYTES
from fae.core.optimizers import OPTIMIZERS, row_bytes
from fae.embedding.memory_plan import MemoryPlan
from fae.embedding.memory_request import MemoryRequest
from fae.embedding.placements import find_placement
from fae.models.registry import sketch_model
from fae.planning.budgets.planned_hot_set import PlannedHotSet
from fae.training.dense import dense_bytes
from fae.training.real_inputs import fit_in_memory

if TYPE_CHECKING:
    from fae.run.recipe import Recipe

GPU_PLACEMENTS = ("tiered", "hybrid", "device")
CPU_PLACEMENTS = ("tiered", "cpu")


def dense_part_bytes(recipe: Recipe, features: Sequence[FeatureSchema], num_dense: int, *, on_gpu: bool) -> int:
    """Bytes of the dense weights with gradients and optimizer state, as training counts them."""
    model = sketch_model(recipe.model, features, num_dense)
    bf16 = on_gpu and recipe.train.precision == "bf16"
    return dense_bytes(recipe.train.optimizer, model, flat=on_gpu, bf16=bf16)


def memory_by_placement(
    hot_set: PlannedHotSet, splits: Sequence[BatchSizes], *, on_gpu: bool, dense: int, rounds_dense: bool = False
) -> dict[str, MemoryPlan]:
    """What every placement that differs takes.

    Parameters
    ----------
    splits
        The batches that training streams.
    dense
        `dense_part_bytes`.
    rounds_dense
        Whether dense features are sent in bfloat16 where they fit host memory (`fae.training.real_inputs`).
    """
    request = MemoryRequest(
        hot_set=hot_set, optimizer=hot_set.optimizer, splits=splits, on_gpu=on_gpu, dense_bytes=dense,
        rounds_dense=rounds_dense and fit_in_memory(splits, hot_set.batch_size),
    )  # fmt: skip
    return {
        placement: find_placement(placement).plan(request)
        for placement in (GPU_PLACEMENTS if on_gpu else CPU_PLACEMENTS)
    }


def memory_values(needs: MemoryPlan, *, on_gpu: bool) -> dict[str, Any]:
    """A memory plan as JSON values, with its sums: on a CPU, all of it is in host memory."""
    on_device = needs.device_rows + needs.device_beside
    return {
        **asdict(needs),
        "gpu_bytes": on_device if on_gpu else 0,
        "host_bytes": needs.on_host if on_gpu else needs.on_host + on_device,
    }


def table_bytes(num_rows: int, embedding_dim: int) -> dict[str, int]:
    """Bytes of a table's rows with the state of each optimizer, by its name.

    >>> table_bytes(10, 16)
    {'sgd': 640, 'rowwise_adagrad': 680, 'adagrad': 1280, 'adam': 1920}
    """
    return {optimizer: num_rows * row_bytes(optimizer, embedding_dim) for optimizer in OPTIMIZERS}


def disk_values(
    hot_set: PlannedHotSet,
    *,
    log_bytes: int,
    log_here: bool,
    num_profiled: int | None,
    packed_bytes: int,
    dense: int,
) -> dict[str, Any]:
    """Bytes of every artifact of a run.

    Parameters
    ----------
    log_bytes, log_here
        Bytes of the columnar log, and whether the run has it or reads one elsewhere.
    num_profiled
        Inputs of the profile's sample; None where it reads all.
    packed_bytes
        Bytes of the packed batches.
    dense
        `dense_part_bytes`, an upper bound of what a checkpoint holds of the dense part.
    """
    layout = hot_set.layout
    sizes = [feature.num_embeddings for feature in layout.features]
    profile = HEADER_BYTES + 8 * sum(sizes) + (0 if num_profiled is None else HEADER_BYTES + 8 * num_profiled)
    ranks = sum(HEADER_BYTES + 4 * len(rank) for rank in layout.ranks if rank is not None)
    rows = sum(size * row_bytes(hot_set.optimizer, dim) for size, dim in zip(sizes, layout.embedding_dims, strict=True))
    parts: Mapping[str, int] = {
        "log": log_bytes if log_here else 0,
        "profile": profile,
        "hot_set": ranks,
        "packed": packed_bytes,
        "checkpoint": rows + dense,
    }
    # A checkpoint is written whole beside the one before it.
    return {**parts, "total": sum(parts.values()), "most": sum(parts.values()) + parts["checkpoint"]}
