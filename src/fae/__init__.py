"""FAE: train recommendation models whose embedding tables are larger than GPU memory.

The same as the command line, in Python::

    import fae

    recipe = fae.load_recipe("recipes/frappe.toml", ["hot.budget=64KiB"])
    folder = fae.RunFolder(recipe, "runs/frappe")
    record = folder.run()
    print(record["test"]["auc"], record["hot"]["input_share"])

Names are imported when they are first used, so ``import fae`` costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# torch's OpenMP threads spin for milliseconds after every parallel operation and keep the cores from the row kernels'
# threads; a short spin makes those up to 1.7 times faster and slows nothing (docs/journal). torch reads it when it is
# loaded, so import fae first; a value that is set already is kept.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

if TYPE_CHECKING:
    from fae.artifacts.columnar_log import ColumnarLog as ColumnarLog
    from fae.artifacts.hot_set import HotSet as HotSet
    from fae.artifacts.packed import PackedDataset as PackedDataset
    from fae.checkpoint.save_load import load_dense as load_dense
    from fae.checkpoint.save_load import load_tables as load_tables
    from fae.core.errors import FaeError as FaeError
    from fae.embedding.placements import make_embeddings as make_embeddings
    from fae.exporting.export_run import export as export
    from fae.planning.plan import plan as plan
    from fae.run.folder import RunFolder as RunFolder
    from fae.run.predictions import evaluate_files as evaluate_files
    from fae.run.predictions import predict as predict
    from fae.run.recipe import Recipe as Recipe
    from fae.run.recipe import load_recipe as load_recipe
    from fae.run.recipe import parse_recipe as parse_recipe
    from fae.streaming.row_store import RowOptimizer as RowOptimizer
    from fae.training.batch_dataset import BatchDataset as BatchDataset
    from fae.training.config import TrainConfig as TrainConfig
    from fae.training.quality.evaluate import evaluate as evaluate
    from fae.training.step import train_step as train_step
    from fae.training.trainer import Trainer as Trainer
    from fae.training.watching.callbacks import Callback as Callback
    from fae.training.watching.tensorboard_callback import TensorBoardCallback as TensorBoardCallback
    from fae.training.watching.wandb_callback import WandbCallback as WandbCallback

_EXPORTS = {
    "BatchDataset": "fae.training.batch_dataset",
    "Callback": "fae.training.watching.callbacks",
    "ColumnarLog": "fae.artifacts.columnar_log",
    "FaeError": "fae.core.errors",
    "HotSet": "fae.artifacts.hot_set",
    "PackedDataset": "fae.artifacts.packed",
    "Recipe": "fae.run.recipe",
    "RowOptimizer": "fae.streaming.row_store",
    "RunFolder": "fae.run.folder",
    "TensorBoardCallback": "fae.training.watching.tensorboard_callback",
    "TrainConfig": "fae.training.config",
    "Trainer": "fae.training.trainer",
    "WandbCallback": "fae.training.watching.wandb_callback",
    "evaluate": "fae.training.quality.evaluate",
    "evaluate_files": "fae.run.predictions",
    "export": "fae.exporting.export_run",
    "load_dense": "fae.checkpoint.save_load",
    "load_recipe": "fae.run.recipe",
    "load_tables": "fae.checkpoint.save_load",
    "make_embeddings": "fae.embedding.placements",
    "parse_recipe": "fae.run.recipe",
    "plan": "fae.planning.plan",
    "predict": "fae.run.predictions",
    "train_step": "fae.training.step",
}

__all__ = [
    "BatchDataset",
    "Callback",
    "ColumnarLog",
    "FaeError",
    "HotSet",
    "PackedDataset",
    "Recipe",
    "RowOptimizer",
    "RunFolder",
    "TensorBoardCallback",
    "TrainConfig",
    "Trainer",
    "WandbCallback",
    "evaluate",
    "evaluate_files",
    "export",
    "load_dense",
    "load_recipe",
    "load_tables",
    "make_embeddings",
    "parse_recipe",
    "plan",
    "predict",
    "train_step",
]

if not TYPE_CHECKING:  # a type checker sees the imports above, and refuses a name that is not among them

    def __getattr__(name: str) -> Any:
        if name not in _EXPORTS:
            raise AttributeError(f"module 'fae' has no attribute {name!r}")
        return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
