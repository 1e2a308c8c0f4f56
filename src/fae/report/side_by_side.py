"""Numbers of runs side by side, and the most important ones of a single run.

The best of a line is marked only where every run has a value and noise does not explain it
(`fae.report.sentences.noise`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from fae.core.units import format_bytes, format_count
from fae.report.pictures.amounts import seconds_by_part, total_bytes, total_rows
from fae.report.records import RunRecord, as_number, flatten
from fae.report.sentences.noise import (
    auc_error_of,
    best_places,
    entropy_error_of,
    log_loss_error_of,
    rate_error_of,
)
from fae.report.shown_values import (
    Absent,
    Shown,
    show_bytes,
    show_count,
    show_metric,
    show_number,
    show_seconds,
    show_share,
)

_KNOWN_TRAIN = {
    "samples_per_second", "seconds", "num_inputs", "num_batches", "epochs", "stopped_early", "device_bytes",
    "loss_curve", "validation_curve", "schedule", "epoch_curve", "validation_turned",
}  # fmt: skip


@dataclass(frozen=True)
class _Measure:
    """One line of the comparison.

    Attributes
    ----------
    path
        Where its value is in the record.
    show
        How it prints.
    better
        1 where more is better, -1 where less is.
    error
        Standard error of its value.
    """

    name: str
    path: str | Callable[[RunRecord], float | None]
    show: Callable[[float | None], Shown]
    better: int = 0
    error: Callable[[RunRecord], float | None] = lambda _: None

    def value(self, run: RunRecord) -> float | None:
        return self.path(run) if callable(self.path) else run.number(*self.path.split("."))

    def shown(self, run: RunRecord) -> Shown:
        value = self.value(run)
        if value is None and isinstance(self.path, str) and run.has(*self.path.split(".")):
            return Absent.NOT_DEFINED
        return self.show(value)


@dataclass(frozen=True, kw_only=True)
class ComparisonLine:
    """One line of the table of runs.

    Attributes
    ----------
    is_key
        Whether `name` is a key of the record, which the page sets as code.
    cells
        A value for each run.
    best
        Places in `cells` of the best value.
    """

    name: str
    cells: Sequence[Shown]
    best: frozenset[int] = frozenset()
    is_key: bool = False


@dataclass(frozen=True, kw_only=True)
class ComparisonGroup:
    """Lines under one heading of the table of runs."""

    name: str
    lines: Sequence[ComparisonLine]


def _all_seconds(run: RunRecord) -> float | None:
    parts = seconds_by_part(run)
    return math.fsum(seconds for _, seconds in parts) if parts else None


_MEASURES: dict[str, tuple[_Measure, ...]] = {
    "Model": (
        _Measure("test AUC", "test.auc", show_metric, 1, auc_error_of),
        _Measure("test log loss", "test.log_loss", show_metric, -1, log_loss_error_of),
        _Measure("test normalized entropy", "test.normalized_entropy", show_metric, -1, entropy_error_of),
        _Measure("test inputs", "test.num_inputs", show_count),
        _Measure("validation AUC", "validation.auc", show_metric, 1, partial(auc_error_of, split="validation")),
        _Measure(
            "validation log loss",
            "validation.log_loss",
            show_metric,
            -1,
            partial(log_loss_error_of, split="validation"),
        ),
    ),
    "Speed": (
        _Measure("training inputs/s", "train.samples_per_second", show_count, 1, rate_error_of),
        _Measure("training steps", "train.seconds", show_seconds),
        _Measure("inputs trained", "train.num_inputs", show_count),
        _Measure("all stages", _all_seconds, show_seconds),
    ),
    "Hot rows": (
        _Measure("budget", "hot.budget_bytes", show_bytes),
        _Measure("hot rows", "hot.num_rows", show_count),
        _Measure("of all rows", total_rows, show_count),
        _Measure("bytes of hot rows", "hot.bytes", show_bytes),
        _Measure("bytes of staging", "hot.staging_bytes", show_bytes),
        _Measure("bytes of all rows", total_bytes, show_bytes),
        _Measure("on the device while training", "train.device_bytes", show_bytes),
        _Measure("coverage", "hot.coverage", show_share),
        _Measure("hot-input share", "hot.input_share", show_share),
        _Measure("hot-input share as predicted", "hot.predicted.input_share", show_share),
    ),
    "Batches": (
        _Measure("hot batches", "pack.num_batches.hot", show_count),
        _Measure("cold or mixed batches", "pack.num_batches.cold", show_count),
        _Measure("padding", "pack.padding_share", show_share),
        _Measure("ones among hot inputs", "pack.label_rate.hot", show_share),
        _Measure("ones among cold inputs", "pack.label_rate.cold", show_share),
    ),
}


def compare_runs(runs: Sequence[RunRecord]) -> list[ComparisonGroup]:
    """The results of the runs, one cell a run."""
    groups = []
    for name, measures in _MEASURES.items():
        lines = [_line(one, runs) for one in measures]
        if name == "Hot rows":
            selections = [run.text("hot", "selection") or Absent.NOT_RECORDED for run in runs]
            lines.insert(0, ComparisonLine(name="selection", cells=selections))
        groups.append(ComparisonGroup(name=name, lines=lines))
    extra = [_extra_numbers(run) for run in runs]
    if names := sorted({name for one in extra for name in one}):
        lines = [
            ComparisonLine(
                name=name, is_key=True,
                cells=[show_number(name, one[name]) if name in one else Absent.NOT_RECORDED for one in extra],
            )
            for name in names
        ]  # fmt: skip
        groups.append(ComparisonGroup(name="Also counted while training", lines=lines))
    return groups


def _line(measure: _Measure, runs: Sequence[RunRecord]) -> ComparisonLine:
    values, cells = [measure.value(run) for run in runs], [measure.shown(run) for run in runs]
    best = best_places(values, [measure.error(run) for run in runs], cells, measure.better)
    return ComparisonLine(name=measure.name, cells=cells, best=best)


def _extra_numbers(run: RunRecord) -> dict[str, float]:
    """Numbers under ``train`` that no line above shows: what a placement counted."""
    extra = {key: value for key, value in run.table("train").items() if key not in _KNOWN_TRAIN}
    return {name: number for name, value in flatten(extra) if (number := as_number(value)) is not None}


def headline_tiles(run: RunRecord) -> list[tuple[Shown, str]]:
    """The seven main results of one run, each with its name."""
    rows, total = run.number("hot", "num_rows"), total_rows(run)
    of_rows = f"hot rows of {format_count(total)}" if total else "hot rows"
    budget = run.number("hot", "budget_bytes")
    used = [run.number("hot", "bytes"), run.number("hot", "staging_bytes")]
    memory = None if None in used else sum(size or 0 for size in used)
    return [
        (_Measure("", "test.auc", show_metric).shown(run), "test AUC"),
        (_Measure("", "test.log_loss", show_metric).shown(run), "test log loss"),
        (_Measure("", "train.samples_per_second", show_count).shown(run), "training inputs/s"),
        (show_count(rows), of_rows),
        (show_share(run.number("hot", "coverage")), "coverage of lookups"),
        (show_share(run.number("hot", "input_share")), "hot-input share"),
        (show_bytes(memory), f"of a budget of {format_bytes(int(budget))}" if budget else "hot rows and staging"),
    ]
