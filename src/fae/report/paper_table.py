"""The paper's table from the record of ``fae bench paper``, as plain values.

Every number is in the ``tables`` of the record; nothing is worked out here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fae.core.units import format_bytes, format_count
from fae.report.pictures.page_cards import Bar, BarPart, PageCard
from fae.report.records import RunRecord, as_number
from fae.report.sentences.noise import best_places, rate_error
from fae.report.shown_values import (
    DASH,
    Absent,
    Shown,
    seconds_text,
    show_bytes,
    show_count,
    show_metric,
    show_seconds,
    show_share,
)

_PHASES = {
    "cold": "cold batches", "hot": "hot batches", "swaps_to_device": "swaps to the GPU", "swaps_to_host": "swaps back",
}  # fmt: skip
_COLOURS = {"cold": "cold", "hot": "hot", "swaps_to_device": "s0", "swaps_to_host": "s1"}


@dataclass(frozen=True, kw_only=True)
class BatchSizeResults:
    """The measurements at one batch size.

    Attributes
    ----------
    size
        Inputs in a batch; None where it is not recorded.
    speed, effort
        ``(name, cells)`` of each contender, of two tables; the template has the heads of their columns.
    fastest
        Places of the contenders that are fastest beyond noise; empty where none is.
    left_out
        ``(name, reason)`` of each contender that was not measured.
    warning
        What the host did that makes the measurements doubtful; None where it did nothing.
    gpus
        ``(name, cells)`` of each contender on each number of GPUs, from one on; empty where one was measured.
    claims
        ``(the paper's baseline, the paper's speedup, that of placement paper, that of placement tiered)``.
    """

    size: Shown | None
    speed: Sequence[tuple[str, Sequence[Shown]]]
    effort: Sequence[tuple[str, Sequence[Shown]]]
    fastest: frozenset[int]
    gpus: Sequence[tuple[str, Sequence[Shown]]]
    left_out: Sequence[tuple[str, str]]
    warning: str | None
    rates: PageCard
    epoch: PageCard
    claims: Sequence[tuple[str, Shown, Shown, Shown]]


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One record of ``fae bench paper``."""

    title: str
    log: dict[str, Shown]
    is_synthetic: bool
    is_cpu: bool
    is_complete: bool
    batch_sizes: Sequence[BatchSizeResults]


def is_paper_table(run: RunRecord) -> bool:
    """Whether a record is one of ``fae bench paper``."""
    return run.text("kind") == "paper_table"


def read_paper_table(run: RunRecord) -> PaperTable:
    """What the page shows of such a record."""
    return PaperTable(
        title=run.text("workload", "title") or run.label,
        log={
            "train_inputs": show_count(run.number("log", "train_inputs")),
            "num_rows": show_count(run.number("log", "num_rows")),
            "touched_rows": show_count(run.number("log", "touched_rows")),
            "table_bytes": show_bytes(run.number("log", "table_bytes")),
        },
        is_synthetic=bool(run.get("log", "made_up")),
        is_cpu=run.text("settings", "device") == "cpu",
        is_complete=run.get("complete") is not False,
        batch_sizes=[_batch_size(RunRecord(label=run.label, record=one)) for one in run.items("tables")],
    )


def _batch_size(at: RunRecord) -> BatchSizeResults:
    size, warning = at.number("batch_size"), at.text("host", "warning")
    rows = [RunRecord(label=str(row.get("label", "")), record=row) for row in at.items("rows")]
    return BatchSizeResults(
        size=None if size is None else show_count(size),
        speed=[(row.label, _speed_cells(row)) for row in rows],
        effort=[(row.label, _effort_cells(row)) for row in rows],
        fastest=_fastest(rows),
        gpus=[_gpu_row(RunRecord(label=str(row.get("label", "")), record=row)) for row in at.items("gpus")],
        left_out=[(str(one.get("label")), str(one.get("why"))) for one in at.items("left_out")],
        warning=warning and f"{warning[:1].upper()}{warning[1:]}.",
        rates=_rates_card(at),
        epoch=_epoch_card(at),
        claims=[_claim(RunRecord(label="", record=one)) for one in at.items("claims")],
    )


def _spread(row: RunRecord) -> tuple[float | None, float | None]:
    spread = row.get("spread")
    low, high = map(as_number, spread) if isinstance(spread, list) and len(spread) == 2 else (None, None)
    return low, high


def _speed_cells(row: RunRecord) -> list[Shown]:
    low, high = _spread(row)
    return [
        show_count(row.number("samples_per_second")),
        Absent.NOT_RECORDED if low is None or high is None else f"{format_count(low)} to {format_count(high)}",
        show_seconds(row.number("epoch_seconds")),
        _times(row.number("over plain cpu")),
        _times(row.number("over plain hybrid")),
        show_count(row.number("batches_measured")),
    ]


def _gpu_row(row: RunRecord) -> tuple[str, list[Shown]]:
    low, high = _spread(row)
    number = row.number("gpus")
    cells = [
        show_count(row.number("global_batch")),
        show_count(row.number("samples_per_second")),
        Absent.NOT_RECORDED if low is None or high is None else f"{format_count(low)} to {format_count(high)}",
        _times(row.number("over one")),
        _times(row.number("over data parallel")),
        show_count(row.number("batches_measured")),
    ]
    return (f"{number:.0f} x {row.label}" if number else row.label), cells


