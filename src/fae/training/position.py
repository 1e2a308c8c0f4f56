"""Where a training run is: what its checkpoint keeps beside the weights, so that a resumed run continues there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fae.artifacts.manifest import Plan, is_current
from fae.checkpoint.save_load import open_checkpoint
from fae.core.errors import ArtifactError
from fae.embedding.base import Embeddings


@dataclass
class Position:
    """Where a training run is, as JSON values.

    ``progress.json`` of a checkpoint has the same keys (``formats/checkpoint.md``).

    Attributes
    ----------
    schedule
        State of the schedule before the current segment was taken from it.
    in_segment
        Batches of the current segment that are trained.
    batches, inputs
        Batches and inputs trained since the run began, over all epochs.
    window_loss, window_inputs
        Sum of losses, and number of inputs (their weight, where the log has weights), of the open window of the loss
        curve.
    curve
        ``[inputs, mean loss]`` at the end of every closed window.
    validation
        Metrics of every validation, with ``inputs`` and ``whole`` (the whole split, or its fixed sample); those inside
        an epoch have ``ends_epoch`` false.
    epoch_curve
        Training loss and validation metrics of every finished epoch, as in the run record.
    epoch_loss, epoch_weight
        Sums of losses and of weights in this epoch's closed windows, less what the first of them had of the epoch
        before.
    best_loss
        Lowest validation log loss at the end of an epoch (1 - AUC where `stop_on` is the AUC); with `min_gain` that of
        the latest gain.
    epochs_without_gain
        Epochs since then; validations, with `validate_batches`.
    seconds
        Seconds of training steps, without validation and checkpoints.
    stage_seconds
        Seconds of everything that earlier processes of this run did up to their last checkpoint; in a checkpoint, up to
        that checkpoint.
    timed_seconds, timed_inputs
        Steps from which the rate is taken: not those that fill the pipeline, compile kernels or capture a graph.
    traffic
        What the placement counted before the last resume; in a checkpoint, up to that checkpoint.
    phase_seconds
        Likewise, seconds of steps by phase (``cold``, ``hot``, ``mixed``), of ``validation``, and what the placement
        times itself.
    threads
        Threads that torch uses for the dense part on a CPU; 0 on a GPU, and in checkpoints from before it was kept.
    stopped_early, complete
        Whether early stopping or a callback ended the run; whether the run is at its end.
    stopped_by
        Why, where a callback did.
    result
        What `fae.training.trainer.Trainer.fit` returned, once complete.
    """

    schedule: dict[str, Any] = field(default_factory=dict)
    in_segment: int = 0
    batches: int = 0
    inputs: int = 0
    window_loss: float = 0.0
    window_inputs: float = 0
    curve: list[list[float]] = field(default_factory=list)
    validation: list[dict[str, Any]] = field(default_factory=list)
    epoch_curve: list[dict[str, Any]] = field(default_factory=list)
    epoch_loss: float = 0.0
    epoch_weight: float = 0.0
    best_loss: float | None = None
    epochs_without_gain: int = 0
    seconds: float = 0.0
    stage_seconds: float = 0.0
    timed_seconds: float = 0.0
    timed_inputs: int = 0
    traffic: dict[str, int] = field(default_factory=dict)
    phase_seconds: dict[str, float] = field(default_factory=dict)
    threads: int = 0
    stopped_early: bool = False
    stopped_by: str | None = None
    complete: bool = False
    result: dict[str, Any] = field(default_factory=dict)

    def end_epoch(self, epoch: int, validated: Mapping[str, Any] | None) -> dict[str, Any]:
        """Add a finished epoch to its curve, and return the entry.

        Parameters
        ----------
        epoch
            Its number, from 1.
        validated
            Metrics of the validation at its end; None without one.
        """
        weight = self.epoch_weight + self.window_inputs
        entry = {
            "epoch": epoch,
            "inputs": self.inputs,
            "loss": (self.epoch_loss + self.window_loss) / weight if weight else None,
            "validation_log_loss": None if validated is None else validated["log_loss"],
            "validation_auc": None if validated is None else validated["auc"],
        }
        self.epoch_curve.append(entry)
        # The open window will be closed in the next epoch, with what it has of this one.
        self.epoch_loss, self.epoch_weight = -self.window_loss, -self.window_inputs
        return entry

    def spend(self, phase: str, seconds: float) -> None:
        """Add seconds to a phase."""
        self.phase_seconds[phase] = self.phase_seconds.get(phase, 0.0) + seconds

    def inputs_per_second(self) -> float | None:
        """Rate of the timed steps; of all steps where none was timed; None before the first."""
        if self.timed_seconds > 0:
            return self.timed_inputs / self.timed_seconds
        return self.inputs / self.seconds if self.seconds else None

    def traffic_since_start(self, embeddings: Embeddings) -> dict[str, int]:
        """Counted by the placement since the run began; exporting rows may itself move some."""
        return {name: self.traffic.get(name, 0) + count for name, count in embeddings.traffic.items()}

    def phases_since_start(self, embeddings: Embeddings) -> dict[str, float]:
        """Seconds since the run began. Swaps are part of the phases and of the validations in which they happen."""
        spent = dict(self.phase_seconds)
        for name, seconds in embeddings.seconds.items():
            spent[name] = spent.get(name, 0.0) + seconds
        return spent

    def counted(self, embeddings: Embeddings) -> tuple[dict[str, int], dict[str, float]]:
        """Traffic and seconds by phase since the run began."""
        return self.traffic_since_start(embeddings), self.phases_since_start(embeddings)

    def count_from(self, counted: tuple[dict[str, int], dict[str, float]], embeddings: Embeddings) -> None:
        """Set traffic and seconds to what they were: more epochs continue without the evaluations at the end."""
        traffic, seconds = counted
        self.traffic = {name: count - embeddings.traffic.get(name, 0) for name, count in traffic.items()}
        self.phase_seconds = {name: spent - embeddings.seconds.get(name, 0.0) for name, spent in seconds.items()}

    def to_checkpoint(self, embeddings: Embeddings, seconds_of_process: float) -> dict[str, Any]:
        """The values of ``progress.json``."""
        return {
            **dataclasses.asdict(self),
            "traffic": self.traffic_since_start(embeddings),
            "phase_seconds": self.phases_since_start(embeddings),
            "stage_seconds": self.stage_seconds + seconds_of_process,
        }


def require_best(checkpoint: Path, best: Path, plan: Plan) -> None:
    """Refuse to resume a run whose best weights are missing: early stopping returns to them at its end.

    Raises
    ------
    ArtifactError
        If `best` is not there, damaged or of another run.
    """
    fix = f"{checkpoint} continues to its end and then back to {best}; move both away and run `{plan.command}`"
    try:
        if is_current(best, plan):
            open_checkpoint(best)
            return
    except ArtifactError as error:
        raise ArtifactError(f"{str(error).split(';')[0]}; {fix}") from error
    raise ArtifactError(f"{best} is not there or of another run; {fix}")
