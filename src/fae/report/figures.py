"""Figures of a run, as PNG, from plain numbers: what the log looks like, what the budget buys, how training went.

Place in the flow: called by the demo and by reports with what run records and artifacts say; reads no artifact itself.
Invariant: no state outside the figure at hand (no pyplot, no rc parameters), so any thread may draw, on any machine
without a display, and equal numbers give equal pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MultipleLocator

from fae.core.errors import ArtifactError
from fae.core.units import format_bytes, format_count

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, told apart with any colour vision; the yellow is left out, it is lost on white."""
_DASHES = ("-", "--", "-.", ":")
_INK, _QUIET, _GRID = "#222222", "#767676", "#E3E3E3"
_NAMED_TABLES = 6
_CURVE_POINTS = 400


@dataclass(frozen=True, kw_only=True)
class TableSkew:
    """One table in the skew figure.

    Attributes
    ----------
    counts
        ``[num_embeddings]``: accesses of each row, in any order.
    num_hot
        Rows of the hot prefix.
    """

    name: str
    counts: npt.ArrayLike
    num_hot: int = 0


@dataclass(frozen=True, kw_only=True)
class BudgetPoint:
    """What one budget buys; shares are in [0, 1]."""

    budget_bytes: int
    input_share: float
    coverage: float


@dataclass(frozen=True, kw_only=True)
class LossCurve:
    """Loss of one run against the inputs it had seen; `values` may hold NaN where nothing was measured."""

    label: str
    inputs_seen: npt.ArrayLike
    values: npt.ArrayLike


def draw_skew(tables: Sequence[TableSkew], path: Path) -> None:
    """Cumulative share of accesses against share of rows, hottest first; a dot marks each hot prefix.

    The largest tables are named, the others stay grey: with 26 tables nobody reads 26 colours.

    Raises
    ------
    ArtifactError
        If the picture cannot be written. So do all functions here.
    """
    with _figure(path, "A few rows serve most lookups") as axes:
        drawn = [table for table in tables if np.sum(table.counts) > 0]
        by_size = sorted(drawn, key=lambda table: -np.size(table.counts))
        named = by_size[:_NAMED_TABLES]
        lowest = 1.0
        for table in reversed(by_size):
            index = next((place for place, other in enumerate(named) if other is table), -1)
            colour = PALETTE[index] if index >= 0 else "#BBBBBB"
            rows, accesses = _cumulative(table.counts)
            lowest = min(lowest, rows[0])
            label = f"{table.name}: {format_count(np.size(table.counts))} rows" if index >= 0 else None
            axes.plot(
                rows, accesses, color=colour, linewidth=1.8 if index >= 0 else 1.0, label=label, zorder=2 + (index >= 0)
            )
            # Small tables are wholly hot: a heap of dots in the corner would say nothing.
            if 0 < table.num_hot < np.size(table.counts):
                share = table.num_hot / np.size(table.counts)
                height = float(np.interp(share, rows, accesses))
                size, edge = (7.0, "white") if index >= 0 else (3.5, colour)
                axes.plot(
                    share, height, "o", color=colour, markersize=size, markeredgecolor=edge, zorder=4 + (index >= 0),
                    clip_on=False,
                )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlim(lowest, 1.0)
        axes.set_ylim(0.0, 1.0)
        axes.xaxis.set_major_formatter(FuncFormatter(_percent))
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
        axes.set_xlabel("share of the table's rows, hottest first (dot: rows kept on the GPU)")
        axes.set_ylabel("share of the table's accesses")
        if named:
            handles, labels = axes.get_legend_handles_labels()
            others = len(by_size) - len(named)
            title = f"largest tables (grey: {others} others)" if others else None
            axes.legend(handles[::-1], labels[::-1], title=title, **_LEGEND_BESIDE)


def draw_budgets(points: Sequence[BudgetPoint], path: Path, *, chosen_bytes: int | None = None) -> None:
    """Hot-input share and coverage against the budget; a line marks the budget that was chosen."""
    with _figure(path, "What a memory budget buys") as axes:
        points = sorted(points, key=lambda point: point.budget_bytes)
        budgets = [point.budget_bytes for point in points]
        coverage, share = [point.coverage for point in points], [point.input_share for point in points]
        axes.plot(budgets, coverage, "--s", color=PALETTE[1], label="coverage: lookups that hot rows serve", **_MARKED)
        axes.plot(
            budgets, share, "-o", color=PALETTE[0], label="hot-input share: inputs with hot lookups only", **_MARKED
        )
        if chosen_bytes is not None:
            axes.axvline(
                chosen_bytes, color=_INK, linewidth=1.0, linestyle=":", label=f"chosen: {format_bytes(chosen_bytes)}"
            )
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short_bytes(value)))
        axes.set_ylim(0.0, 1.02)
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
        axes.set_xlabel("GPU memory for rows, their optimizer state and staging")
        axes.set_ylabel("share")
        _legend_below(axes)


