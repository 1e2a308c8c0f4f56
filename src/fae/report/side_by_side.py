"""Runs side by side, and the figures of one run at a glance.

Place in the flow: as `fae.report.charts`. Invariant: a cell that a record does not fill says so; the best of a row
is marked only where all runs of it can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from fae.core.units import format_bytes, format_count
from fae.report.amounts import time_parts, total_bytes
from fae.report.markup import (
    NOT_DEFINED,
    NOT_RECORDED,
    show_bytes,
    show_count,
    show_metric,
    show_seconds,
    show_share,
    table,
)
from fae.report.records import Run, as_number, flatten

_KNOWN_TRAIN = {
    "samples_per_second", "seconds", "num_inputs", "num_batches", "epochs", "stopped_early", "device_bytes",
    "loss_curve", "validation_curve", "schedule",
}  # fmt: skip


@dataclass(frozen=True)
class _Line:
    """One row of the comparison: what it is called, where it stands, how it prints, which way is better."""

    name: str
    path: str | Callable[[Run], float | None]
    show: Callable[[float | None], str]
    better: int = 0

    def value(self, run: Run) -> float | None:
        return self.path(run) if callable(self.path) else run.number(*self.path.split("."))

    def cell(self, run: Run) -> str:
        value = self.value(run)
        if value is None and isinstance(self.path, str) and run.has(*self.path.split(".")):
            return NOT_DEFINED
        return self.show(value)


def _all_rows(run: Run) -> float | None:
    sizes = [as_number(one.get("num_embeddings")) for one in run.items("hot", "tables")]
    return sum(size or 0 for size in sizes) if sizes else None


def _all_seconds(run: Run) -> float | None:
    parts = time_parts(run)
    return math.fsum(seconds for _, seconds in parts) if parts else None


_COMPARISON: tuple[tuple[str, tuple[_Line, ...]], ...] = (
    (
        "Model",
        (
            _Line("test AUC", "test.auc", show_metric, 1),
            _Line("test log loss", "test.log_loss", show_metric, -1),
            _Line("test normalized entropy", "test.normalized_entropy", show_metric, -1),
            _Line("test inputs", "test.num_inputs", show_count),
            _Line("validation AUC", "validation.auc", show_metric, 1),
            _Line("validation log loss", "validation.log_loss", show_metric, -1),
        ),
    ),
    (
        "Speed",
        (
            _Line("training samples/s", "train.samples_per_second", show_count, 1),
            _Line("training steps", "train.seconds", show_seconds),
            _Line("inputs trained", "train.num_inputs", show_count),
            _Line("all stages", _all_seconds, show_seconds),
        ),
    ),
    (
        "Hot rows",
        (
            _Line("budget", "hot.budget_bytes", show_bytes),
            _Line("hot rows", "hot.num_rows", show_count),
            _Line("of all rows", _all_rows, show_count),
            _Line("bytes of hot rows", "hot.bytes", show_bytes),
            _Line("bytes of staging", "hot.staging_bytes", show_bytes),
            _Line("bytes of all rows", total_bytes, show_bytes),
            _Line("on the device while training", "train.device_bytes", show_bytes),
            _Line("coverage", "hot.coverage", show_share),
            _Line("hot-input share", "hot.input_share", show_share),
            _Line("hot-input share as predicted", "hot.predicted.input_share", show_share),
        ),
    ),
    (
        "Batches",
        (
            _Line("hot batches", "pack.num_batches.hot", show_count),
            _Line("cold or mixed batches", "pack.num_batches.cold", show_count),
            _Line("padding", "pack.padding_share", show_share),
            _Line("ones among hot inputs", "pack.label_rate.hot", show_share),
            _Line("ones among cold inputs", "pack.label_rate.cold", show_share),
        ),
    ),
)


def side_by_side(runs: Sequence[Run]) -> str:
    """What the runs came to, a column each."""
    rows = []
    for group, lines in _COMPARISON:
        rows.append(_group(group, len(runs)))
        if group == "Hot rows":
            rows.append(_text_row("selection", [run.text("hot", "selection") for run in runs]))
        for line in lines:
            best = _best([line.value(run) for run in runs], line.better)
            cells = "".join(
                f'<td class="best">{line.cell(run)}</td>' if index in best else f"<td>{line.cell(run)}</td>"
                for index, run in enumerate(runs)
            )
            rows.append(f'<tr><th scope="row">{escape(line.name)}</th>{cells}</tr>')
    extra = [dict(_extra_numbers(run)) for run in runs]
    if names := sorted({name for one in extra for name in one}):
        rows.append(_group("Also counted while training", len(runs)))
        for name in names:
            values = [_plain_number(name, one[name]) if name in one else NOT_RECORDED for one in extra]
            cells = "".join(f"<td>{value}</td>" for value in values)
            rows.append(f'<tr><th scope="row"><code>{escape(name)}</code></th>{cells}</tr>')
    return table(["", *(run.label for run in runs)], rows, run_columns=True)


def _group(name: str, num_runs: int) -> str:
    return f'<tr class="group"><th scope="rowgroup" colspan="{num_runs + 1}">{escape(name)}</th></tr>'


def _text_row(name: str, values: Sequence[str | None]) -> str:
    cells = "".join(f"<td>{NOT_RECORDED if value is None else escape(value)}</td>" for value in values)
    return f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'


def _best(values: Sequence[float | None], better: int) -> set[int]:
    """Which runs are best in a row, as far as they print apart; none where nothing can be said."""
    known = [value for value in values if value is not None]
    if not better or len(known) < max(2, len(values)) or max(known) == min(known):
        return set()
    best = max(known) if better > 0 else min(known)
    return {index for index, value in enumerate(values) if value == best}


def _extra_numbers(run: Run) -> list[tuple[str, float]]:
    """Numbers under ``train`` that this report has no place for: what a placement counted."""
    known = {key: value for key, value in run.table("train").items() if key not in _KNOWN_TRAIN}
    return [(name, number) for name, value in flatten(known) if (number := as_number(value)) is not None]


def _plain_number(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return show_bytes(value)
    if name.endswith("_seconds"):
        return show_seconds(value)
    return format_count(value) if value == int(value) else f"{value:.6g}"


def tiles(run: Run) -> str:
    """What came of one run, in eight figures."""
    rows, total = run.number("hot", "num_rows"), _all_rows(run)
    of_rows = f"hot rows of {format_count(total)}" if total else "hot rows"
    budget = run.number("hot", "budget_bytes")
    used = [run.number("hot", "bytes"), run.number("hot", "staging_bytes")]
    memory = None if None in used else sum(size or 0 for size in used)
    shown = [
        (_Line("", "test.auc", show_metric).cell(run), "test AUC"),
        (_Line("", "test.log_loss", show_metric).cell(run), "test log loss"),
        (_Line("", "train.samples_per_second", show_count).cell(run), "training samples/s"),
        (show_count(rows), of_rows),
        (show_share(run.number("hot", "coverage")), "coverage of lookups"),
        (show_share(run.number("hot", "input_share")), "hot-input share"),
        (show_bytes(memory), f"of a budget of {format_bytes(int(budget))}" if budget else "hot rows and staging"),
    ]
    return '<div class="tiles">' + "".join(
        f'<div class="tile"><b>{value}</b><span>{escape(name)}</span></div>' for value, name in shown
    ) + "</div>"  # fmt: skip
