"""Training and validation losses of runs: recorded values drawn faintly, a smooth line over them, the base rate's loss.

The picture is as high as nearly all values (`_LOW` to `_HIGH` of them): the first batches of a training would press
the rest of the curve flat. What lies above runs along the edge, and the caption says how much that is. A run of a
single value is a number and no curve.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

from fae.core.units import format_count
from fae.report.pictures.page_cards import PageCard
from fae.report.pictures.svg import Axis, Plot, series_class, short_count
from fae.report.records import RunRecord, points_of
from fae.report.sentences.noise import base_log_loss
from fae.report.shown_values import metric_text

_MOST_RAW, _MOST_SMOOTH, _MOST_HOVERS = 240, 60, 40
_FEW = 12
"""Values that are drawn as they are, each with a mark."""
_LOW, _HIGH = 0.01, 0.97
_MARGIN = 0.1

Curve = list[tuple[float, float]]


def losses_card(runs: Sequence[RunRecord], *, validation: bool) -> PageCard:
    """Training or validation loss of all runs against the inputs that they had trained on."""
    what = "validation log loss" if validation else "training log loss"
    curves = [_validation(run) if validation else points_of(run.get("train", "loss_curve")) for run in runs]
    title = what[:1].upper() + what[1:]
    if not any(curves):
        return PageCard(title=title)
    caption = "The whole validation split, at the end of each epoch." if validation else "Of the batches as they train."
    if all(len(curve) <= 1 for curve in curves):
        numbers = [
            (metric_text(curve[0][1]), f"after {format_count(curve[0][0])} inputs" + _of(run, runs))
            for run, curve in zip(runs, curves, strict=True)
            if curve
        ]
        return PageCard(title=title, numbers=numbers, caption=caption)
    smooth = [curve if len(curve) <= _FEW else _neighbour_means(curve, _MOST_SMOOTH) for curve in curves]
    low, high = _height(curves, smooth)
    plot = Plot(
        label=f"{what} against inputs trained",
        x=Axis(low=0.0, high=max(x for curve in curves for x, _ in curve) or 1.0, label="inputs trained",
               form=short_count),
        y=Axis(low=low, high=high, label=f"{what}, nats", form=lambda value: f"{value:g}"),
    )  # fmt: skip
    base = base_log_loss(runs[0].number("log", "label_rate", "validation" if validation else "train"))
    if base is not None and low <= base <= high:
        plot.level(base, f"base rate {metric_text(base)}")
    for place, (curve, drawn) in enumerate(zip(curves, smooth, strict=True)):
        if len(curve) > _FEW:
            plot.line(_neighbour_means(curve, _MOST_RAW), f"{series_class(place)} raw")
        plot.line(drawn, series_class(place))
    plot.hover(_hovers(runs, smooth))
    for place, (run, drawn) in enumerate(zip(runs, smooth, strict=True)):
        for seen, loss in drawn if len(drawn) <= _FEW else []:
            tip = f"{run.label}: {metric_text(loss)} after {format_count(seen)} inputs"
            plot.dot(seen, loss, series_class(place), tip=tip)
    if validation and len(runs) == 1:
        _mark_best(plot, smooth[0])
    names = [run.label + ("" if curve else " (not recorded)") for run, curve in zip(runs, curves, strict=True)]
    return PageCard(
        title=title, pictures=[plot.render()],
        legend=[(f"line {series_class(place)}", name) for place, name in enumerate(names)] if len(runs) > 1 else [],
        caption=caption + _notes(curves, high),
    )  # fmt: skip


def _mark_best(plot: Plot, curve: Curve) -> None:
    """A word under the best of some validations, unless it is the last."""
    best = min(curve, key=lambda point: point[1])
    if best != curve[-1]:
        below = best[1] - 0.6 * _MARGIN * (plot.y.high - plot.y.low)
        plot.word(best[0], below, f"best: {metric_text(best[1])}", left=best[0] > plot.x.high / 2)


def _of(run: RunRecord, runs: Sequence[RunRecord]) -> str:
    return f", {run.label}" if len(runs) > 1 else ""


def _notes(curves: Sequence[Curve], high: float) -> str:
    """What the picture does with the recorded values."""
    longest, above = max(map(len, curves)), sum(loss > high for curve in curves for _, loss in curve)
    text = f" Faint: recorded values; line: means of neighbours, at most {_MOST_SMOOTH}." if longest > _FEW else ""
    if above:
        text += f" {format_count(above)} {'value is' if above == 1 else 'values are'} above the picture."
    return text


def _height(curves: Sequence[Curve], smooth: Sequence[Curve]) -> tuple[float, float]:
    """Low and high end of the picture: quantiles of the values, and all of the smooth lines but their beginnings."""
    values = sorted(loss for curve in curves for _, loss in curve)
    low, high = values[0], values[-1]
    if max(map(len, curves)) > _FEW:
        later = [loss for curve in smooth for _, loss in curve[len(curve) // 10 :]]
        low = min(values[int(_LOW * len(values))], *later)
        high = max(values[min(int(_HIGH * len(values)), len(values) - 1)], *later)
    margin = _MARGIN * (high - low) or 0.01
    return low - margin, high + margin


def _neighbour_means(curve: Curve, most: int) -> Curve:
    """The curve with at most `most` points: means of that many neighbours each, at the last one's place."""
    step = -(-len(curve) // most) or 1
    groups = [curve[first : first + step] for first in range(0, len(curve), step)]
    return [(group[-1][0], math.fsum(loss / len(group) for _, loss in group)) for group in groups]


def _hovers(runs: Sequence[RunRecord], curves: Sequence[Curve]) -> list[tuple[float, str]]:
    """Places of the x axis, each with the value of every run there."""
    known = [(run.label, sorted(curve)) for run, curve in zip(runs, curves, strict=True) if curve]
    places = sorted({x for _, curve in known for x, _ in curve})
    step = -(-len(places) // _MOST_HOVERS)
    hovers = []
    for x in places[step // 2 :: step]:
        values = [(label, _at(curve, x)) for label, curve in known]
        told = ", ".join(f"{label} {metric_text(loss)}" if len(known) > 1 else metric_text(loss)
                         for label, loss in values)  # fmt: skip
        hovers.append((x, f"{format_count(x)} inputs: {told}"))
    return hovers


def _at(curve: Curve, x: float) -> float:
    """The value of the recorded point nearest to a place."""
    place = bisect.bisect_left(curve, (x, -math.inf))
    return min(curve[max(0, place - 1) : place + 1], key=lambda point: abs(point[0] - x))[1]


def _validation(run: RunRecord) -> Curve:
    """Losses of the whole split only: those of the scheduler come from a part of it and cannot be compared."""
    points = run.items("train", "validation_curve")
    return points_of([[point.get("inputs"), point.get("log_loss")] for point in points if point.get("whole") is True])
