"""Early stopping: when to validate inside an epoch, what a gain is, and after how many without one training ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fae.artifacts.packed import BatchSet
from fae.core.errors import TrainingError
from fae.training.config import TrainConfig
from fae.training.position import Position


class StopRule:
    """The rule of ``early_stopping``, ``stop_on`` and ``min_gain``.

    Attributes
    ----------
    on
        Whether there is one; without it, gains are counted all the same.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.on = config.early_stopping > 0
        self._unit = "validation" if config.validate_batches else "epoch"
        self._every = config.validate_batches
        self._most, self._metric, self._min_gain = config.early_stopping, config.stop_on, config.min_gain

    def is_due(self, position: Position, validation: BatchSet) -> bool:
        """Whether a validation inside the epoch is due: a resumed run may have to make one before its first batch."""
        if not self._every or not position.batches or position.batches % self._every or not validation.num_inputs:
            return False
        return not any(each["whole"] and each["inputs"] == position.inputs for each in position.validation)

    def judge(self, metrics: Mapping[str, Any], position: Position) -> bool:
        """Count a validation of the whole split, and say whether it is a gain.

        Parameters
        ----------
        metrics
            ``log_loss``, ``auc`` and ``label_rate``.
        position
            ``best_loss``, ``epochs_without_gain`` and ``stopped_early`` are updated.

        Raises
        ------
        TrainingError
            If training stops on an AUC that is not defined.
        """
        loss = metrics["log_loss"] if self._metric == "log_loss" else self._lost_auc(metrics)
        best = position.best_loss
        gained = loss is not None and (best is None or (loss < best and best - loss > self._min_gain))
        if gained:
            position.best_loss, position.epochs_without_gain = loss, 0
        else:
            position.epochs_without_gain += 1
        position.stopped_early = self.on and position.epochs_without_gain >= self._most
        return gained

    def _lost_auc(self, metrics: Mapping[str, Any]) -> float | None:
        """What an AUC lacks to 1: lower is better, as with a loss."""
        if metrics["auc"] is None and metrics["label_rate"] in (0, 1):
            raise TrainingError(
                f'[train] stop_on = "auc" needs both labels in the validation split, and every label of it is '
                f'{metrics["label_rate"]:.0f}; set stop_on = "log_loss", or a larger [log] validation_fraction'
            )
        return None if metrics["auc"] is None else 1.0 - metrics["auc"]

    def why(self, position: Position) -> str:
        """Why it ended the training, in words."""
        gain = f"no gain of more than {self._min_gain:g}" if self._min_gain else "no gain"
        name = " of the validation AUC" if self._metric == "auc" else ""
        count = position.epochs_without_gain
        return f"stopped early: {gain}{name} in {count} {self._unit}{'s' if count > 1 else ''}"
