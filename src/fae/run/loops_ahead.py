"""Which compiled loops the training of a run will call: they are compiled while torch is imported and stages work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema, join_parts, model_features
from fae.core.optimizers import state_width
from fae.ingest.column_config import tables_of
from fae.streaming.compile_ahead import LoopShapes

if TYPE_CHECKING:
    from fae.run.recipe import Recipe

_DRIVER = Path("/proc/driver/nvidia/version")
"""There where Linux has a driver for GPUs. torch knows better, and takes seconds to say it."""


def loop_shapes(recipe: Recipe, log: ColumnarLog | None, device: str | None) -> LoopShapes:
    """What decides which loops the training of `recipe` calls.

    Parameters
    ----------
    log
        A log that is columnar already; None takes the columns that the recipe names.
    device
        ``"cpu"`` or ``"cuda"``; None is a GPU where there seems to be one.
    """
    placement, optimizer = recipe.train.placement, recipe.train.optimizer
    on_gpu = placement != "cpu" and (_DRIVER.exists() if device is None else device == "cuda")
    features = log.features if log else named_features(recipe)
    dims = sorted(set(recipe.model.dims([feature.name for feature in features])))
    pools_lists = any(part.length > 1 and part.pooling != "none" for part in model_features(features))
    return LoopShapes(
        widths=tuple((dim, state_width(optimizer, dim)) for dim in dims),
        is_flat=len(dims) == 1 and not pools_lists,
        is_staged=placement == "tiered",
        rows_on_host=not on_gpu or placement in ("hybrid", "paper"),
        on_gpu=on_gpu,
    )


def named_features(recipe: Recipe) -> tuple[FeatureSchema, ...]:
    """The tables of the columns that a recipe names, their rows not counted yet."""
    columns = recipe.log.categorical_columns()
    return join_parts(
        [
            FeatureSchema(name=each.name, num_embeddings=0, length=each.max_length, pooling=each.pooling)
            for each in columns
        ],
        tables_of(columns),
    )
