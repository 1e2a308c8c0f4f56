"""When a run was started and ended, by which command, from which log, on which ranks, and what it continues."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from fae.report.records import RunRecord
from fae.report.sentences.rank_lines import rank_lines
from fae.report.shown_values import Absent, Shown, metric_text, seconds_text, show_value


def run_facts(run: RunRecord) -> Sequence[tuple[str, Shown, bool]]:
    """``(name, value, whether the value is a command or a path)`` of each fact that the record has."""
    facts: list[tuple[str, Shown, bool]] = []
    started, ended = (_time(run.text(name)) for name in ("started", "ended"))
    if started:
        facts.append(("started", _shown(started) + _length(started, ended), False))
    elif ended:
        facts.append(("ended", _shown(ended), False))
    if command := run.text("command"):
        facts.append(("command", command, True))
    train = run.get("recipe", "log", "train")
    if train:
        facts.append(("log", ", ".join(map(str, train)) if isinstance(train, list) else show_value(train), True))
    facts += [(rank, text or Absent.NOT_RECORDED, False) for rank, text in rank_lines(run.items("train", "each_rank"))]
    path = run.text("log_path")
    if path and path != "log":
        facts.append(("ingested in", path, True))
    if parent := run.text("parent", "path"):
        facts.append(("continues", parent.removesuffix("/checkpoint"), True))
        facts += _parent_results(run)
    return facts


def _parent_results(run: RunRecord) -> list[tuple[str, Shown, bool]]:
    """Results of the run that was continued: on its own test split, and on this one before training."""
    lines: list[tuple[str, Shown, bool]] = []
    for key, name in (("test", "its own test"), ("test_before", "on this test, before training")):
        auc, loss = run.number("parent", key, "auc"), run.number("parent", key, "log_loss")
        if run.table("parent", key):
            known = [text for text in (auc is not None and f"AUC {metric_text(auc)}",
                                       loss is not None and f"log loss {metric_text(loss)}") if text]  # fmt: skip
            lines.append((name, ", ".join(known) or Absent.NOT_DEFINED, False))
    auc, loss = run.number("test", "auc"), run.number("test", "log_loss")
    if lines and auc is not None and loss is not None:
        lines.append(("after training", f"AUC {metric_text(auc)}, log loss {metric_text(loss)}", False))
    return lines


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def _length(started: datetime, ended: datetime | None) -> str:
    """When it ended, and how long that took."""
    if ended is None or (started.tzinfo is None) != (ended.tzinfo is None):
        return ""
    took = (ended - started).total_seconds()
    end = f"{ended:%H:%M:%S}" if ended.date() == started.date() else _shown(ended)
    return f", ended {end}, {seconds_text(took)} later" if took >= 0 else ""


def _shown(time: datetime) -> str:
    zone = time.strftime("%z")
    return time.strftime("%Y-%m-%d %H:%M:%S") + (f" {zone[:3]}:{zone[3:5]}" if zone else "")
