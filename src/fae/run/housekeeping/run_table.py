"""A list of runs as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fae.core.printable import printable
from fae.core.progress import say
from fae.core.units import format_bytes, format_count

_COLUMNS = ("run", "when", "log", "placement", "budget", "inputs/s", "test AUC", "log loss", "size", "state")
_LEFT = {"run", "when", "log", "placement", "state"}


def say_runs(folder: str, runs: Sequence[Mapping[str, Any]]) -> None:
    """Print what `fae.run.housekeeping.run_list.find_runs` found, a line a run, and what all of them take."""
    if not runs:
        say(f"runs: there is no run in {folder}; `fae run RECIPE.toml` makes one in runs/")
        return
    rows = [_COLUMNS, *(_row(each) for each in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        cells = (
            cell.ljust(width) if name in _LEFT else cell.rjust(width)
            for name, cell, width in zip(_COLUMNS, row, widths, strict=True)
        )
        say("  ".join(cells).rstrip())
    total = sum(each["bytes"] for each in runs)
    say(f"{len(runs)} run{'s' if len(runs) > 1 else ''}, {format_bytes(total)}; `fae clean RUN` frees space")


def _row(run: Mapping[str, Any]) -> tuple[str, ...]:
    log = run["log"]
    files = log[0] + (f" + {len(log) - 1}" if len(log) > 1 else "") if log else ""
    rate, auc, loss = run["inputs_per_second"], run["test_auc"], run["test_log_loss"]
    cells = (
        run["name"],
        (run["when"] or "")[:16].replace("T", " "),
        files + (f" ({format_count(run['num_inputs'])})" if run["num_inputs"] else ""),
        " ".join(word for word in (run["placement"], run["device"]) if word),
        "" if run["budget_bytes"] is None else format_bytes(run["budget_bytes"]),
        "" if rate is None else f"{rate:,.0f}",
        "" if auc is None else f"{auc:.5f}",
        "" if loss is None else f"{loss:.5f}",
        format_bytes(run["bytes"]),
        run["state"] + (f": {run['detail']}" if run["detail"] else ""),
    )
    return tuple(printable(cell) for cell in cells)
