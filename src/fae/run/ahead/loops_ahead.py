"""Which compiled loops the stages of a run will call: they are compiled while torch is imported and stages work."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema, join_parts, model_features
from fae.core.optimizers import state_width
from fae.ingest.column_config import tables_of
from fae.streaming.training_loops import LoopShapes

if TYPE_CHECKING:
    from fae.run.recipe import Recipe

_DRIVER = Path("/proc/driver/nvidia/version")
"""There where Linux has a driver for GPUs. torch knows better, and takes seconds to say it."""


@dataclass(frozen=True, kw_only=True)
class LoopsAhead:
    """The loops of some stages of a run.

    Attributes
    ----------
    stages
        Verbs of the stages that have work to do.
    log_format
        ``[log] format``.
    mixed
        Whether batches take any input.
    shapes
        What decides which loops a training calls; None where nothing is trained.
    """

    stages: tuple[str, ...]
    log_format: str
    mixed: bool
    shapes: LoopShapes | None

    def loops(self) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        """Each loop with numba's types of its arguments, about in the order of their first calls. Imports no torch."""
        if "ingest" in self.stages:
            from fae.run.ahead.ingest_loops import ingest_loops

            yield from ingest_loops(self.log_format)
        if "profile" in self.stages or "calibrate" in self.stages:
            from fae.calibrate.loop_types import calibration_loops

            yield from calibration_loops()
        if "pack" in self.stages:
            from fae.run.ahead.pack_loops import pack_loops

            yield from pack_loops(mixed=self.mixed)
        if self.shapes is not None:
            from fae.streaming.training_loops import training_loops
            from fae.training.quality.quality_loops import quality_loops

            yield from training_loops(self.shapes)
            yield from quality_loops()


def loops_ahead(recipe: Recipe, log: ColumnarLog | None, device: str | None, stages: Collection[str]) -> LoopsAhead:
    """The loops of `stages` (verbs); the rest as for `loop_shapes`."""
    return LoopsAhead(
        stages=tuple(stages),
        log_format=recipe.log.format,
        mixed=recipe.mixed,
        shapes=loop_shapes(recipe, log, device) if "train" in stages else None,
    )


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
