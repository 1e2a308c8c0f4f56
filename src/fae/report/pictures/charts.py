"""The curves of a report: skew, budgets, losses, the scheduler's phases.

Curves go through recorded points only; those of long losses through means of neighbouring points, which the caption
says. Where a record is too old to have the points, the card says "not recorded".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fae.core.units import format_bytes, format_count
from fae.report.pictures.cards import Card
from fae.report.records import RunRecord, as_number, points_of
from fae.report.pictures.svg import WIDE, Axis, Plot, percent, series_class, short_bytes, short_count

_NAMED_TABLES = 6
_MOST_LOSSES = 60
"""Points of a loss curve. Losses of single batches jump too much for two runs to be told apart."""


def skew_points(table: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Share of rows and of accesses, ascending, of an entry of the record's ``tables``; empty where it has none."""
    size = as_number(table.get("num_embeddings"))
    rows, shares = table.get("rows"), table.get("share")
    if not size or not isinstance(rows, list) or not isinstance(shares, list):
        return []
    points = points_of([list(pair) for pair in zip(rows, shares, strict=False)])
    return [(row / size, share) for row, share in points if 0 < row <= size and 0 <= share <= 1]


def skew_card(run: RunRecord) -> Card:
    """Cumulative share of accesses against share of rows; a dot marks each hot prefix."""
    title = "A few rows serve most lookups"
    drawn = [(table, points) for table in run.items("tables") if (points := skew_points(table))]
    if not drawn:
        return Card(title=title)
    drawn.sort(key=lambda item: -(as_number(item[0].get("num_embeddings")) or 0))
    hot = {str(table.get("name")): table for table in run.items("hot", "tables")}
    plot = Plot(
        label="share of accesses against share of rows, per table",
        x=Axis(
            low=min(points[0][0] for _, points in drawn) if any(points[0][0] < 1 for _, points in drawn) else 0.1,
            high=1.0, label="share of the table's rows, hottest first", form=percent, base=10,
        ),
        y=Axis(low=0.0, high=1.0, label="share of its accesses", form=percent),
        height=310,
    )  # fmt: skip
    legend = []
    # The largest tables last, so that they lie on top.
    for place, (table, points) in reversed(list(enumerate(drawn))):
        css = series_class(place) if place < _NAMED_TABLES else "others"
        name, size = str(table.get("name")), int(as_number(table.get("num_embeddings")) or 0)
        plot.line(points, css, tip=f"{name}: {format_count(size)} rows")
        if place < _NAMED_TABLES:
            legend.append((css, f"{name}: {format_count(size)} rows"))
        prefix, served = (as_number(hot.get(name, {}).get(key)) for key in ("num_hot", "coverage"))
        # Small tables are wholly hot: a heap of dots in the corner would say nothing.
        if prefix and served is not None and prefix < size:
            rows = f"{format_count(prefix)} hot rows ({percent(round(prefix / size, 5))})"
            tip = f"{name}: {rows} serve {100 * served:.1f} %"
            plot.dot(prefix / size, served, css, tip=tip, radius=5 if place < _NAMED_TABLES else 3.5)
    legend.reverse()
    others = len(drawn) - _NAMED_TABLES
    if others > 0:
        legend.append(("others", f"{others} smaller tables"))
    return Card(
        title=title, pictures=[plot.render()], legend=legend,
        caption="Accesses in the training split. Dots: the rows kept hot, and the share of lookups they serve; a dot "
        "under its curve was chosen by whole inputs, not by popularity. Tables that are wholly hot have none.",
    )  # fmt: skip


def budgets_card(run: RunRecord) -> Card:
    """Hot-input share and coverage over budgets, with the one that was chosen."""
    title = "What a memory budget buys"
    points = sorted(
        (budget, coverage, share)
        for point in run.items("hot", "budgets", "points")
        if (budget := as_number(point.get("budget_bytes"))) and budget > 0
        and (coverage := as_number(point.get("coverage"))) is not None
        and (share := as_number(point.get("input_share"))) is not None
    )  # fmt: skip
    if not points:
        return Card(title=title)
    chosen = run.number("hot", "budget_bytes")
    ends = [point[0] for point in points] + ([chosen] if chosen and chosen > 0 else [])
    plot = Plot(
        label="coverage and hot-input share against the budget",
        x=Axis(low=min(ends), high=max(ends), label="GPU memory for rows, their optimizer state and staging",
               form=short_bytes, base=2),
        y=Axis(low=0.0, high=1.0, label="share", form=percent),
        height=310,
    )  # fmt: skip
    for index, name in ((1, "coverage"), (2, "hot-input share")):
        css = "s1" if index == 1 else "s0"
        plot.line([(point[0], point[index]) for point in points], css)
        for point in points:
            tip = f"{format_bytes(int(point[0]))}: {name} {100 * point[index]:.1f} %"
            plot.dot(point[0], point[index], css, tip=tip)
    if chosen and chosen > 0:
        plot.marker(chosen, f"this run: {format_bytes(int(chosen))}")
    selection = run.text("hot", "budgets", "selection") or "selection not recorded"
    counted = run.number("hot", "budgets", "num_inputs")
    return Card(
        title=title, pictures=[plot.render()],
        legend=[
            ("s1", "coverage: lookups that hot rows serve"), ("s0", "hot-input share: inputs with hot lookups only"),
        ],
        caption=f"As calibrate predicts, selection by {selection}"
        + (f", hot inputs counted on {format_count(counted)} training inputs" if counted else "")
        + ". Budgets that would be mostly staging ring are left out.",
    )  # fmt: skip


