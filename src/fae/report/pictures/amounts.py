"""Bytes and seconds of runs: where the embedding bytes are, and which stage took how long.

Sizes that a record does not hold are worked out from those that it does, or left out; they are never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fae.core.units import format_bytes
from fae.report.pictures.page_cards import Bar, BarPart, PageCard
from fae.report.records import RunRecord, as_number
from fae.report.shown_values import seconds_text

_STAGES = ("ingest", "profile", "calibrate", "pack", "train")
_WHERE = {
    "tiered": "hot rows and staging on the device, cold rows in host memory",
    "device": "all rows on the device, whatever the hot set",
    "spread": "hot rows on every GPU, each other row on one of them",
    "cpu": "all rows in host memory, whatever the hot set",
    "hybrid": "all rows in host memory, whatever the hot set",
    "paper": "hot rows on the device in hot phases, cold batches look up in host memory",
}
"""Where each placement keeps the rows."""


def tiers_card(run: RunRecord) -> PageCard:
    """Bytes of hot rows, staging and cold rows, beside the budget."""
    title = "Where the embedding bytes are"
    sizes = [("hot rows", run.number("hot", "bytes")), ("staging ring", run.number("hot", "staging_bytes"))]
    total = total_bytes(run)
    if total is not None and sizes[0][1] is not None:
        sizes.append(("cold rows", total - sizes[0][1]))
    known = [(name, size) for name, size in sizes if size is not None and size >= 0]
    if not known:
        return PageCard(title=title)
    budget = run.number("hot", "budget_bytes")
    largest = max([size for _, size in known] + [budget or 0]) or 1
    meanings = {"hot rows": "hot", "staging ring": "staging", "cold rows": "cold"}
    colours = [(name, size, meanings[name]) for name, size in known]
    if budget is not None:
        colours.append(("budget", budget, "others"))
    bars = [
        Bar(
            name=name, text=format_bytes(int(size)),
            parts=[BarPart(css=css, share=size / largest, tip=f"{name}: {format_bytes(int(size))}")],
        )
        for name, size, css in colours
    ]  # fmt: skip
    on_device = run.number("train", "device_bytes")
    placement = run.text("recipe", "train", "placement")
    caption = "Rows with their optimizer state."
    if placement:
        where = _WHERE.get(placement)
        caption += f" Placement {placement}" + (f": {where}" if where else "")
        caption += f"; {format_bytes(int(on_device))} on the device while training." if on_device is not None else "."
    return PageCard(title=title, bars=bars, caption=caption)


def row_bytes_by_table(run: RunRecord) -> dict[str, float]:
    """Bytes of a row with its optimizer state, by table.

    Older records say them for no table; there they come from a table of the same width that has hot rows.
    """
    known = {
        str(table.get("name")): size for table in run.items("tables") if (size := as_number(table.get("row_bytes")))
    }
    tables, of_width = run.items("hot", "tables"), dict[float | None, float]()
    for table in tables:
        size, num_hot = as_number(table.get("bytes")), as_number(table.get("num_hot"))
        if size and num_hot:
            of_width[as_number(table.get("embedding_dim"))] = size / num_hot
    for table in tables:
        if (width := as_number(table.get("embedding_dim"))) in of_width:
            known.setdefault(str(table.get("name")), of_width[width])
    return known


def total_rows(run: RunRecord) -> float | None:
    """Rows of all tables, or None where no table is recorded."""
    sizes = [as_number(one.get("num_embeddings")) for one in run.items("hot", "tables")]
    return sum(size or 0 for size in sizes) if sizes else None


def bytes_on_device(run: RunRecord) -> float | None:
    """Bytes of rows on the device while training: as counted there, else hot rows and staging together."""
    used = run.number("train", "device_bytes")
    if used:
        return used
    sizes = [run.number("hot", "bytes"), run.number("hot", "staging_bytes")]
    return None if None in sizes else sum(size or 0 for size in sizes)


def total_bytes(run: RunRecord) -> float | None:
    """Bytes of all rows of all tables, or None where one is not known."""
    widths, tables = row_bytes_by_table(run), run.items("hot", "tables")
    sizes = [(as_number(table.get("num_embeddings")), widths.get(str(table.get("name")))) for table in tables]
    if not sizes or any(rows is None or width is None for rows, width in sizes):
        return None
    return sum((rows or 0) * (width or 0) for rows, width in sizes)


def seconds_by_part(run: RunRecord) -> list[tuple[str, float]]:
    """Seconds of each stage; training is split into its steps and what remains where both are known."""
    stages = run.table("stage_seconds")
    names = [name for name in _STAGES if name in stages] + sorted(name for name in stages if name not in _STAGES)
    parts = [(name, seconds) for name in names if (seconds := as_number(stages[name])) is not None and seconds >= 0]
    steps = run.number("train", "seconds")
    whole = dict(parts).get("train")
    # The steps of a resumed training took longer than its last process did.
    if whole is None or steps is None or not 0 <= steps <= whole:
        return parts
    return [part for part in parts if part[0] != "train"] + [
        ("train: steps", steps),
        ("train: the rest", whole - steps),
    ]


def stage_times_card(runs: Sequence[RunRecord]) -> PageCard:
    """Where the time went, a bar for each run."""
    title = "Where the time went"
    parts = [seconds_by_part(run) for run in runs]
    longest = max((math.fsum(seconds for _, seconds in one) for one in parts), default=0.0)
    names = list(dict.fromkeys(name for one in parts for name, _ in one))
    if not names or not longest:
        return PageCard(title=title)
    bars = [
        Bar(
            name=run.label,
            parts=[
                BarPart(
                    css=f"s{names.index(name) % 6}", share=seconds / longest, tip=f"{name}: {seconds_text(seconds)}"
                )
                for name, seconds in one
            ],
            text=seconds_text(math.fsum(seconds for _, seconds in one)) if one else "not recorded",
        )
        for run, one in zip(runs, parts, strict=True)
    ]
    legend = [
        (f"s{index % 6}", name + (f" {seconds_text(dict(parts[0])[name])}" if len(runs) == 1 else ""))
        for index, name in enumerate(names)
    ]
    return PageCard(
        title=title, bars=bars, legend=legend,
        caption="Seconds of each stage when it was last carried out. The rest of training is start-up, validation, "
        "the test and checkpoints.",
    )  # fmt: skip
