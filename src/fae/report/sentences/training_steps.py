"""What to try next in training: epochs, learning rates, the order of batches, a validation split."""

from __future__ import annotations

from typing import Any

from fae.report.records import RunRecord, as_number
from fae.report.sentences.commands import NextStep, again
from fae.report.sentences.noise import auc_error_of, base_log_loss, differ, label_rate_of
from fae.report.shown_values import metric_text

_TURNED = 1.001
"""A validation log loss that is this many times the best one has turned."""
_STILL_FALLING = 0.995
_FEW_CORES, _MANY_CORES = 2, 4


def no_better_than_the_base_rate_step(run: RunRecord) -> NextStep | None:
    """A smaller learning rate, where the model knows nothing."""
    loss, base = run.number("test", "log_loss"), base_log_loss(label_rate_of(run))
    rate = run.number("recipe", "train", "learning_rate")
    # Fewer epochs are the cure where an earlier one was better.
    if loss is None or base is None or not rate or loss < base or validation_turned_step(run):
        return None
    return NextStep(
        title="Train with a smaller learning rate",
        why=f"the test log loss, {metric_text(loss)}, is no better than that of the base rate, {metric_text(base)}",
        command=again(run, "train.learning_rate", f"{rate / 4:g}", name="slower"),
    )


def validation_turned_step(run: RunRecord) -> NextStep | None:
    """Fewer epochs, where the last ones made validation worse."""
    losses = [as_number(one.get("log_loss")) for one in run.items("train", "validation_curve") if _ends_epoch(one)]
    known = [loss for loss in losses if loss is not None]
    if len(known) < 2 or len(known) < len(losses):
        return None
    best = known.index(min(known)) + 1
    if best == len(known) or known[-1] <= known[best - 1] * _TURNED:
        return None
    return NextStep(
        title=f"Stop after {best} epoch{'s' * (best > 1)}",
        why=f"validation turned: its log loss was {metric_text(known[best - 1])} after epoch {best} and "
        f"{metric_text(known[-1])} after epoch {len(known)}, which is overfitting",
        command=again(run, "train.epochs", f"{best}", name=f"{best}_epochs"),
    )


def more_epochs_step(run: RunRecord) -> NextStep | None:
    """Twice the epochs, where validation still falls or only one was trained."""
    losses = [as_number(one.get("log_loss")) for one in run.items("train", "validation_curve") if _ends_epoch(one)]
    known = [loss for loss in losses if loss is not None]
    epochs = run.number("train", "epochs")
    if not known or not epochs or len(known) < len(losses) or run.get("train", "stopped_early") is True:
        return None
    if len(known) == 1 and epochs == 1:
        why = "every input was seen once, so nothing says yet where validation turns; the finished epoch is kept"
    elif len(known) > 1 and known[-1] < known[-2] * _STILL_FALLING:
        why = (
            f"validation still falls: its log loss was {metric_text(known[-2])} after the last epoch but one and "
            f"{metric_text(known[-1])} at the end; finished epochs are kept"
        )
    else:
        return None
    return NextStep(
        title=f"Train {2 * epochs:g} epochs", why=why, command=again(run, "train.epochs", f"{2 * epochs:g}")
    )


def _ends_epoch(validation: Any) -> bool:
    return (
        isinstance(validation, dict) and validation.get("whole") is True and validation.get("ends_epoch") is not False
    )


def order_of_batches_step(run: RunRecord) -> NextStep | None:
    """Mixed batches where there are cores to stream for them, batches of one kind where there are not."""
    order, cores = run.text("recipe", "train", "order"), run.number("machine", "cores")
    if not run.text("machine", "gpu") or cores is None or run.text("recipe", "train", "placement") != "tiered":
        return None
    if order == "shuffled" and cores <= _FEW_CORES:
        return NextStep(
            title="Train hot and cold batches apart",
            why=f"{cores:g} CPU cores cannot stream cold rows for every batch; hot batches need none",
            command=again(run, "train.order", "interleaved", name="interleaved"),
        )
    if order in ("interleaved", "adaptive", "fixed_rate") and cores >= _MANY_CORES:
        return NextStep(
            title="Train mixed batches",
            why=f"they are what plain training sees, so order costs no accuracy, and {cores:g} CPU cores can stream "
            "for them",
            command=again(run, "train.order", "shuffled", name="shuffled"),
        )
    return None


def a_single_column_is_as_good_step(run: RunRecord) -> NextStep | None:
    """A larger rate of the dense part, where the model is not above its best column."""
    best = next(iter(run.items("test", "context", "columns")), {})
    auc, alone, error = run.number("test", "auc"), as_number(best.get("auc")), auc_error_of(run)
    rate = run.number("recipe", "train", "dense_learning_rate") or run.number("recipe", "train", "learning_rate")
    if auc is None or alone is None or error is None or not rate or (auc > alone and differ(auc, error, alone, error)):
        return None
    return NextStep(
        title="Train the dense part faster",
        why=f"the model's test AUC, {metric_text(auc)}, is not above that of the column {best.get('column')} alone, "
        f"{metric_text(alone)}",
        command=again(run, "train.dense_learning_rate", f"{2 * rate:g}", name="faster"),
    )


def no_validation_step(run: RunRecord) -> NextStep | None:
    """A validation split, where there is none."""
    ends = run.get("log", "splits", "validation")
    if not isinstance(ends, list) or len(ends) != 2 or as_number(ends[0]) is None or ends[0] != ends[1]:
        return None
    return NextStep(
        title="Keep a validation split",
        why="without one nothing shows when training should stop, and only the test split tells settings apart",
        command=again(run, "log.validation_fraction", "0.1", name="validated"),
    )
