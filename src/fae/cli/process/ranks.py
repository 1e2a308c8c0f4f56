"""The ranks of a command that trains: started here, where several are wanted, or by torchrun."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fae.cli.open_run import open_run_folder, recipe_of
from fae.core.errors import RecipeError

if TYPE_CHECKING:
    from fae.run.rank_training import TrainingRanks


@contextlib.contextmanager
def ranks_of(options: argparse.Namespace) -> Iterator[TrainingRanks]:
    """The ranks of a command while it runs.

    Where more are wanted than this process, they are started with the same words, and this process leaves with their
    status when all have ended.

    Raises
    ------
    FaeError
        If they cannot train the recipe together.
    """
    from fae.distributed.places import place_of_process
    from fae.run.rank_training import TrainingRanks, check_ranks, wanted_ranks

    place = place_of_process()
    try:
        world = wanted_ranks(options.gpus, place)
    except RecipeError:
        if place.local_rank > 0:  # its neighbour says the same
            raise SystemExit(2) from None
        raise
    if world == 1:
        yield TrainingRanks()
        return
    from fae.run.ahead.torch_ahead import seems_to_have_gpu
    from fae.run.context import choose_device

    if place.world == 1:
        from fae.distributed.launcher import launch

        check_ranks(recipe_of(options), options.device, world, world)
        if options.device == "cuda" and not seems_to_have_gpu():
            choose_device("cuda")  # says what is missing, once
        # As the command that was typed, they find no module in the current folder, unless that is where it looks.
        path = [] if sys.path[0] in ("", os.getcwd()) else ["-P"]
        raise SystemExit(launch([sys.executable, *path, "-m", "fae", *options.arguments], world))
    from fae.core.progress import say
    from fae.distributed.rank_process import RankProcess

    with RankProcess(place) as process:
        check_ranks(recipe_of(options), options.device, world, place.local_world)
        if options.device is None and not seems_to_have_gpu() and choose_device(None) == "cpu":
            say(f"no GPU is found here, so {world} processes train on the CPU, as --device cpu would have it")
        ranks = TrainingRanks(process)
        yield ranks
        ranks.dismiss()


def train_on_ranks(options: argparse.Namespace) -> dict[str, Any]:
    """Run the stage ``train`` on the ranks of a command."""
    with ranks_of(options) as ranks:
        folder = open_run_folder(options, ranks)
        return folder.stage("train", replace=options.replace) if ranks.is_first else folder.help_train()
