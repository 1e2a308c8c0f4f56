"""What happens in a training, as frozen values for callbacks and ``metrics.jsonl``; they hold nothing that trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class TrainingEvent:
    """What every event has.

    Attributes
    ----------
    event
        Its name, as in ``metrics.jsonl``.
    inputs, batches
        Trained so far, over all epochs and processes.
    epoch
        Number of the epoch, from 1; 0 before the first batch.
    seconds
        Seconds of training steps so far, over all processes; without validation and checkpoints.
    """

    event: ClassVar[str]
    inputs: int
    batches: int
    epoch: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Its JSON object."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"event": self.event, **values}


@dataclass(frozen=True, kw_only=True)
class TrainingStarted(TrainingEvent):
    """A process begins to train, or continues.

    Attributes
    ----------
    name
        Name of the run folder; ``"training"`` without one.
    folder
        The run folder, or None.
    fingerprint
        What names the training; None without a folder.
    series
        The same without the number of epochs: a training with more epochs continues the same series.
    resumed
        Whether it continues from a checkpoint.
    epochs, epoch_batches
        Epochs, and batches of one.
    settings
        The recipe's ``[train]`` table.
    """

    event = "start"
    name: str
    folder: Path | None
    fingerprint: str | None
    series: str | None
    resumed: bool
    epochs: int
    epoch_batches: int
    settings: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Its JSON object, without what the recipe says."""
        values = super().to_json()
        del values["folder"], values["settings"]
        return values


@dataclass(frozen=True, kw_only=True)
class WindowClosed(TrainingEvent):
    """A window of the loss curve: some 200 an epoch. `inputs` and `batches` are those at its end.

    Attributes
    ----------
    loss
        Mean training loss of the window.
    inputs_per_second
        Mean rate so far; None before it is known.
    learning_rate
        Learning rate of the rows in the window's last batch.
    """

    event = "window"
    loss: float
    inputs_per_second: float | None
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Validated(TrainingEvent):
    """A validation.

    Attributes
    ----------
    whole
        Whether of the whole split, or of the fixed sample of the adaptive order.
    ends_epoch
        Whether at the end of an epoch.
    metrics
        ``log_loss``, ``auc`` and the others, as in ``validation_curve`` of the run record.
    """

    event = "validation"
    whole: bool
    ends_epoch: bool
    metrics: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Its JSON object, with the metrics beside the other keys."""
        values = super().to_json()
        return {**values, **values.pop("metrics")}


@dataclass(frozen=True, kw_only=True)
class EpochEnded(TrainingEvent):
    """An epoch is trained and validated.

    Attributes
    ----------
    epochs
        Epochs of the training.
    loss
        Mean training loss of the epoch, each input before its update; None where all weights are 0.
    validation_log_loss, validation_auc
        None without a validation split, or where not defined.
    seconds_left
        Expected seconds until the last epoch ends.
    """

    event = "epoch"
    epochs: int
    loss: float | None
    validation_log_loss: float | None
    validation_auc: float | None
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved(TrainingEvent):
    """A checkpoint was written.

    Attributes
    ----------
    name
        Its folder in the run folder: ``checkpoint``, ``best`` or ``last``.
    """

    event = "checkpoint"
    name: str


@dataclass(frozen=True, kw_only=True)
class TrainingEnded(TrainingEvent):
    """The training is at its end.

    Attributes
    ----------
    stopped_early
        Whether before its last epoch.
    stopped_by
        Why, where a callback ended it.
    result
        ``train``, ``validation`` and ``test`` of the run record.
    """

    event = "end"
    stopped_early: bool
    stopped_by: str | None
    result: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Its JSON object, with figures of both splits instead of the whole record."""
        values = super().to_json()
        result = values.pop("result")
        for split in ("validation", "test"):
            for name in ("log_loss", "auc"):
                values[f"{split}_{name}"] = result[split][name]
        return values
