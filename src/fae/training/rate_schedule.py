"""Learning-rate schedules: by how much both rates are multiplied in a step. A pure function; imports no library.

The factor of a step depends on the number of batches trained before it and, under ``plateau``, on the validation losses
at the ends of epochs. Both are in every checkpoint, so a resumed training has the rates of one that was not killed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fae.core.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class RateSchedule:
    """The factor of the rates of rows and dense weights, step by step.

    Attributes
    ----------
    name
        ``constant``, ``linear``, ``cosine``, ``step`` or ``plateau``.
    epoch_batches, epochs
        Batches of an epoch; epochs of the training.
    warmup_epochs
        Epochs (a fraction, too) over which the factor rises from almost 0 to 1, in equal parts.
    final_rate
        Factor at the end of ``linear`` and ``cosine``; the lowest of ``step`` and ``plateau``.
    step_epochs, step_factor
        Under ``step``, the factor is multiplied by `step_factor` after every `step_epochs`.
    patience
        Under ``plateau``, it is multiplied by `step_factor` after that many epochs without a gain.
    min_gain
        By how much a loss must be below the lowest one to be a gain.
    """

    name: str
    epoch_batches: int
    epochs: int
    warmup_epochs: float = 0.0
    final_rate: float = 0.0
    step_epochs: float = 1.0
    step_factor: float = 0.1
    patience: int = 1
    min_gain: float = 0.0

    @property
    def changes(self) -> bool:
        """Whether any factor differs from 1."""
        return self.name != "constant" or self.warmup_batches > 0

    @property
    def reads_losses(self) -> bool:
        """Whether a factor depends on validation losses."""
        return self.name == "plateau"

    @property
    def knows_its_end(self) -> bool:
        """Whether more epochs change the factors of the first ones."""
        return self.name in ("linear", "cosine")

    @property
    def warmup_batches(self) -> int:
        """Batches of the warm-up: the factor of batch i is (i + 1) / warmup_batches."""
        return round(self.warmup_epochs * self.epoch_batches)

    def factor(self, batch: int, losses: Sequence[float] = ()) -> float:
        """The factor of a step.

        Parameters
        ----------
        batch
            Number of the batch, from 0, over all epochs.
        losses
            Validation loss at the end of each epoch before it.
        """
        if batch < self.warmup_batches:
            return (batch + 1) / self.warmup_batches
        return _FACTORS[self.name](self, batch, losses)

    def _progress(self, batch: int) -> float:
        """Share of the batches after the warm-up that were trained before this one, at most 1."""
        return min(1.0, (batch - self.warmup_batches) / max(1, self.epochs * self.epoch_batches - self.warmup_batches))

    def _linear(self, batch: int, losses: Sequence[float]) -> float:
        return self.final_rate + (1 - self.final_rate) * (1 - self._progress(batch))

    def _cosine(self, batch: int, losses: Sequence[float]) -> float:
        return self.final_rate + (1 - self.final_rate) * (1 + math.cos(math.pi * self._progress(batch))) / 2

    def _step(self, batch: int, losses: Sequence[float]) -> float:
        falls = batch // max(1, round(self.step_epochs * self.epoch_batches))
        return max(self.final_rate, self.step_factor**falls)

    def _plateau(self, batch: int, losses: Sequence[float]) -> float:
        lowest, without_gain, falls = math.inf, 0, 0
        for loss in losses:
            if loss < lowest and lowest - loss > self.min_gain:
                lowest, without_gain = loss, 0
                continue
            without_gain += 1
            if without_gain == self.patience:
                falls, without_gain = falls + 1, 0
        return max(self.final_rate, self.step_factor**falls)


_FACTORS: Mapping[str, Callable[[RateSchedule, int, Sequence[float]], float]] = {
    "constant": lambda schedule, batch, losses: 1.0,
    "linear": RateSchedule._linear,
    "cosine": RateSchedule._cosine,
    "step": RateSchedule._step,
    "plateau": RateSchedule._plateau,
}

READ_BY: Mapping[str, tuple[str, ...]] = {
    "final_rate": ("linear", "cosine", "step", "plateau"),
    "step_epochs": ("step",),
    "step_factor": ("step", "plateau"),
    "patience": ("plateau",),
}
"""The schedules that read a key of the recipe."""


def check_rates(schedule: RateSchedule, *, given: Sequence[str]) -> None:
    """Refuse a schedule that cannot be.

    Parameters
    ----------
    given
        Keys of `READ_BY` that the recipe sets to another value than their default.

    Raises
    ------
    RecipeError
        For a value out of its range, a warm-up as long as the training, or a key that the schedule does not read.
    """
    if schedule.warmup_epochs < 0:
        raise RecipeError(f"[train] warmup_epochs = {schedule.warmup_epochs} must be 0 or more")
    if schedule.patience < 1:
        raise RecipeError(f"[train] patience = {schedule.patience} must be 1 or more")
    if not 0 <= schedule.final_rate <= 1:
        raise RecipeError(
            f"[train] final_rate = {schedule.final_rate} must be from 0 to 1: it is a share of the learning rates"
        )
    if not schedule.step_epochs > 0:
        raise RecipeError(f"[train] step_epochs = {schedule.step_epochs} must be more than 0")
    if not 0 < schedule.step_factor < 1:
        raise RecipeError(f"[train] step_factor = {schedule.step_factor} must be between 0 and 1")
    if schedule.knows_its_end and schedule.warmup_epochs >= schedule.epochs:
        raise RecipeError(
            f"[train] warmup_epochs = {schedule.warmup_epochs:g} leaves nothing of {schedule.epochs} epochs for "
            f"rate_schedule = {schedule.name!r}; make it less than epochs"
        )
    for key in given:
        if schedule.name not in READ_BY[key]:
            raise RecipeError(
                f"[train] {key} is read by rate_schedule = {' or '.join(map(repr, READ_BY[key]))}, and the schedule is "
                f"{schedule.name!r}; set rate_schedule, or take {key} out"
            )
