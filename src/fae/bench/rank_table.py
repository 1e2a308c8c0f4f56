"""The rows of several GPUs in the paper's table: names of their cells, and what follows from them. Pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from fae.bench.config import CONTENDERS

DATA_PARALLEL: Mapping[str, str] = {"cuda": "hybrid", "cpu": "cpu"}
"""What others are compared with on as many GPUs; without GPUs ``hybrid`` is ``cpu``."""
ON_RANKS: Mapping[str, tuple[str, ...]] = {
    "cuda": ("hybrid", "paper", "tiered", "tiered shuffled", "device"),
    "cpu": ("cpu", "paper", "tiered", "tiered shuffled"),
}
"""The contenders that several ranks train, by device."""


def rank_key(size: int, world: int, contender: str, *, alone: bool = False) -> str:
    """Name of the cell of a contender on `world` GPUs or, measured in turns with it, on one `alone`.

    >>> rank_key(64, 2, "paper"), rank_key(64, 2, "paper", alone=True)
    ('64/gpus/2/paper', '64/gpus/2/paper/one')
    """
    return f"{size}/gpus/{world}/{contender}{'/one' * alone}"


def rank_contenders(contenders: Sequence[str], device: str) -> list[str]:
    """Those of `contenders` that several ranks train, in the order of the table."""
    return [name for name in CONTENDERS if name in contenders and name in ON_RANKS[device]]


def rank_rows(cells: Mapping[str, Any], size: int, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows of one batch size: first those of one GPU, whose samples of all turns count, then of 2 and more.

    A ratio over one GPU is one of medians of the same turns.
    """
    found: dict[int, dict[str, dict[str, Any]]] = {}
    ones: dict[str, list[dict[str, Any]]] = {}
    for key, cell in cells.items():
        parts = key.split("/")
        if parts[:2] == [str(size), "gpus"] and cell.get("samples"):
            if parts[-1] == "one":
                ones.setdefault(parts[3], []).append(cell)
            else:
                found.setdefault(int(parts[2]), {})[parts[3]] = cell
    if not ones and not found:
        return []
    alone = {name: {**each[-1], "samples": [one for cell in each for one in cell["samples"]]}
             for name, each in ones.items()}  # fmt: skip
    rows = []
    for world, of_world in sorted({1: alone, **found}.items()):
        base = next((name for name in DATA_PARALLEL.values() if name in of_world), None)
        for name in (name for name in CONTENDERS if name in of_world):
            row = {"gpus": world, **_row(name, of_world[name], size * world, labels)}
            one = cells.get(rank_key(size, world, name, alone=True), {}).get("samples")
            if world > 1 and one:
                row["over one"] = row["samples_per_second"] / _rate(one)
            if base is not None:
                row["data_parallel"] = base
                row["over data parallel"] = row["samples_per_second"] / _rate(of_world[base]["samples"])
            rows.append(row)
    return rows


def lines_of_ranks(rows: Sequence[Mapping[str, Any]], labels: Mapping[str, str], *, device: str) -> list[str]:
    """The rows for a terminal; empty where there are none."""
    if not rows:
        return []
    from fae.core.units import format_count

    each = f"{rows[0]['global_batch'] // rows[0]['gpus']:,} inputs on each"
    lines = [
        f"  on several GPUs, {each}" if device == "cuda"
        else f"  on several processes of this CPU, {each}: what several GPUs do, and no measure of their speed"
    ]  # fmt: skip
    for row in rows:
        low, high = row["spread"]
        over = [f"{row['over one']:.2f}x one"] if "over one" in row else []
        if "over data parallel" in row and row["contender"] != row["data_parallel"]:
            over.append(f"{row['over data parallel']:.2f}x {labels[row['data_parallel']]} on {row['gpus']}")
        lines.append(
            f"  {row['gpus']} x {row['label']:23} {format_count(row['samples_per_second'])} inputs/s "
            f"({format_count(low)} to {format_count(high)}){'; ' * bool(over)}{', '.join(over)}"
        )
    return lines


def _rate(samples: Sequence[Mapping[str, Any]]) -> float:
    return float(statistics.median(sample["samples_per_second"] for sample in samples))


def _row(name: str, cell: Mapping[str, Any], global_batch: int, labels: Mapping[str, str]) -> dict[str, Any]:
    rates = [sample["samples_per_second"] for sample in cell["samples"]]
    return {
        "contender": name, "label": labels[name], "global_batch": global_batch,
        "samples_per_second": statistics.median(rates), "spread": [min(rates), max(rates)], "num_samples": len(rates),
        "batches_measured": sum(sample["batches"] for sample in cell["samples"]),
        "device_bytes": cell.get("device_bytes", 0), "input_share": cell.get("input_share"),
    }  # fmt: skip
