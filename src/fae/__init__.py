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
from typing import Any

# torch's OpenMP threads spin for milliseconds behind every parallel operation and keep the cores from the row kernels'
# threads; a short spin makes those up to 1.7 times faster and slows nothing (docs/journal.md). Read when torch is
# loaded, so import fae first; a value of your own is kept.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

_EXPORTS = {
    "load_recipe": "fae.run.recipe",
    "parse_recipe": "fae.run.recipe",
    "Recipe": "fae.run.recipe",
    "RunFolder": "fae.run.folder",
    "ColumnarLog": "fae.artifacts.columnar_log",
    "HotSet": "fae.artifacts.hot_set",
    "PackedDataset": "fae.artifacts.packed",
    "FaeError": "fae.core.errors",
    "Trainer": "fae.training.trainer",
    "TrainConfig": "fae.training.config",
    "RowOptimizer": "fae.streaming.row_store",
    "make_embeddings": "fae.embedding.placements",
    "load_tables": "fae.checkpoint.save_load",
    "load_dense": "fae.checkpoint.save_load",
    "evaluate": "fae.training.evaluate",
    "train_step": "fae.training.step",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'fae' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