def _effort_cells(row: RunRecord) -> list[Shown]:
    return [
        _or_dash(row.number("auc"), show_metric),
        _or_dash(row.number("log_loss"), show_metric),
        _or_dash(row.number("input_share"), show_share),
        show_bytes(row.number("bytes_to_device")),
        show_bytes(row.number("bytes_to_host")),
        show_count(row.number("swaps")),
        show_bytes(row.number("device_bytes")),
    ]


def _fastest(rows: Sequence[RunRecord]) -> frozenset[int]:
    rates = [row.number("samples_per_second") for row in rows]
    errors = [rate_error(*_spread(row), row.number("num_samples")) for row in rows]
    return best_places(rates, errors, [show_count(rate) for rate in rates], 1)


def paper_verdict(run: RunRecord) -> str:
    """How fast FAE was at the largest batch size, against what, and in how much memory."""
    tables = sorted(run.items("tables"), key=lambda one: as_number(one.get("batch_size")) or 0)
    rows = [
        (str(row.get("label", "")), rate, as_number(row.get("device_bytes")))
        for row in (RunRecord(label="", record=tables[-1]).items("rows") if tables else ())
        if (rate := as_number(row.get("samples_per_second"))) is not None and rate > 0
    ]
    ours = [row for row in rows if "tiered" in row[0]]
    if not ours:
        return "The record says too little for a verdict: it has no rate of placement tiered."
    name, rate, memory = max(ours, key=lambda row: row[1])
    size = as_number(tables[-1].get("batch_size"))
    in_memory = f" with {format_bytes(int(memory))} of rows on the GPU" if memory else ""
    beside = [f"{_times(rate / their)} {other}" for other, their, _ in rows if other.startswith(("plain", "every row"))]
    at_size = f" in batches of {format_count(size)}" if size else ""
    told = f": {'; '.join(beside)}" if beside else ""
    return f"{name.replace(',', '')} trains {format_count(rate)} inputs/s{at_size}{in_memory}{told}."


def _times(value: float | None) -> Shown:
    return DASH if value is None else f"{value:.2f}x" if value < 10 else f"{value:.1f}x"


def _or_dash(value: float | None, show: Callable[[float | None], Shown]) -> Shown:
    return DASH if value is None else show(value)


def _claim(claim: RunRecord) -> tuple[str, Shown, Shown, Shown]:
    ours = [_times(claim.number("ours", name)) for name in ("paper", "tiered")]
    return str(claim.get("their")), _times(claim.number("speedup")), ours[0], ours[1]


def _rates_card(at: RunRecord) -> PageCard:
    title = "Inputs/s"
    known = [
        (str(row.get("label", "")), rate)
        for row in at.items("rows")
        if (rate := as_number(row.get("samples_per_second"))) is not None and rate > 0
    ]
    if not known:
        return PageCard(title=title)
    # From a tenth of the slowest: linear bars of the baselines would be too short to be seen.
    low = math.log10(min(rate for _, rate in known)) - 1
    width = math.log10(max(rate for _, rate in known)) - low
    bars = [
        Bar(
            name=name, text=format_count(rate),
            parts=[
                BarPart(css="s0" if "FAE" in name else "others", share=(math.log10(rate) - low) / width, tip=name),
            ],
        )
        for name, rate in known
    ]  # fmt: skip
    return PageCard(title=title, bars=bars, caption="Logarithmic: a bar grows by the same length for each tenfold.")


def _epoch_card(at: RunRecord) -> PageCard:
    title = "Where an epoch of placement paper goes"
    seconds = at.table("published", "epoch_seconds")
    known = [(name, value) for name, text in _PHASES.items() if (value := as_number(seconds.get(name))) is not None]
    if not known:
        return PageCard(title=title)
    longest = max(value for _, value in known) or 1
    bars = [
        Bar(
            name=_PHASES[name], text=seconds_text(value),
            parts=[BarPart(css=_COLOURS[name], share=value / longest, tip=f"{_PHASES[name]}: {seconds_text(value)}")],
        )
        for name, value in known
    ]  # fmt: skip
    words = []
    traffic = at.table("published", "whole_epoch", "traffic")
    if traffic:
        counts = {name: as_number(value) or 0 for name, value in traffic.items()}
        to_device = counts.get("swap_bytes_to_device", 0) + counts.get("pooled_bytes_to_device", 0)
        to_host = counts.get("swap_bytes_to_host", 0) + counts.get("gradient_bytes_to_host", 0)
        words.append(
            "Counted over an epoch trained to its end, validation and test included: "
            f"{counts.get('swaps', 0):.0f} swaps, {format_bytes(int(to_device))} to the GPU, "
            f"{format_bytes(int(to_host))} back."
        )
    schedule = at.items("published", "whole_epoch", "schedule")
    if schedule:
        steps = ", ".join(f"{one.get('phase')} R({one.get('rate')})" for one in schedule[:12])
        words.append(f"The scheduler's phases: {steps}{', …' if len(schedule) > 12 else ''}.")
    return PageCard(title=title, bars=bars, caption=" ".join(words))
