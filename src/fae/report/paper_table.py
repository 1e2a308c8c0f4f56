"""The paper's table, from the record of ``fae bench paper``.

Place in the flow: `fae.report.page` puts it on the page for records that have it; reads JSON only. Invariant: it
works out nothing; every figure stands in the record's ``tables``, and what is missing says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from fae.core.units import format_bytes, format_count
from fae.report.markup import (
    NOT_RECORDED,
    bars,
    figure,
    seconds_text,
    show_bytes,
    show_count,
    show_metric,
    show_seconds,
    show_share,
    table,
)
from fae.report.records import Run, as_number

KIND = "paper_table"
_HEAD = (
    "", "samples/s", "spread", "an epoch", "over plain CPU", "over plain CPU-GPU", "test AUC", "log loss",
    "hot inputs", "to the GPU", "to the host", "swaps", "on the GPU", "batches measured",
)  # fmt: skip
_NONE = "&ndash;"
_PHASES = {
    "cold": "cold batches", "hot": "hot batches", "swaps_to_device": "swaps to the GPU", "swaps_to_host": "swaps back",
}  # fmt: skip


def is_paper_table(run: Run) -> bool:
    """Whether a record is one of ``fae bench paper``."""
    return run.text("kind") == KIND


def sections(run: Run) -> list[str]:
    """HTML of one record: facts, then for each batch size its table, bars, claims and the published system."""
    title = run.text("workload", "title") or run.label
    parts = [f"<h2>The paper's table: {escape(title)}</h2>", _facts(run)]
    if run.get("complete") is False:
        parts.append('<p class="note">Not complete: the same command goes on from here.</p>')
    for one in run.items("tables"):
        at = Run(label=run.label, record=one)
        size = at.number("batch_size")
        parts.append(f"<h3>Batches of {size:,.0f}</h3>" if size is not None else "<h3>Batches</h3>")
        parts.append(f'<section class="card long">{_table(at)}{_left_out(at)}{_host(at)}</section>')
        parts.append(f'<div class="pair">{_bars(at)}{_published(at)}</div>')
        parts.append(_claims(at))
    return parts


def _facts(run: Run) -> str:
    names = ("train_inputs", "num_rows", "touched_rows", "table_bytes")
    inputs, rows, touched, size = (run.number("log", name) for name in names)
    made = "A made-up log" if run.get("log", "made_up") else "A log"
    text = (
        f"{made} of {show_count(inputs)} training inputs; {show_count(rows)} rows, {show_bytes(size)} with optimizer "
        f"state, of which it touches {show_count(touched)}. Samples were taken in turns and extrapolated to one epoch; "
        "bytes are those of rows, pooled embeddings and gradients that cross the bus in an epoch."
    )
    device = run.text("settings", "device")
    if device == "cpu":
        text += " There was no GPU: both tiers lay in host memory, and bytes are what would have moved."
    return f"<p>{text}</p>"


def _table(at: Run) -> str:
    rows = []
    for row in at.items("rows"):
        one = Run(label="", record=row)
        ends = spread if isinstance(spread := row.get("spread"), list) and len(spread) == 2 else [None, None]
        low, high = as_number(ends[0]), as_number(ends[1])
        cells = [
            show_count(one.number("samples_per_second")),
            NOT_RECORDED if low is None or high is None else f"{format_count(low)} to {format_count(high)}",
            show_seconds(one.number("epoch_seconds")),
            _times(one.number("over plain cpu")),
            _times(one.number("over plain hybrid")),
            _or_dash(one.number("auc"), show_metric),
            _or_dash(one.number("log_loss"), show_metric),
            _or_dash(one.number("input_share"), show_share),
            show_bytes(one.number("bytes_to_device")),
            show_bytes(one.number("bytes_to_host")),
            show_count(one.number("swaps")),
            show_bytes(one.number("device_bytes")),
            show_count(one.number("batches_measured")),
        ]
        body = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{escape(str(row.get("label", "")))}</th>{body}</tr>')
    return table(_HEAD, rows) if rows else f"<p>{NOT_RECORDED}</p>"


def _times(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}x" if value < 10 else f"{value:.1f}x"


def _or_dash(value: float | None, show: Any) -> str:
    return _NONE if value is None else str(show(value))


def _left_out(at: Run) -> str:
    items = "".join(
        f"<li>{escape(str(one.get('label')))}: {escape(str(one.get('why')))}</li>" for one in at.items("left_out")
    )
    return f'<p class="note">Left out:</p><ul>{items}</ul>' if items else ""


def _host(at: Run) -> str:
    said = at.text("host", "warning")
    return f'<p class="note">{escape(said[:1].upper() + said[1:])}.</p>' if said else ""


def _bars(at: Run) -> str:
    known = [
        (str(row.get("label", "")), rate)
        for row in at.items("rows")
        if (rate := as_number(row.get("samples_per_second"))) is not None and rate > 0
    ]
    if not known:
        return figure("Samples a second", None)
    # From a tenth of the slowest: a linear bar of the baselines would not be seen beside ours.
    low = math.log10(min(rate for _, rate in known)) - 1
    width = math.log10(max(rate for _, rate in known)) - low
    rows = [
        (label, [("s0" if "FAE" in label else "others", (math.log10(rate) - low) / width, label)], format_count(rate))
        for label, rate in known
    ]
    return figure(
        "Samples a second", bars(rows), caption="Logarithmic: a bar grows by the same length for each tenfold."
    )


def _published(at: Run) -> str:
    title = "Where the published system's epoch goes"
    seconds = at.table("published", "epoch_seconds")
    known = [(name, value) for name, text in _PHASES.items() if (value := as_number(seconds.get(name))) is not None]
    if not known:
        return figure(title, None)
    longest = max(value for _, value in known) or 1
    rows = [
        (_PHASES[name], [(f"s{index}", value / longest, _PHASES[name])], seconds_text(value))
        for index, (name, value) in enumerate(known)
    ]
    words = []
    traffic = at.table("published", "whole_epoch", "traffic")
    if traffic:
        counts = {name: as_number(value) or 0 for name, value in traffic.items()}
        down = counts.get("swap_bytes_to_device", 0) + counts.get("pooled_bytes_to_device", 0)
        up = counts.get("swap_bytes_to_host", 0) + counts.get("gradient_bytes_to_host", 0)
        words.append(
            "Counted over an epoch trained to its end, validation and test included: "
            f"{counts.get('swaps', 0):.0f} swaps, {format_bytes(int(down))} to the GPU, {format_bytes(int(up))} back."
        )
    trace = at.items("published", "whole_epoch", "schedule")
    if trace:
        steps = ", ".join(f"{one.get('phase')} R({one.get('rate')})" for one in trace[:12])
        words.append(f"The scheduler's phases: {steps}{', …' if len(trace) > 12 else ''}.")
    return figure(title, bars(rows), caption=" ".join(words))


def _claims(at: Run) -> str:
    rows = []
    for claim in at.items("claims"):
        ours: Mapping[str, Any] = claim["ours"] if isinstance(claim.get("ours"), Mapping) else {}
        cells = "".join(f"<td>{_times(as_number(ours.get(name)))}</td>" for name in ("paper", "tiered"))
        theirs = _times(as_number(claim.get("speedup")))
        rows.append(f'<tr><th scope="row">over {escape(str(claim.get("their")))}</th><td>{theirs}</td>{cells}</tr>')
    head = ("", "the paper's claim", "FAE as published, over plain PyTorch", "FAE tiered, over plain PyTorch")
    return f'<section class="card"><h3>The paper\'s claim beside ours</h3>{table(head, rows)}</section>' if rows else ""
