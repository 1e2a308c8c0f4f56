"""How many ranks a command trains on: more than one is not built yet, and is refused."""

from __future__ import annotations

from fae.core.errors import RecipeError
from fae.distributed.places import place_of_process


def check_num_ranks(gpus: int) -> None:
    """Refuse to train on more than one rank.

    Parameters
    ----------
    gpus
        What ``--gpus`` says.

    Raises
    ------
    RecipeError
        If it is not 1, or torchrun has started several.
    """
    if gpus < 1:
        raise RecipeError(f"--gpus {gpus} must be 1 or more")
    world = max(gpus, place_of_process().world)
    if world > 1:
        raise RecipeError(
            f"training on several GPUs is not built yet, and {world} are requested; leave --gpus out, and start one "
            "process (WORLD_SIZE is that of torchrun)"
        )
