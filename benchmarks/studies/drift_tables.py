"""Tables and the figure of the drift study, from its result alone. Place in the flow: behind `drift.py`.

Invariant: intervals are 95 %, Student's t over seeds; differences are paired by seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fae.report.figures import PALETTE
from studies.accuracy_tables import interval, save_svg

HOT_SETS = {"kept": "day 1's hot set", "recalibrated": "its own"}
STAGES = ("profile", "calibrate", "allocate", "move")
"""What a re-calibration adds to a day that is ingested, packed and trained on anyway."""


def _chains(result: dict[str, Any], drift: float, policy: str) -> list[dict[str, Any]]:
    found = [c for c in result["chains"] if (c["drift"], c["policy"]) == (drift, policy)]
    return sorted(found, key=lambda chain: chain["seed"])


def _series(result: dict[str, Any], drift: float, policy: str, key: str) -> list[dict[str, Any]]:
    """Mean and interval of every day."""
    chains = _chains(result, drift, policy)
    return [interval([chain["days"][day][key] for chain in chains]) for day in range(result["settings"]["days"])]


def _yesterday(result: dict[str, Any], drift: float, key: str) -> list[dict[str, Any] | None]:
    """What the hot set of the day before serves; the first day has none."""
    chains = _chains(result, drift, "recalibrated")
    return [
        interval([chain["days"][day]["yesterday"][key] for chain in chains]) if day else None
        for day in range(result["settings"]["days"])
    ]


def _percent(value: dict[str, Any] | None) -> str:
    if value is None:
        return ""
    half = "" if value["half_width"] is None else f" ± {100 * value['half_width']:.1f}"
    return f"{100 * value['mean']:.1f}{half}"


def print_table(result: dict[str, Any]) -> None:
    """As Markdown."""
    days = result["settings"]["days"]
    drifts = sorted({chain["drift"] for chain in result["chains"]})
    for drift in drifts:
        seeds = len(_chains(result, drift, "kept"))
        print(f"\nDrift {drift:.1%} a day, {seeds} logs\n")
        print("| | " + " | ".join(f"day {day + 1}" for day in range(days)) + " |")
        print("|---|" + "---|" * days)
        for key, words in (("input_share", "hot inputs, %"), ("coverage", "hot lookups, %")):
            for policy in ("kept", "recalibrated"):
                row = [_percent(value) for value in _series(result, drift, policy, key)]
                print(f"| {words}, {HOT_SETS[policy]} | " + " | ".join(row) + " |")
            row = [_percent(value) for value in _yesterday(result, drift, key)]
            print(f"| {words}, the day before's | " + " | ".join(row) + " |")
        pairs = list(zip(_chains(result, drift, "kept"), _chains(result, drift, "recalibrated"), strict=True))
        auc = [
            interval([b["days"][day]["test"]["auc"] - a["days"][day]["test"]["auc"] for a, b in pairs])
            for day in range(days)
        ]
        text = [f"{v['mean']:+.4f}" + ("" if v["half_width"] is None else f" ± {v['half_width']:.4f}") for v in auc]
        print("| AUC, own minus day 1's | " + " | ".join(text) + " |")
        rows = [[sum(p["days"][d]["cold_rows_per_batch"]) for d in range(days)] for _, p in pairs]
        kept_rows = [[sum(p["days"][d]["cold_rows_per_batch"]) for d in range(days)] for p, _ in pairs]
        for words, values in (("day 1's", kept_rows), ("its own", rows)):
            print(
                f"| cold rows a cold batch, {words} | " + " | ".join(f"{v:.0f}" for v in np.mean(values, axis=0)) + " |"
            )
    later = [day for chain in result["chains"] if chain["policy"] == "recalibrated" for day in chain["days"][1:]]
    print("\nA re-calibration, median over nights (range):")
    for stage in STAGES:
        values = [day["seconds"][stage] for day in later]
        print(f"  {stage}: {np.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})")
    moved = [day["moved"] for day in later]
    print(f"  rows: {min(d['rows'] for d in later)} to {max(d['rows'] for d in later)}; cold to hot "
          f"{np.median([m['cold_to_hot'] for m in moved]):.0f}, "
        f"hot to cold {np.median([m['hot_to_cold'] for m in moved]):.0f}; "
          f"exact {all(m['exact'] for m in moved)} in {len(moved)} nights")  # fmt: skip
    cost = result["cost"]
    print(f"  move_rows alone, {cost['rows']} rows ({cost['bytes'] / 2**20:.0f} MiB): "
          + ", ".join(f"{s:.2f}" for s in cost["seconds"]) + " s")  # fmt: skip


def draw(result: dict[str, Any], path: Path) -> None:
    """Hot-input share and coverage by day: a colour a drift, a dash a hot set."""
    figure = Figure(figsize=(9.6, 3.9), layout="constrained")
    panels = figure.subplots(1, 2)
    days = np.arange(1, result["settings"]["days"] + 1)
    for colour, drift in zip(PALETTE, sorted({chain["drift"] for chain in result["chains"]}), strict=False):
        for axes, key in zip(panels, ("input_share", "coverage"), strict=True):
            for policy, dash, words in (("recalibrated", "-", "the day's own"), ("kept", "--", "day 1's")):
                values = [100 * value["mean"] for value in _series(result, drift, policy, key)]
                axes.plot(
                    days, values, dash, color=colour, marker="o", markersize=3, label=f"{drift:.1%} a day, {words}"
                )
            values = [100 * value["mean"] for value in _yesterday(result, drift, key) if value is not None]
            axes.plot(days[1:], values, ":", color=colour, label=f"{drift:.1%} a day, the day before's")
    for axes, words in zip(panels, ("hot inputs, %", "hot lookups, %"), strict=True):
        axes.set(xlabel="day", ylabel=words)
        axes.spines[["top", "right"]].set_visible(False)
    panels[1].legend(frameon=False, fontsize=8, loc="lower left", title="drift, hot set of", title_fontsize=8)
    save_svg(figure, path)
