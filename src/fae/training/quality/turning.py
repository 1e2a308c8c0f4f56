"""Whether validation has turned: its loss rises while the training loss still falls, so the model learns by heart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_NOTICEABLE = 1.001
"""Validation loss over that of the best epoch from which it has risen; less is noise of the split."""


def find_turn(epochs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The object ``validation_turned`` of the run record, from its ``epoch_curve``; None where validation has not."""
    known = [each for each in epochs if each["validation_log_loss"] is not None and each["loss"] is not None]
    if len(known) < 2:
        return None
    best, last = min(known, key=lambda each: each["validation_log_loss"]), known[-1]
    risen = last["validation_log_loss"] > _NOTICEABLE * best["validation_log_loss"]
    if not risen or last["loss"] >= best["loss"]:
        return None
    return {
        "epoch": best["epoch"],
        "validation_log_loss": best["validation_log_loss"],
        "training_loss": best["loss"],
        "last_epoch": last["epoch"],
        "last_validation_log_loss": last["validation_log_loss"],
        "last_training_loss": last["loss"],
    }


def turn_line(turn: Mapping[str, Any], *, early_stopping: int) -> str:
    """What a person should know of a turn, and what to set."""
    advice = (
        "early stopping returns to the best epoch"
        if early_stopping
        else f"set [train] epochs = {turn['epoch']}, or early_stopping = 1, which returns to the best epoch"
    )
    return (
        f"validation has turned after epoch {turn['epoch']}: its log loss rose from {turn['validation_log_loss']:.5f} "
        f"to {turn['last_validation_log_loss']:.5f} while the training loss fell from {turn['training_loss']:.5f} to "
        f"{turn['last_training_loss']:.5f}; {advice} (weight_decay and dropout work against it, too)"
    )
