"""Callbacks: code of one's own that sees a training and may end it, and changes no number of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from fae.core.errors import FaeError, TrainingError
from fae.training.watching.events import (
    CheckpointSaved,
    EpochEnded,
    TrainingEnded,
    TrainingEvent,
    TrainingStarted,
    Validated,
    WindowClosed,
)


class Callback:
    """Base class of callbacks: override what you want to see.

    Every method gets one event, a frozen object of numbers (`fae.training.watching.events`). A callback runs in the
    training's own thread, so the next batch waits for it; on a GPU, windows are reported once their loss has arrived,
    a few batches later. What it draws from torch's random stream on the CPU is put back. An exception in it ends the
    training as a `TrainingError` that names the callback and the method; the last checkpoint stays.
    """

    _stop_reason: str | None = None

    def on_start(self, started: TrainingStarted) -> None:
        """Training begins, or continues in another process."""

    def on_window(self, window: WindowClosed) -> None:
        """A window of the loss curve is closed: some 200 an epoch."""

    def on_validation(self, validation: Validated) -> None:
        """A validation is done."""

    def on_epoch(self, epoch: EpochEnded) -> None:
        """An epoch is trained and validated."""

    def on_checkpoint(self, checkpoint: CheckpointSaved) -> None:
        """A checkpoint was written."""

    def on_end(self, ended: TrainingEnded) -> None:
        """Training is at its end; not called where it failed or was interrupted."""

    def close(self) -> None:
        """Training is left, at its end or otherwise: close files."""

    def stop(self, reason: str = "it said so") -> None:
        """End the training, as early stopping does: behind the present batch, with validation, test and checkpoint.

        Parameters
        ----------
        reason
            In words, for ``train.stopped_by`` of the run record.
        """
        self._stop_reason = f"{type(self).__name__}: {reason}"

    def forget_stop(self) -> None:
        """Another training begins: a wish to end the one before is over."""
        self._stop_reason = None

    @property
    def stop_reason(self) -> str | None:
        """Why it wants the training to end; None where it does not."""
        return self._stop_reason


_METHODS: dict[type[TrainingEvent], Callable[[Callback, Any], None]] = {
    TrainingStarted: lambda callback, event: callback.on_start(event),
    WindowClosed: lambda callback, event: callback.on_window(event),
    Validated: lambda callback, event: callback.on_validation(event),
    EpochEnded: lambda callback, event: callback.on_epoch(event),
    CheckpointSaved: lambda callback, event: callback.on_checkpoint(event),
    TrainingEnded: lambda callback, event: callback.on_end(event),
}


class Callbacks:
    """Some callbacks, called in order.

    Raises
    ------
    TrainingError
        Where one of them is no `Callback`.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = tuple(callbacks)
        for callback in self._callbacks:
            if not isinstance(callback, Callback):
                wanted = "an object" if isinstance(callback, type) else "a subclass of fae.Callback"
                raise TrainingError(f"callbacks has {callback!r}, which must be {wanted}")

    def tell(self, event: TrainingEvent) -> None:
        """Call each of them with an event.

        Raises
        ------
        TrainingError
            If one fails; it names the callback and what went wrong.
        """
        for callback in self._callbacks:
            if isinstance(event, TrainingStarted):
                callback.forget_stop()
            try:
                with torch.random.fork_rng(devices=()):
                    _METHODS[type(event)](callback, event)
            except FaeError:
                raise
            except Exception as error:
                raise TrainingError(
                    f"the callback {type(callback).__name__} failed in on_{event.event} behind batch {event.batches}: "
                    f"{type(error).__name__}: {error}; correct it, or leave it out: training continues from its last "
                    "checkpoint"
                ) from error

    def close(self) -> None:
        """Let each of them close its files; what goes wrong there is no reason to fail."""
        for callback in self._callbacks:
            try:
                callback.close()
            except Exception as error:
                from fae.core.progress import say

                say(f"train: the callback {type(callback).__name__} could not be closed: {error}")

    @property
    def stop_reason(self) -> str | None:
        """Why one of them wants the training to end; None where none does."""
        return next((each.stop_reason for each in self._callbacks if each.stop_reason is not None), None)
