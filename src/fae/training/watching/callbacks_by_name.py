"""The callbacks that the command line offers, from what it was told. Imports no library that is not wanted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fae.core.config import check_folder

if TYPE_CHECKING:
    from fae.training.watching.callbacks import Callback


def callbacks_of(tensorboard: str | None, wandb: str | None, out: Path) -> list[Callback]:
    """The callbacks of ``--tensorboard DIR`` and ``--wandb PROJECT``; None leaves one out.

    Parameters
    ----------
    out
        The run folder; its name is that of the run in both.

    Raises
    ------
    RecipeError
        If the folder cannot be one, or a library is not installed.
    """
    found: list[Callback] = []
    if tensorboard is not None:
        from fae.training.watching.tensorboard_callback import TensorBoardCallback

        check_folder(tensorboard, "--tensorboard")
        found.append(TensorBoardCallback(Path(tensorboard) / out.resolve().name))
    if wandb is not None:
        from fae.training.watching.wandb_callback import WandbCallback

        found.append(WandbCallback(wandb))
    return found
