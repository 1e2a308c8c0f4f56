"""Tells of a training: events to callbacks and to ``metrics.jsonl``, one line an epoch to people."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fae.artifacts.manifest import Plan
from fae.core.config import to_table
from fae.core.progress import say
from fae.training.config import TrainConfig
from fae.training.position import Position
from fae.training.quality.turning import find_turn, turn_line
from fae.training.watching.callbacks import Callback, Callbacks
from fae.training.watching.events import (
    CheckpointSaved,
    EpochEnded,
    TrainingEnded,
    TrainingStarted,
    Validated,
    WindowClosed,
)
from fae.training.watching.metrics_file import MetricsFile


class Watch:
    """Who watches one training, and what they are told.

    Parameters
    ----------
    callbacks
        Callbacks of one's own.
    config
        The recipe's ``[train]`` table.
    epoch_batches
        Batches of an epoch.
    folder, plan
        The run folder, which gets a ``metrics.jsonl``, and what names the training; None without one.
    rate_factor
        What the learning rates are multiplied by in the step of a batch, by its number from 0.
    """

    def __init__(
        self,
        callbacks: Sequence[Callback],
        config: TrainConfig,
        epoch_batches: int,
        *,
        folder: Path | None,
        plan: Plan | None,
        rate_factor: Callable[[int], float],
    ) -> None:
        self._config, self._epoch_batches, self._rate_factor = config, epoch_batches, rate_factor
        self._folder = folder
        self._fingerprint: str | None = None
        self._series: str | None = None
        self._file: MetricsFile | None = None
        if folder is not None and plan is not None:
            self._fingerprint, self._series = plan.fingerprint, _series(plan)
            self._file = MetricsFile(folder, self._series)
        own = () if self._file is None else (self._file,)
        self._callbacks = Callbacks((*own, *callbacks))
        self._position = Position()
        self._warned = False

    @property
    def stop_reason(self) -> str | None:
        """Why a callback wants the training to end; None where none does."""
        return self._callbacks.stop_reason

    def begin(self, position: Position) -> None:
        """Training begins at a position, or continues there."""
        self._position = position
        if self._file is not None:
            self._file.begin(position.inputs, self._points(position))
        self._callbacks.tell(
            TrainingStarted(
                **self._place(position.inputs, position.batches),
                name="training" if self._folder is None else self._folder.resolve().name,
                folder=self._folder,
                fingerprint=self._fingerprint,
                series=self._series,
                resumed=position.batches > 0,
                epochs=self._config.epochs,
                epoch_batches=self._epoch_batches,
                settings=to_table(self._config),
            )
        )

    def window(self, inputs: int, batches: int, loss: float) -> None:
        """A window of the loss curve is closed."""
        self._callbacks.tell(
            WindowClosed(
                **self._place(inputs, batches),
                loss=loss,
                inputs_per_second=self._position.inputs_per_second(),
                learning_rate=self._config.learning_rate * self._rate_factor(batches - 1),
            )
        )

    def validation(self, entry: Mapping[str, Any], *, ends_epoch: bool) -> None:
        """A validation is done; `entry` is that of the validation curve."""
        metrics = {key: value for key, value in entry.items() if key not in ("inputs", "whole", "ends_epoch")}
        self._callbacks.tell(Validated(**self._here(), whole=entry["whole"], ends_epoch=ends_epoch, metrics=metrics))

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """An epoch has ended; `entry` is that of the epoch curve. Says one line to people."""
        position, epochs = self._position, self._config.epochs
        spent = position.seconds + position.phase_seconds.get("validation", 0.0)
        left = spent / entry["epoch"] * (epochs - entry["epoch"])
        told = [
            *([] if entry["loss"] is None else [f"training loss {entry['loss']:.5f}"]),
            *_of("validation log loss", entry["validation_log_loss"]),
            *_of("AUC", entry["validation_auc"]),
        ]
        rest = f"; about {_duration(left)} left" if entry["epoch"] < epochs and not position.stopped_early else ""
        say(f"epoch {entry['epoch']} of {epochs}: {', '.join(told)}{rest}")
        turn = find_turn(position.epoch_curve)
        if turn and not self._warned and not self._config.early_stopping:
            self._warned = True
            say(f"train: {turn_line(turn, early_stopping=self._config.early_stopping)}")
        self._callbacks.tell(
            EpochEnded(
                **self._here(),
                epochs=epochs,
                loss=entry["loss"],
                validation_log_loss=entry["validation_log_loss"],
                validation_auc=entry["validation_auc"],
                seconds_left=left,
            )
        )

    def checkpoint(self, name: str) -> None:
        """A checkpoint was written."""
        self._callbacks.tell(CheckpointSaved(**self._here(), name=name))

    def end(self, result: Mapping[str, Any]) -> None:
        """The training is at its end."""
        train = result["train"]
        self._callbacks.tell(
            TrainingEnded(
                **self._here(), stopped_early=train["stopped_early"], stopped_by=train["stopped_by"], result=result
            )
        )

    def close(self) -> None:
        """Let callbacks close their files."""
        self._callbacks.close()

    def _here(self) -> dict[str, Any]:
        return self._place(self._position.inputs, self._position.batches)

    def _place(self, inputs: int, batches: int) -> dict[str, Any]:
        epoch = -(-batches // self._epoch_batches) if self._epoch_batches else 0
        return {"inputs": inputs, "batches": batches, "epoch": epoch, "seconds": self._position.seconds}

    def _points(self, position: Position) -> list[dict[str, Any]]:
        """What ``metrics.jsonl`` must have of a checkpoint, with what the checkpoint knows of it."""
        windows = [{"event": "window", "inputs": inputs, "loss": loss} for inputs, loss in position.curve]
        validations = [{"event": "validation", **entry} for entry in position.validation]
        epochs = [{"event": "epoch", **entry} for entry in position.epoch_curve]
        return [*windows, *validations, *epochs]


def _series(plan: Plan) -> str:
    train = plan.parameters.get("train")
    if not isinstance(train, Mapping):
        return plan.fingerprint
    rest = {key: value for key, value in train.items() if key != "epochs"}
    return dataclasses.replace(plan, parameters={**plan.parameters, "train": rest}).fingerprint


def _of(name: str, value: float | None) -> list[str]:
    return [] if value is None or not math.isfinite(value) else [f"{name} {value:.5f}"]


def _duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> _duration(7.2), _duration(100), _duration(7300)
    ('7 s', '2 min', '2.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
