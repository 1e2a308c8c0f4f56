"""Draw the studies' figures into docs/images from their results alone; equal numbers give equal bytes.

    python benchmarks/studies/figures.py accuracy|drift|selections|sampled_counts|rand_em_box [NAME ...]

Each NAME is a record of that study: benchmarks/results/NAME.json becomes docs/images/NAME.svg. Without a NAME, the
subject's own.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from tables import BASE, RESULTS, ROOT, drift_series

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#767676", "#56B4E9", "#E69F00", "#000000")
COLOURS = {"threshold": PALETTE[0], "peeling": PALETTE[1], "by_sample_alone": PALETTE[2], "default": PALETTE[2]}
Record = Mapping[str, Any]


def panels(count: int, width: float = 4.6) -> tuple[Figure, list[Any]]:
    """A figure with panels side by side."""
    figure = Figure(figsize=(width * count, 3.4), layout="constrained")
    every = list(np.atleast_1d(figure.subplots(1, count)))
    for panel in every:
        panel.grid(color="#E3E3E3", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, every


def draw_accuracy(result: Record) -> Figure:
    """Validation AUC against inputs seen, and the paired difference to ``shuffled``: a line an order."""
    figure, (left, right) = panels(2)
    for colour, order in zip(PALETTE, (each for each in result["summary"] if "+tail" not in each), strict=False):
        curves = [cell["curve"] for cell in result["cells"].values() if cell["order"] == order and not cell["diverged"]]
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
    workload = result["settings"]["workload"]
    left.set(xlabel="million inputs seen", ylabel="validation AUC", title=f"{workload}, mean over seeds")
    right.set(xlabel="million inputs seen", ylabel="AUC minus shuffled", title="paired by seed, 95 % interval")
    left.legend(frameon=False, fontsize=8)
    return figure


def draw_drift(result: Record) -> Figure:
    """Hot-input share and coverage by day: a colour a drift, a dash a hot set."""
    figure, both = panels(2)
    days = np.arange(1, result["settings"]["days"] + 1)
    drifts = sorted({cell["drift"] for key, cell in result["cells"].items() if key != "cost"})
    for colour, drift in zip(PALETTE, drifts, strict=False):
        for axes, key in zip(both, ("input_share", "coverage"), strict=True):
            for which, dash, words in (("recalibrated", "o-", "the day's own"), ("kept", "o--", "day 1's"),
                                       ("yesterday", ":", "the day before's")):  # fmt: skip
                values = [None if one is None else 100 * one["mean"] for one in drift_series(result, drift, which, key)]
                axes.plot(days, np.array(values, float), dash, color=colour, markersize=3,
                          label=f"{drift:.1%} a day, {words}")  # fmt: skip
    for axes, words in zip(both, ("hot inputs, %", "hot lookups, %"), strict=True):
        axes.set(xlabel="day", ylabel=words)
    both[1].legend(frameon=False, fontsize=8, loc="lower left", title="drift, hot set of", title_fontsize=8)
    return figure


def draw_selections(result: Record) -> Figure:
    """Hot inputs over budgets, one panel a log; or, of the costs, seconds and memory over inputs."""
    if result["settings"].get("modes"):
        return draw_costs(result)
    logs = result["settings"]["logs"]
    figure, every = panels(len(logs), 3.6)
    for panel, label in zip(every, logs, strict=True):
        found = [(budget, result["cells"][f"{label}/{budget}"]) for budget in logs[label]["budgets"]]
        found = [(budget, cell) for budget, cell in found if cell["fits"]]
        x = [cell["budget_bytes"] for _, cell in found]
        panel.semilogx(x, [100 * cell["bound"] for _, cell in found], ":", color="#767676", label="bound", base=2)
        for selection in ("threshold", "peeling"):
            for on, style in (("packed", "o-"), ("later", "s--")):
                panel.plot(x, [100 * cell[selection][on]["input_share"] for _, cell in found], style, markersize=3,
                           color=COLOURS[selection], label=f"{selection}, {on}")  # fmt: skip
        panel.set(title=label.capitalize(), xlabel="budget", ylabel="hot inputs, %")
        panel.set_xticks(x, [budget for budget, _ in found], fontsize=7)
        panel.minorticks_off()
        panel.set_ylim(bottom=0)
    every[0].legend(fontsize=7, frameon=False)
    return figure


def draw_costs(result: Record) -> Figure:
    """Seconds and memory over inputs, a line a mode."""
    figure, (left, right) = panels(2)
    for mode in result["settings"]["modes"]:
        found = [cell for key, cell in result["cells"].items() if key.endswith("/" + mode)]
        found.sort(key=lambda cell: cell["num_inputs"])
        x = [cell["num_inputs"] / 1e6 for cell in found]
        label = "default: auto, 5 % sample" if mode == "default" else f"{mode}, all inputs"
        seconds = [cell["profile_seconds"] + cell["calibrate_seconds"] for cell in found]
        left.plot(x, seconds, "o-", markersize=3, color=COLOURS[mode], label=label)
        right.plot(x, [cell["peak_bytes"] / 2**30 for cell in found], "o-", markersize=3, color=COLOURS[mode])
    left.set(xlabel="training inputs, millions", ylabel="profile + calibrate, s")
    right.set(xlabel="training inputs, millions", ylabel="peak memory, GiB")
    left.legend(fontsize=8, frameon=False)
    for panel in (left, right):
        panel.set_ylim(bottom=0)
    return figure


def draw_sampled_counts(result: Record) -> Figure:
    """Hot inputs among later ones, by sample, one panel a log."""
    figure, every = panels(2)
    kinds = {"threshold": "threshold, shipped", "by_sample_alone": "threshold, sample alone", "peeling": "peeling"}
    for panel, name in zip(every, ("frappe", "criteo"), strict=True):
        of_log = [cell for key, cell in result["cells"].items() if key.startswith(name)]
        samples = sorted({cell["sample"] for cell in of_log})
        x = [100 * sample for sample in samples]
        for kind, label in kinds.items():
            points = [
                [100 * cell[kind]["later"]["input_share"] for cell in of_log if cell["sample"] == sample]
                for sample in samples
            ]
            panel.semilogx(x, [np.mean(each) for each in points], "o-", color=COLOURS[kind], markersize=3, label=label)
            panel.fill_between(x, [min(each) for each in points], [max(each) for each in points],
                               color=COLOURS[kind], alpha=0.15, linewidth=0)  # fmt: skip
        panel.set(title=name.capitalize(), xlabel="sample, % of the training inputs")
        panel.set(ylabel="hot inputs, %, later inputs")
        panel.set_xticks(x, [f"{each:g}" for each in x])
        panel.minorticks_off()
    every[0].legend(fontsize=8, frameon=False)
    return figure


def draw_rand_em_box(result: Record) -> Figure:
    """Draws covered by hot share, one panel a form."""
    forms = {key: cell["by_hot_share"] for key, cell in result["cells"].items() if not key.startswith("time/")}
    names, skews, orders = (list(dict.fromkeys(key.split("/")[part] for key in forms)) for part in range(3))
    figure, every = panels(2)
    for panel, form in zip(every, names, strict=True):
        for style, skew in zip(("-", "--", ":"), skews, strict=True):
            for colour, order in zip(PALETTE, orders, strict=False):
                found = forms[f"{form}/{skew}/{order}"]
                panel.semilogx(
                    [entry["hot_share"] for entry in found], [100 * entry["coverage"] for entry in found],
                    style, color=colour, marker="o", markersize=3, label=f"{order}, {skew}",
                )  # fmt: skip
        panel.axhline(99.5, color="#222222", linewidth=0.8)
        panel.set(title=form, xlabel="share of rows that is hot", ylabel="draws covered, %")
        panel.invert_xaxis()
    every[0].set_ylim(99.0, 100.05)
    figure.legend(*every[0].get_legend_handles_labels(), loc="outside right center", fontsize=7, frameon=False)
    return figure


DRAW = {
    "accuracy": draw_accuracy, "drift": draw_drift, "selections": draw_selections,
    "sampled_counts": draw_sampled_counts, "rand_em_box": draw_rand_em_box,
}  # fmt: skip


def draw(subject: str, result: Record, name: str) -> None:
    """Write ``docs/images/<name>.svg``."""
    figure = DRAW[subject](result)
    text = io.StringIO()
    with rc_context({"svg.hashsalt": "fae", "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    path = ROOT / "docs" / "images" / f"{name}.svg"
    path.write_text("\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n")
    print(f"wrote {path}")


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", choices=sorted(DRAW), help="the study")
    parser.add_argument("names", nargs="*", metavar="NAME", help="records in benchmarks/results, without .json")
    args = parser.parse_args()
    for name in args.names or [args.subject]:
        path = RESULTS / f"{name}.json"
        if not path.is_file():
            parser.error(f"{path} does not exist; name a record of benchmarks/results")
        draw(args.subject, json.loads(path.read_text()), name)


if __name__ == "__main__":
    main()