def draw_losses(curves: Sequence[LossCurve], path: Path, *, what: str = "loss") -> None:
    """Loss curves of runs against the inputs seen.

    Parameters
    ----------
    what
        Which loss, such as ``"validation loss"``; stands in the title and at the axis.
    """
    with _figure(path, f"{what[:1].upper()}{what[1:]} while training") as axes:
        for index, curve in enumerate(curves):
            seen, values = np.asarray(curve.inputs_seen, np.float64), np.asarray(curve.values, np.float64)
            known = np.isfinite(values)
            # Runs that agree lie on one another: the dashes keep each of them visible.
            axes.plot(
                seen[known], values[known], label=curve.label, color=PALETTE[index % len(PALETTE)], linewidth=1.8,
                linestyle=_DASHES[index % len(_DASHES)], marker="o" if known.sum() < 40 else "", markersize=4,
            )  # fmt: skip
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short_count(value)))
        axes.set_xlabel("inputs seen")
        axes.set_ylabel(what)
        if curves:
            axes.legend(frameon=False, labelcolor=_INK)


def draw_bytes(tiers: Mapping[str, int], path: Path, *, budget_bytes: int | None = None) -> None:
    """Bytes per tier, a bar each, from the top in the order given; a line marks the budget."""
    with _figure(path, "Where the embedding bytes are", height=1.5 + 0.5 * len(tiers)) as axes:
        names, sizes = list(tiers), np.array(list(tiers.values()), np.float64)
        colours = [PALETTE[index % len(PALETTE)] for index in range(len(names))]
        axes.barh(names, sizes, color=colours, height=0.62)
        largest = max(float(sizes.max(initial=1.0)), float(budget_bytes or 0))
        for place, size in enumerate(sizes):
            share = f" ({100 * size / sizes.sum():.1f} %)" if sizes.sum() else ""
            axes.annotate(
                f"{format_bytes(int(size))}{share}", (size, place), xytext=(5, 0), textcoords="offset points",
                va="center", color=_INK, fontsize=9,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
            )  # fmt: skip
        if budget_bytes is not None:
            label = f"budget on the GPU: {format_bytes(budget_bytes)}"
            axes.axvline(budget_bytes, color=_INK, linewidth=1.0, linestyle=":", label=label, zorder=0.5)
            _legend_below(axes)
        axes.set_xlim(0, largest * 1.25)
        axes.xaxis.set_major_locator(MultipleLocator(2.0 ** math.ceil(math.log2(largest / 5))))
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short_bytes(value)))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelcolor=_INK)


_MARKED: dict[str, Any] = {"linewidth": 1.8, "markersize": 5, "markeredgecolor": "white"}
_LEGEND_BESIDE: dict[str, Any] = {
    "loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "frameon": False, "labelcolor": _INK, "fontsize": 9,
    "title_fontsize": 9, "alignment": "left",
}  # fmt: skip


def _legend_below(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    axes.figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, labelcolor=_INK, fontsize=9)


@contextmanager
def _figure(path: Path, title: str, *, height: float = 4.2) -> Iterator[Axes]:
    """Axes in the house style; saved under a temporary name and renamed when the block ends well."""
    figure = Figure(figsize=(8.0, height), dpi=130, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=_INK, fontsize=12, pad=10)
    axes.set_axisbelow(True)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_QUIET)
    axes.tick_params(colors=_QUIET, labelsize=9)
    yield axes
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(_INK)
        label.set_fontsize(10)
    temporary = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The default metadata names the library's version: pictures would differ that are the same.
        figure.savefig(temporary, format="png", metadata={"Software": None})
        temporary.replace(path)
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def _cumulative(counts: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Share of rows and of accesses, thinned to a few hundred points that are even on a logarithmic axis."""
    ordered = np.sort(np.asarray(counts, np.float64))[::-1]
    places = np.unique(np.geomspace(1, len(ordered), _CURVE_POINTS).round().astype(np.int64))
    accesses = np.cumsum(ordered)
    return places / len(ordered), accesses[places - 1] / accesses[-1]


def _percent(value: float, _: object) -> str:
    return f"{100 * value:.10f}".rstrip("0").rstrip(".") + " %"


def _short_bytes(value: float) -> str:
    return format_bytes(int(value)).replace(".0 ", " ")


def _short_count(value: float) -> str:
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"
