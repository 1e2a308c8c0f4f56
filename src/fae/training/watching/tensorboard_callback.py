"""The callback that writes TensorBoard's event files: `pip install tensorboard`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fae.training.watching.callbacks import Callback
from fae.training.watching.events import (
    CheckpointSaved,
    EpochEnded,
    TrainingEnded,
    TrainingStarted,
    Validated,
    WindowClosed,
)
from fae.training.watching.extras import figures, require_extra


class TensorBoardCallback(Callback):
    """Writes the course of a training for TensorBoard; steps are inputs trained.

    Tags are ``train/loss``, ``train/inputs_per_second``, ``train/learning_rate``, ``epoch/loss``, and for each metric
    ``validation/auc``, ``validation/log_loss`` and so on, ``test/auc`` and so on at the end. A training that is resumed
    continues the curves; one that begins anew hides the earlier ones of its folder.

    Parameters
    ----------
    folder
        Folder of the event files, one for each training.

    Raises
    ------
    RecipeError
        If TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        require_extra("tensorboard", what="TensorBoardCallback (--tensorboard)")
        self._folder = Path(folder)
        self._writer: Any = None

    def on_start(self, started: TrainingStarted) -> None:
        """As `Callback.on_start`."""
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        # What a process that was killed wrote behind its last checkpoint comes again.
        self._writer = writer(str(self._folder), purge_step=started.inputs + 1 if started.resumed else 0)

    def on_window(self, window: WindowClosed) -> None:
        """As `Callback.on_window`."""
        self._write("train", window.inputs, vars(window), ("loss", "inputs_per_second", "learning_rate"))

    def on_validation(self, validation: Validated) -> None:
        """As `Callback.on_validation`."""
        group = "validation" if validation.whole else "validation_sample"
        self._write(group, validation.inputs, validation.metrics)

    def on_epoch(self, epoch: EpochEnded) -> None:
        """As `Callback.on_epoch`."""
        self._write("epoch", epoch.inputs, vars(epoch), ("loss",))
        self._writer.flush()

    def on_checkpoint(self, checkpoint: CheckpointSaved) -> None:
        """As `Callback.on_checkpoint`."""
        self._writer.flush()

    def on_end(self, ended: TrainingEnded) -> None:
        """As `Callback.on_end`."""
        self._write("test", ended.inputs, ended.result["test"])

    def close(self) -> None:
        """As `Callback.close`."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def _write(self, group: str, inputs: int, values: Mapping[str, Any], names: tuple[str, ...] | None = None) -> None:
        for name, value in figures(values, names).items():
            self._writer.add_scalar(f"{group}/{name}", value, inputs)
