"""What every stage of a run knows: the recipe, the folder, the device, the run it continues."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fae.artifacts.columnar_log import ColumnarLog
from fae.core.config import check_folder
from fae.core.errors import DeviceError, RecipeError
from fae.core.printable import brief
from fae.run.ahead.torch_ahead import seems_to_have_gpu
from fae.run.rank_training import TrainingRanks

if TYPE_CHECKING:
    from fae.checkpoint.parent import ParentRun
    from fae.engine.engine import Engine
    from fae.run.recipe import Recipe
    from fae.training.watching.callbacks import Callback


class RunContext:
    """One recipe in one folder.

    Parameters
    ----------
    recipe
        What to do.
    out
        Folder of the artifacts; made where it does not exist.
    device
        ``"cpu"`` or ``"cuda"``; None takes a GPU where there is one.
    callbacks
        They see the training and may end it (`fae.Callback`).
    ranks
        This process as one of the ranks that train; None is the only one.

    Attributes
    ----------
    engine
        Where shards of the log are read; None for threads of this process.

    Raises
    ------
    RecipeError
        If `out` or `device` cannot be one.
    """

    def __init__(
        self,
        recipe: Recipe,
        out: str | Path,
        *,
        device: str | None = None,
        callbacks: Sequence[Callback] = (),
        ranks: TrainingRanks | None = None,
    ) -> None:
        check_folder(out, "--out")
        if device not in (None, "cpu", "cuda"):
            raise RecipeError(f"device = {brief(device)} must be 'cpu' or 'cuda', or None for a GPU where there is one")
        self.recipe, self.out, self.requested_device = recipe, Path(out), device
        self.callbacks = tuple(callbacks)
        self.ranks = ranks or TrainingRanks()
        self.ranks.find_device = self.device
        self.engine: Engine | None = None
        self._has_read = threading.Event()

    def artifact_path(self, kind: str) -> Path:
        """Folder of an artifact of this run, by its kind; an existing columnar log stays where it is."""
        if kind == "log" and self.recipe.log.is_columnar:
            from fae.ingest.existing_log import find_existing

            return find_existing(self.recipe.log, self.recipe.base)
        return self.out / kind

    def existing_log(self) -> ColumnarLog:
        """The columnar log that the recipe names, checked against the model's ``embedding_dims``.

        Raises
        ------
        LogError
            If there is none, or it is damaged.
        RecipeError
            If the recipe names columns that it does not have.
        """
        from fae.ingest.existing_log import open_existing

        log = open_existing(self.recipe.log, self.recipe.base)
        self.recipe.check_dims(
            {part.name: feature.name for feature in log.features for part in feature.parts or (feature,)}
        )
        return log

    def parent(self) -> ParentRun | None:
        """The run that this one continues, ``[train] from``; None where the recipe names none.

        Raises
        ------
        FaeError
            If it is missing, incomplete, or does not fit the recipe.
        """
        recipe = self.recipe
        if recipe.train.from_ is None:
            return None
        from fae.checkpoint.parent import find_parent

        parent = find_parent(recipe.train.from_, recipe.base)
        if parent.checkpoint.resolve().parent == self.out.resolve():
            raise RecipeError(
                f"[train] from = {recipe.train.from_!r} is the folder that this run writes to; choose another --out"
            )
        if recipe.log.is_columnar:
            parent.check_continued_by(self.existing_log())
        parent.check_fits(None if recipe.log.is_columnar else recipe.log, recipe.model, recipe.train.optimizer)
        return parent

    def check_device(self) -> None:
        """Refuse a GPU that is requested and not there; imports torch only where files do not speak of one.

        Raises
        ------
        DeviceError
            If there is none.
        """
        if self.requested_device == "cuda" and not seems_to_have_gpu():
            self.device()

    def device(self) -> str:
        """The device that training will use: ``"cpu"`` or ``"cuda"``.

        Raises
        ------
        DeviceError
            If a GPU was requested and there is none.
        """
        from fae.embedding.placements import find_placement

        return find_placement(self.recipe.train.placement).device_of(choose_device(self.requested_device)).type


def choose_device(requested: str | None) -> str:
    """``"cpu"`` or ``"cuda"``, as requested; None takes a GPU where there is one.

    Raises
    ------
    DeviceError
        If a GPU was requested and there is none.
    """
    import torch

    device = requested or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("there is no CUDA device here (or torch is a CPU build); run with --device cpu")
    return device
