"""The parts of ``validation`` and ``test`` in the run record beside the metrics: what they mean and what they hide."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.threads import one_thread, run_jobs
from fae.training.quality.calibration import measure_calibration
from fae.training.quality.group_auc import measure_group_auc
from fae.training.quality.input_columns import InputColumns
from fae.training.quality.metrics import ScoredInputs, metrics_of
from fae.training.quality.single_columns import SingleColumns


def describe_quality(
    labels: npt.NDArray[np.float32],
    logits: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32] | None = None,
    *,
    inputs: InputColumns | None = None,
    singles: SingleColumns | None = None,
) -> dict[str, Any]:
    """``calibration``, ``unknown_ids``, ``group_auc`` and ``context`` of a split (docs/reference/run_record.md).

    Parameters
    ----------
    labels, logits, weights
        As in `fae.training.quality.metrics.compute_metrics`.
    inputs
        Ids of the same inputs, in the same order; None leaves out what needs them.
    singles
        Click rates of single columns; None leaves these out.
    """
    return _describe(ScoredInputs(labels, logits, weights), inputs, singles)


def measure_quality(
    labels: npt.NDArray[np.float32],
    logits: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32] | None = None,
    *,
    inputs: InputColumns | None = None,
    singles: SingleColumns | None = None,
) -> dict[str, Any]:
    """Metrics of a split, and beside them what `describe_quality` finds, as the run record has them."""
    scored = ScoredInputs(labels, logits, weights)
    return {**dataclasses.asdict(metrics_of(scored)), **_describe(scored, inputs, singles)}


def _describe(scored: ScoredInputs, inputs: InputColumns | None, singles: SingleColumns | None) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(("calibration", "unknown_ids", "group_auc", "context"))
    if not scored.total_weight or scored.has_nan:
        return found
    labels, weights = scored.labels, scored.weights
    shown, order, _ = scored.probabilities, scored.order, scored.losses  # made once, before the jobs below
    jobs: dict[str, Callable[[], Any]] = {
        "calibration": lambda: measure_calibration(labels, shown, weights, order=order)
    }
    if inputs is not None:
        has_unknown, group = inputs.has_unknown, inputs.group
        jobs |= {"with": lambda: _part(scored, has_unknown), "without": lambda: _part(scored, ~has_unknown)}
        if group is not None:
            groups = inputs.groups
            jobs["group_auc"] = lambda: measure_group_auc(
                labels, scored.logits, groups, column=group.name, unknown_id=group.unknown_id, weights=weights
            )
    found |= _side_by_side(jobs)
    if inputs is not None:
        found["unknown_ids"] = {part: found.pop(part) for part in ("with", "without")}
    context = {"base_rate_log_loss": _entropy(found["calibration"]["label_rate"]), "best_column": None}
    if inputs is not None and singles is not None:
        context |= singles.compare(labels, inputs, weights) or {}
    found["context"] = context
    return found


def _side_by_side(jobs: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """What each job returns, by its name; each on a thread of its own."""
    found: dict[str, Any] = {}

    def work(name: str) -> None:
        with one_thread():
            found[name] = jobs[name]()

    run_jobs([partial(work, name) for name in jobs])
    return found


def _entropy(rate: float) -> float:
    return float(sum(-p * np.log(p) for p in (rate, 1 - rate) if p > 0))  # 0, not -0, of one class


def _part(scored: ScoredInputs, chosen: npt.NDArray[np.bool_]) -> dict[str, Any]:
    found = metrics_of(scored.part(chosen))
    return {
        "num_inputs": found.num_inputs,
        "share": found.num_inputs / len(scored.labels),
        "auc": found.auc,
        "log_loss": found.log_loss,
        "label_rate": found.label_rate,
    }


def has_groups(result: Mapping[str, Any], group_by: str | None) -> bool:
    """Whether a result has the AUC within each value of the column `group_by`, or none is wanted."""
    if group_by is None:
        return True
    for split in ("test", "validation"):
        found = result.get(split) or {}
        # There are no groups of no inputs, and of predictions that are no numbers.
        measured = found.get("num_inputs") and found.get("calibration", True) is not None
        if measured and (found.get("group_auc") or {}).get("column") != group_by:
            return False
    return True


def quality_lines(split: str, metrics: Mapping[str, Any]) -> list[str]:
    """What a person should know of a split's metrics beside AUC and log loss, a line each.

    Parameters
    ----------
    split
        What the metrics are of, such as ``"test"``; may be empty.
    metrics
        As in the run record.
    """
    lines = (_in_context(metrics), _calibrated(metrics), _grouped(metrics))
    return [f"{split} {line}".strip() for line in lines if line]


def _in_context(metrics: Mapping[str, Any]) -> str:
    context, auc, log_loss = metrics.get("context"), metrics.get("auc"), metrics.get("log_loss")
    if not context or log_loss is None:
        return ""
    line = f"log loss {log_loss:.5f} against {context['base_rate_log_loss']:.5f} of the bare click rate"
    best = context["best_column"]
    if best and best["auc"] is not None and auc is not None:
        # Equal as printed is equal.
        better, same = round(auc, 4) > round(best["auc"], 4), round(auc, 4) == round(best["auc"], 4)
        compared = "better than" if better else "no better than" if same else "worse than"
        line += f"; AUC {auc:.4f} is {compared} the best single column, {best['column']}, {best['auc']:.4f}"
        if better and best["log_loss"] is not None and best["log_loss"] < log_loss:
            line += f", but the log loss of that column is {best['log_loss']:.5f}: the model's probabilities are off"
        if not better:
            line += ": try more epochs, another learning rate, or look whether the other columns say anything"
    return line


def _calibrated(metrics: Mapping[str, Any]) -> str:
    found = metrics.get("calibration")
    if not found or found["ratio"] is None:
        return ""
    return (
        f"mean prediction {found['mean_prediction']:.4f} for a click rate of {found['label_rate']:.4f} "
        f"(ratio {found['ratio']:.3f}), expected calibration error {found['expected_error']:.4f}"
    )


def _grouped(metrics: Mapping[str, Any]) -> str:
    group, parts = metrics.get("group_auc"), []
    if group:
        left_out = f"{group['one_class_groups']:,} groups of one class left out"
        if group["unknown_inputs"]:
            left_out += f", and {group['unknown_inputs']:,} inputs whose {group['column']} is unknown"
        value = "not defined" if group["auc"] is None else f"{group['auc']:.4f}"
        parts.append(f"AUC within {group['column']} {value} ({group['num_groups']:,} groups; {left_out})")
    unknown = metrics.get("unknown_ids")
    if unknown and unknown["with"]["num_inputs"] and unknown["without"]["num_inputs"]:
        some, none = unknown["with"], unknown["without"]
        if some["auc"] is not None and none["auc"] is not None:
            parts.append(
                f"AUC {some['auc']:.4f} of the {100 * some['share']:.1f} % of inputs with unknown ids, "
                f"{none['auc']:.4f} of the others"
            )
    return "; ".join(parts)
