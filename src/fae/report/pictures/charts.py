"""What the hot rows of a run come from: the skew of its tables, and what other budgets would buy.

Curves go through recorded points only. Where a record is too old to have the points, the card says "not recorded".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fae.core.units import format_bytes, format_count
from fae.report.pictures.page_cards import PageCard
from fae.report.pictures.svg import Axis, Plot, percent, series_class, short_bytes
from fae.report.records import RunRecord, as_number, points_of

_NAMED_TABLES = 6
_HOVERS = 14


def skew_points(table: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Share of rows and of accesses, ascending, of an entry of the record's ``tables``; empty where it has none."""
    size = as_number(table.get("num_embeddings"))
    rows, shares = table.get("rows"), table.get("share")
    if not size or not isinstance(rows, list) or not isinstance(shares, list):
        return []
    points = points_of([list(pair) for pair in zip(rows, shares, strict=False)])
    return [(row / size, share) for row, share in points if 0 < row <= size and 0 <= share <= 1]


def skew_card(run: RunRecord) -> PageCard:
    """Cumulative share of accesses against share of rows; a dot marks each hot prefix."""
    title = "A few rows serve most lookups"
    drawn = [(table, points) for table in run.items("tables") if (points := skew_points(table))]
    if not drawn:
        return PageCard(title=title)
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
    dots = []
    # The largest tables last, so that they lie on top.
    for place, (table, points) in reversed(list(enumerate(drawn))):
        css = series_class(place) if place < _NAMED_TABLES else "others"
        name, size = str(table.get("name")), int(as_number(table.get("num_embeddings")) or 0)
        plot.line(points, css, tip=f"{name}: {format_count(size)} rows")
        if place < _NAMED_TABLES:
            legend.append((f"line {css}", f"{name}: {format_count(size)} rows"))
        prefix, served = (as_number(hot.get(name, {}).get(key)) for key in ("num_hot", "coverage"))
        # Small tables are wholly hot: a heap of dots in the corner would say nothing.
        if prefix and served is not None and prefix < size:
            rows = f"{format_count(prefix)} hot rows ({percent(round(prefix / size, 5))})"
            tip = f"{name}: {rows} serve {100 * served:.1f} %"
            dots.append((prefix / size, served, tip, 5 if place < _NAMED_TABLES else 3.5))
    plot.hover(_skew_hovers(drawn[:_NAMED_TABLES], plot.x))
    for across, served, tip, radius in dots:
        plot.dot(across, served, "hot", tip=tip, radius=radius)
    legend.reverse()
    others = len(drawn) - _NAMED_TABLES
    if others > 0:
        legend.append(("line others", f"{others} smaller tables"))
    if dots:
        legend.append(("dot hot", "rows kept hot"))
    return PageCard(
        title=title, pictures=[plot.render()], legend=legend,
        caption="Accesses in the training split. Dots: the rows kept hot, and the share of lookups they serve; a dot "
        "under its curve was chosen by whole inputs, not by popularity. Tables that are wholly hot have none.",
    )  # fmt: skip


def _skew_hovers(
    drawn: list[tuple[Mapping[str, Any], list[tuple[float, float]]]], axis: Axis
) -> list[tuple[float, str]]:
    """Shares of rows, each with the share of accesses that these rows of every named table take."""
    hovers = []
    for step in range(1, 2 * _HOVERS, 2):
        at = axis.low * (axis.high / axis.low) ** (step / 2 / _HOVERS)
        told = [
            f"{table.get('name')} {100 * reached[-1][1]:.0f} %"
            for table, points in drawn
            if (reached := [point for point in points if point[0] <= at])
        ]
        if told:
            hovers.append((at, f"hottest {100 * at:.2g} % of the rows: {', '.join(told)}"))
    return hovers


def budgets_card(run: RunRecord) -> PageCard:
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
        return PageCard(title=title)
    chosen = run.number("hot", "budget_bytes")
    # A budget far above what all rows take would press the points together: it is marked at the edge.
    ends = [point[0] for point in points] + ([min(chosen, 2 * points[-1][0])] if chosen and chosen > 0 else [])
    plot = Plot(
        label="coverage and hot-input share against the budget",
        x=Axis(low=min(ends), high=max(ends), label="memory budget", form=short_bytes, base=2),
        y=Axis(low=0.0, high=1.0, label="share", form=percent),
        height=310,
    )  # fmt: skip
    for index, name in ((1, "coverage"), (2, "hot-input share")):
        css = "hot second" if index == 1 else "hot"
        plot.line([(point[0], point[index]) for point in points], css)
        for point in points:
            tip = f"{format_bytes(int(point[0]))}: {name} {100 * point[index]:.1f} %"
            plot.dot(point[0], point[index], css, tip=tip, square=index == 1)
    if chosen and chosen > 0:
        plot.marker(chosen, f"this run: {format_bytes(int(chosen))}")
    selection = run.text("hot", "budgets", "selection") or "selection not recorded"
    counted = run.number("hot", "budgets", "num_inputs")
    return PageCard(
        title=title, pictures=[plot.render()],
        legend=[
            ("line hot second", "coverage: lookups that hot rows serve"),
            ("line hot", "hot-input share: inputs with hot lookups only"),
        ],
        caption="GPU memory for rows, their optimizer state and staging. As calibrate predicts, selection by "
        + selection
        + (f", hot inputs counted on {format_count(counted)} training inputs" if counted else "")
        + ". Budgets that would be mostly staging ring are left out.",
    )  # fmt: skip
