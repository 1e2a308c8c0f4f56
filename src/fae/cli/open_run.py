"""From options to the recipe and the run that they describe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fae.run.folder import RunFolder
    from fae.run.rank_training import TrainingRanks
    from fae.run.recipe import Recipe


def recipe_of(options: argparse.Namespace) -> Recipe:
    """Read the recipe that the options name, with the values that they replace."""
    from fae.run.recipe import load_recipe

    overrides = list(options.overrides)
    if options.budget is not None:
        overrides.append(f"hot.budget={options.budget}")
    return load_recipe(options.recipe, overrides)


def open_run_folder(options: argparse.Namespace, ranks: TrainingRanks | None = None) -> RunFolder:
    """Open the run that the options describe, to be trained on `ranks`; the first of them has the callbacks."""
    from fae.run.folder import RunFolder
    from fae.training.watching.callbacks_by_name import callbacks_of

    tensorboard, wandb = getattr(options, "tensorboard", None), getattr(options, "wandb", None)
    recipe = recipe_of(options)
    out = Path(options.out) if options.out else Path("runs") / Path(options.recipe).stem
    callbacks = callbacks_of(tensorboard, wandb, out) if ranks is None or ranks.is_first else ()
    return RunFolder(recipe, out, device=options.device, callbacks=callbacks, ranks=ranks)
