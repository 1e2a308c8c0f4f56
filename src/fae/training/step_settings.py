"""What changes from step to step beside the batch: the learning rates of rows and dense weights."""

from __future__ import annotations

import math

import torch

from fae.embedding.base import Embeddings
from fae.training.config import TrainConfig
from fae.training.dense import set_dense_rate
from fae.training.position import Position


class StepSettings:
    """Sets the rates of every step of a training, where they change.

    Parameters
    ----------
    epoch_batches
        Batches of an epoch.

    Attributes
    ----------
    schedule
        How the rates change.
    """

    def __init__(
        self, config: TrainConfig, embeddings: Embeddings, dense_optimizer: torch.optim.Optimizer, epoch_batches: int
    ) -> None:
        self._config, self._embeddings, self._dense_optimizer = config, embeddings, dense_optimizer
        self.schedule = config.rates(epoch_batches)
        self._position = Position()

    def begin(self, position: Position) -> None:
        """Follow this position from here on; call it once rows and weights are those of the position."""
        self._position = position
        if self.schedule.changes:
            before = self._embeddings.steps - position.batches  # steps of the trainings that this one continues
            self._embeddings.follow_rates(lambda step: self.factor(step - 1 - before))

    def factor(self, batch: int) -> float:
        """What both rates are multiplied by in the step of a batch, numbered from 0 over all epochs."""
        return self.schedule.factor(batch, epoch_losses(self._position) if self.schedule.reads_losses else ())

    def before_step(self) -> None:
        """Set what the next step needs; on the stream of the steps, outside of what is captured."""
        if self.schedule.changes:
            set_dense_rate(self._dense_optimizer, self._config.dense_rate * self.factor(self._position.batches))


def epoch_losses(position: Position) -> list[float]:
    """Validation log loss at the end of each epoch so far; infinite where it is not defined."""
    losses = (entry["log_loss"] for entry in position.validation if entry["whole"])
    return [math.inf if loss is None else loss for loss in losses]