def losses_card(runs: Sequence[RunRecord], *, validation: bool) -> Card:
    """Training or validation loss of all runs against the inputs they had seen."""
    what = "validation log loss" if validation else "training log loss"
    recorded = [(_validation(run) if validation else points_of(run.get("train", "loss_curve"))) for run in runs]
    curves = [_neighbour_means(curve) for curve in recorded]
    known = [point for curve in curves for point in curve]
    title = what[:1].upper() + what[1:]
    if not known:
        return Card(title=title)
    lowest, highest = min(y for _, y in known), max(y for _, y in known)
    margin = 0.06 * (highest - lowest) or 0.01
    plot = Plot(
        label=f"{what} against inputs seen",
        x=Axis(low=0.0, high=max(x for x, _ in known) or 1.0, label="inputs seen", form=short_count),
        y=Axis(low=lowest - margin, high=highest + margin, label=what, form=lambda value: f"{value:g}"),
    )
    for index, (run, curve) in enumerate(zip(runs, curves, strict=True)):
        css = series_class(index)
        plot.line(curve, css, tip=run.label)
        for seen, loss in curve if len(curve) < 40 else []:
            plot.dot(seen, loss, css, tip=f"{run.label}: {loss:.4f} after {format_count(seen)} inputs")
    names = [run.label + ("" if curve else " (not recorded)") for run, curve in zip(runs, curves, strict=True)]
    caption = "The whole validation split, at the end of each epoch." if validation else "Means over a few batches."
    if curves != recorded:
        caption += f" Each point is the mean of neighbours, so that a curve has at most {_MOST_LOSSES}."
    return Card(
        title=title,
        pictures=[plot.render()],
        legend=[(series_class(index), name) for index, name in enumerate(names)],
        caption=caption,
    )


def _neighbour_means(curve: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The curve with at most `_MOST_LOSSES` points: means of that many neighbours each, at the last one's place."""
    step = -(-len(curve) // _MOST_LOSSES) or 1
    groups = [curve[first : first + step] for first in range(0, len(curve), step)]
    return [(group[-1][0], math.fsum(loss / len(group) for _, loss in group)) for group in groups]


def _validation(run: RunRecord) -> list[tuple[float, float]]:
    """Losses of the whole split only: those of the scheduler come from a part of it and cannot be compared."""
    points = run.items("train", "validation_curve")
    return points_of([[point.get("inputs"), point.get("log_loss")] for point in points if point.get("whole") is True])


def schedule_card(run: RunRecord) -> Card:
    """What the adaptive order did: a bar a phase, as wide as its batches and as high as the rate."""
    title = "The shuffle scheduler"
    steps = [
        (batches, rate, str(step.get("phase")), as_number(step.get("validation_loss")), as_number(step.get("epoch")))
        for step in run.items("train", "schedule")
        if (batches := as_number(step.get("batches"))) and batches > 0
        and (rate := as_number(step.get("rate"))) is not None
    ]  # fmt: skip
    if not steps:
        return Card(title=title)
    total = sum(step[0] for step in steps)
    x = Axis(low=0.0, high=total, label="batches trained", form=short_count)
    rates = Plot(
        label="rate of the scheduler over batches", x=x,
        y=Axis(low=0.0, high=max(1.0, *(step[1] for step in steps)) * 1.08, label="rate, per cent",
               form=lambda value: f"{value:g}"),
        width=WIDE, height=210,
    )  # fmt: skip
    done, seen = 0.0, []
    for batches, rate, phase, loss, epoch in steps:
        css = {"cold": "s0", "hot": "s1"}.get(phase, "others")
        tip = f"R({rate:g}), {batches:g} {phase} batches" + ("" if epoch is None else f", epoch {epoch + 1:g}")
        rates.bar(done, done + batches, rate, css, tip=tip)
        done += batches
        if loss is not None:
            seen.append((done, loss))
    pictures = [rates.render()]
    if seen:
        low, high = min(loss for _, loss in seen), max(loss for _, loss in seen)
        margin = 0.06 * (high - low) or 0.01
        plot = Plot(
            label="validation loss at swaps", x=x,
            y=Axis(low=low - margin, high=high + margin, label="log loss at the swap", form=lambda value: f"{value:g}"),
            width=WIDE, height=210,
        )  # fmt: skip
        plot.line(seen, "s2")
        for place, loss in seen if len(seen) <= 60 else []:
            plot.dot(place, loss, "s2", tip=f"{loss:.5f} after {format_count(place)} batches", radius=3)
        pictures.append(plot.render())
    return Card(
        title=title, pictures=pictures,
        legend=[
            ("s0", "cold batches"), ("s1", "hot batches"), *([("s2", "log loss, validation sample")] * bool(seen)),
        ],
        caption=f"{len(steps)} phases. A bar is as wide as its batches and as high as the rate R(r): r per cent of the "
        "cold batches, then r per cent of the hot ones. It halves where the loss rose and doubles after four falls.",
    )  # fmt: skip
