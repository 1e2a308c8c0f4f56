"""What changes from step to step beside the batch: the learning rates, and the seed of dropout.

Masks of dropout are drawn by torch's generator of the model's device. It is seeded anew before each step, from the
recipe's seed and the number of batches trained: so masks depend on neither kills, placements nor captured graphs, whose
replays read the generator's seed from device memory. Each slice of a batch has masks of its own, so they depend on the
number of slices.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from fae.core.seeds import derive_seed
from fae.embedding.base import Embeddings
from fae.training.config import TrainConfig
from fae.training.dense import set_dense_rate
from fae.training.position import Position


class StepControls:
    """Sets the rates of every step of a training, where they change, and the seed, where the model drops units.

    Parameters
    ----------
    model
        On its device.
    epoch_batches
        Batches of an epoch.

    Attributes
    ----------
    schedule
        How the rates change.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        embeddings: Embeddings,
        dense_optimizer: torch.optim.Optimizer,
        epoch_batches: int,
    ) -> None:
        self._config, self._embeddings, self._dense_optimizer = config, embeddings, dense_optimizer
        self.schedule = config.rates(epoch_batches)
        self._random = _generator(embeddings.device) if drops_units(model) else None
        self._position = Position()

    @property
    def seeds_within_steps(self) -> bool:
        """Whether each of several slices draws masks by a seed of its own, which a captured step cannot set."""
        return self._random is not None and len(self._embeddings.group.slices.own) > 1

    def begin(self, position: Position) -> None:
        """Follow this position from here on; call it once rows and weights are those of the position."""
        self._position = position
        if self.schedule.changes:
            before = self._embeddings.steps - position.batches  # steps of the trainings that this one continues
            self._embeddings.follow_rates(lambda step: self.factor(step - 1 - before))

    def factor(self, batch: int) -> float:
        """What both rates are multiplied by in the step of a batch, numbered from 0 over all epochs."""
        losses = epoch_losses(self._position, self._config.stop_on) if self.schedule.reads_losses else ()
        return self.schedule.factor(batch, losses)

    def before_step(self) -> None:
        """Set what the next step needs; on the stream of the steps, outside of what is captured."""
        if self.schedule.changes:
            set_dense_rate(self._dense_optimizer, self._config.dense_rate * self.factor(self._position.batches))
        self.before_slice(0)

    def before_slice(self, number: int) -> None:
        """Set what the next slice needs, the `number`-th of this rank; `before_step` does it for the first."""
        if self._random is not None:
            place = self._embeddings.group.slices.own[number]
            own = (place,) if place else ()  # the inputs of each slice have masks of their own
            self._random.manual_seed(derive_seed(self._config.seed, "dropout", self._position.batches, *own))


_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def drops_units(model: nn.Module) -> bool:
    """Whether a training step draws masks of dropout: by FAE's model, or by modules of torch in one of the user's own.

    Attention and recurrent layers keep their share as a number.
    """
    shares = (part.p if isinstance(part, _DROPOUT) else getattr(part, "dropout", 0.0) for part in model.modules())
    return any(isinstance(share, float) and share > 0 for share in shares)


def _generator(device: torch.device) -> torch.Generator:
    """Torch's own generator of a device, which modules draw from."""
    if device.type != "cuda":
        return torch.default_generator
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]


def epoch_losses(position: Position, metric: str = "log_loss") -> list[float]:
    """Validation loss at the end of each epoch so far; infinite where it is not defined.

    Parameters
    ----------
    metric
        ``log_loss``, or ``auc``: what that lacks to 1.
    """
    ends = [entry for entry in position.validation if entry["whole"] and entry.get("ends_epoch", True)]
    if metric == "auc":
        return [math.inf if entry["auc"] is None else 1 - entry["auc"] for entry in ends]
    return [math.inf if entry["log_loss"] is None else entry["log_loss"] for entry in ends]
