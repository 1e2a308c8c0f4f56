"""The callback that reports to Weights & Biases: `pip install wandb`."""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fae.core.whole_files import read_json, write_record
from fae.training.watching.callbacks import Callback
from fae.training.watching.events import EpochEnded, TrainingEnded, TrainingStarted, Validated, WindowClosed
from fae.training.watching.extras import figures, require_extra

_STATE = "wandb.json"
"""File of the run folder with the id of the W&B run, so that a resumed training continues it."""


class WandbCallback(Callback):
    """Reports a training to Weights & Biases, as one W&B run; the axis of its charts is the number of inputs trained.

    Figures have the names of `TensorBoardCallback`; the run's configuration is the recipe's ``[train]`` table, its
    summary the metrics of the test split. Where W&B is offline (``WANDB_MODE=offline``), `wandb sync` sends it later.

    Parameters
    ----------
    project
        Name of the W&B project.
    name
        Name of the W&B run; None takes that of the run folder.
    **settings
        More arguments for ``wandb.init``, such as ``entity``, ``tags`` or ``mode``.

    Raises
    ------
    RecipeError
        If wandb is not installed.
    """

    def __init__(self, project: str, *, name: str | None = None, **settings: Any) -> None:
        require_extra("wandb", what="WandbCallback (--wandb)")
        self._project, self._name, self._settings = project, name, settings
        self._run: Any = None
        self._ended = False

    def on_start(self, started: TrainingStarted) -> None:
        """As `Callback.on_start`."""
        wandb: Any = importlib.import_module("wandb")
        place = {} if started.folder is None else {"dir": str(started.folder)}
        self._ended = False
        self._run = wandb.init(
            **{
                "project": self._project,
                "name": self._name or started.name,
                "id": self._find_id(started),
                "resume": "allow",
                "config": dict(started.settings),
                **place,
                **self._settings,
            }
        )
        self._run.define_metric("*", step_metric="inputs")

    def _find_id(self, started: TrainingStarted) -> str:
        """The id of the W&B run that is continued, or a new one, kept in the run folder."""
        fresh = secrets.token_hex(4)
        if started.folder is None:
            return fresh
        path = Path(started.folder) / _STATE
        try:
            known = read_json(path)
            if started.resumed and known["series"] == started.series and known["project"] == self._project:
                return str(known["id"])
        except (OSError, ValueError, KeyError, TypeError):  # none is there
            pass
        write_record(path, {"id": fresh, "project": self._project, "series": started.series})
        return fresh

    def on_window(self, window: WindowClosed) -> None:
        """As `Callback.on_window`."""
        self._log("train", window.inputs, vars(window), ("loss", "inputs_per_second", "learning_rate"))

    def on_validation(self, validation: Validated) -> None:
        """As `Callback.on_validation`."""
        self._log("validation" if validation.whole else "validation_sample", validation.inputs, validation.metrics)

    def on_epoch(self, epoch: EpochEnded) -> None:
        """As `Callback.on_epoch`."""
        self._log("epoch", epoch.inputs, vars(epoch), ("loss",))

    def on_end(self, ended: TrainingEnded) -> None:
        """As `Callback.on_end`."""
        found = figures(ended.result["test"])
        self._run.summary.update({f"test/{name}": value for name, value in found.items()})
        self._ended = True

    def close(self) -> None:
        """As `Callback.close`."""
        if self._run is not None:
            self._run.finish(exit_code=0 if self._ended else 1)
        self._run = None

    def _log(self, group: str, inputs: int, values: Mapping[str, Any], names: tuple[str, ...] | None = None) -> None:
        found = {f"{group}/{name}": value for name, value in figures(values, names).items()}
        self._run.log({"inputs": inputs, **found})
