"""Intervals, tables and the figure of the accuracy study, from its cells alone.

Place in the flow: behind `accuracy.py`. Invariants: a difference is taken between cells of one seed; every interval is
95 %, Student's t over seeds.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from fae.report.figures import PALETTE
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

Cells = list[dict[str, Any]]
BASE = "shuffled"


def interval(values: list[float]) -> dict[str, float | None]:
    """Mean and half width of the 95 % interval; one value has none."""
    if len(values) < 2:
        return {"mean": float(np.mean(values)), "half_width": None, "seeds": len(values)}
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return {"mean": float(np.mean(values)), "half_width": float(half), "seeds": len(values)}


def summarise(cells: Cells) -> dict[str, Any]:
    """By order: AUC and log loss of both held-out splits, their paired differences to ``shuffled``, and the curve's."""
    by_seed: dict[str, dict[int, dict[str, Any]]] = {}
    for cell in cells:
        if not cell["diverged"]:
            by_seed.setdefault(cell["order"], {})[cell["seed"]] = cell
    base, summary = by_seed.get(BASE, {}), {}
    for order, of_order in by_seed.items():
        both = sorted(set(of_order) & set(base))
        entry: dict[str, Any] = {"diverged": sum(c["diverged"] for c in cells if c["order"] == order)}
        for split in ("test", "validation"):
            for metric in ("auc", "log_loss"):
                values = {seed: cell[split][metric] for seed, cell in of_order.items()}
                if any(value is None for value in values.values()):
                    continue
                entry[f"{split}_{metric}"] = interval(list(values.values()))
                if both and order != BASE:
                    paired = [values[seed] - base[seed][split][metric] for seed in both]
                    entry[f"{split}_{metric}_difference"] = interval(paired)
        if both and order != BASE:
            entry["curve_auc_difference"] = [
                {
                    "inputs": base[both[0]]["curve"][place]["inputs"],
                    **interval([of_order[s]["curve"][place]["auc"] - base[s]["curve"][place]["auc"] for s in both]),
                }
                for place in range(min(len(cell["curve"]) for cell in (*of_order.values(), *base.values())))
            ]
        summary[order] = entry
    return summary


def _text(value: dict[str, Any] | None, digits: int, sign: str = "") -> str:
    if value is None:
        return ""
    half = "" if value["half_width"] is None else f" ± {value['half_width']:.{digits}f}"
    return f"{value['mean']:{sign}.{digits}f}{half}"


def print_table(result: dict[str, Any]) -> None:
    """As Markdown."""
    first = result["cells"][0]
    rates = next((c["label_rate"] for c in result["cells"] if c["order"] != BASE), first["label_rate"])
    print(f"{result['workload']}: {first['inputs']} inputs seen, hot-input share "
          f"{max(c['input_share'] for c in result['cells']):.3f}, label rates {rates}\n")  # fmt: skip
    print(
        "| order | seeds | test AUC | minus shuffled | test log loss | minus shuffled | validation AUC minus shuffled |"
    )
    print("|---|---|---|---|---|---|---|")
    for order, entry in result["summary"].items():
        cells = [
            _text(entry.get("test_auc"), 4), _text(entry.get("test_auc_difference"), 5, "+"),
            _text(entry.get("test_log_loss"), 4), _text(entry.get("test_log_loss_difference"), 5, "+"),
            _text(entry.get("validation_auc_difference"), 5, "+"),
        ]  # fmt: skip
        print(f"| {order} | {entry.get('test_auc', {}).get('seeds', 0)} | " + " | ".join(cells) + " |")


def print_difference(result: dict[str, Any], other: dict[str, Any]) -> None:
    """As Markdown: this result minus the other, paired by order and seed."""
    cells = {(c["order"], c["seed"]): c for c in other["cells"] if not c["diverged"]}
    print("| order | seeds | test AUC | test log loss |\n|---|---|---|---|")
    for order in result["summary"]:
        pairs = [
            (c, cells[order, c["seed"]]) for c in result["cells"]
            if c["order"] == order and not c["diverged"] and (order, c["seed"]) in cells
        ]  # fmt: skip
        if pairs:
            found = [
                interval([one["test"][name] - two["test"][name] for one, two in pairs]) for name in ("auc", "log_loss")
            ]
            print(f"| {order} | {len(pairs)} | " + " | ".join(_text(each, 6, "+") for each in found) + " |")


def draw(result: dict[str, Any], path: Path) -> None:
    """Validation AUC against inputs seen, and the paired difference to ``shuffled``: a line an order."""
    figure = Figure(figsize=(9.6, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    shown = [order for order in result["summary"] if "+tail" not in order]
    for colour, order in zip(PALETTE, shown, strict=False):
        curves = [cell["curve"] for cell in result["cells"] if cell["order"] == order and not cell["diverged"]]
        points = min(map(len, curves))
        inputs = [point["inputs"] / 1e6 for point in curves[0][:points]]
        left.plot(inputs, np.mean([[p["auc"] for p in c[:points]] for c in curves], axis=0), color=colour, label=order)
        if order == BASE:
            right.axhline(0.0, color=colour)
            continue
        difference = result["summary"][order].get("curve_auc_difference", [])
        means = np.array([point["mean"] for point in difference])
        halves = np.array([point["half_width"] or 0.0 for point in difference])
        places = [point["inputs"] / 1e6 for point in difference]
        right.plot(places, means, color=colour)
        right.fill_between(places, means - halves, means + halves, color=colour, alpha=0.12, linewidth=0)
    left.set(xlabel="million inputs seen", ylabel="validation AUC", title=f"{result['workload']}, mean over seeds")
    right.set(xlabel="million inputs seen", ylabel="AUC minus shuffled", title="paired by seed, 95 % interval")
    left.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    save_svg(figure, path)


def save_svg(figure: Figure, path: Path) -> None:
    """Write a figure; equal numbers give equal bytes."""
    text = io.StringIO()
    with rc_context({"svg.hashsalt": "fae", "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n")
