"""The part of a page that describes one run: facts, cards, what to try next, notes of calibrate, the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fae.report.log_card import LogCard, read_log_card
from fae.report.per_table import TableLine, column_names, table_lines
from fae.report.pictures.amounts import tiers_card
from fae.report.pictures.charts import budgets_card, skew_card
from fae.report.pictures.page_cards import PageCard
from fae.report.pictures.phases import schedule_card
from fae.report.pictures.scores import ScoreDetails, read_scores
from fae.report.records import RunRecord, as_number
from fae.report.run_facts import run_facts
from fae.report.sentences.commands import NextStep
from fae.report.sentences.next_steps import next_steps
from fae.report.shown_values import Absent, Shown
from fae.report.side_by_side import headline_tiles


@dataclass(frozen=True, kw_only=True)
class RunDetails:
    """The part of the page that belongs to one run.

    Attributes
    ----------
    tiles
        ``(value, name)`` of the most important numbers.
    schedule
        The phases of the shuffle scheduler; None for a run with a fixed order.
    facts
        When it ran, by which command, from which log, what it continues.
    log, scores
        None for records without them.
    steps
        What to try next.
    has_hot_set
        Whether the record knows a hot set at all; that of a plain trainer does not.
    """

    label: str
    tiles: Sequence[tuple[Shown, str]]
    skew: PageCard
    budgets: PageCard
    tiers: PageCard
    notes: Sequence[str]
    facts: Sequence[tuple[str, Shown, bool]]
    log: LogCard | None
    scores: ScoreDetails | None
    steps: Sequence[NextStep]
    tables: Sequence[TableLine]
    schedule: PageCard | None
    has_hot_set: bool


def read_details(run: RunRecord) -> RunDetails:
    """What the page shows of one run."""
    scheduled = run.text("recipe", "train", "order") in ("adaptive", "fixed_rate") or run.items("train", "schedule")
    return RunDetails(
        label=run.label,
        tiles=headline_tiles(run),
        skew=skew_card(run),
        budgets=budgets_card(run),
        tiers=tiers_card(run),
        notes=_calibrate_notes(run),
        facts=run_facts(run),
        log=read_log_card(run),
        scores=read_scores(run),
        steps=next_steps(run),
        tables=table_lines(run),
        schedule=schedule_card(run) if scheduled else None,
        has_hot_set=any(run.has(section) for section in ("hot", "tables", "pack")),
    )


def _calibrate_notes(run: RunRecord) -> list[str]:
    notes = run.get("hot", "notes")
    lines = [str(note) for note in notes] if isinstance(notes, list) else []
    for name in sorted(run.table("hot", "candidates")):
        share, coverage = (
            as_number(run.get("hot", "candidates", name, key)) for key in ("input_share", "coverage")
        )  # fmt: skip
        if share is not None and coverage is not None:
            lines.append(f"{name} would serve {100 * share:.2f} % hot inputs at {100 * coverage:.2f} % coverage")
    bound = run.number("hot", "bound")
    if bound is not None and bound < 1:
        lines.append(
            f"no hot set of this size serves more than {100 * bound:.2f} % of the inputs that it was fitted to"
        )
    return lines


def lead_text(run: RunRecord) -> Shown:
    """What was trained on what, in one line."""
    inputs, features = run.number("log", "num_inputs"), run.items("log", "features")
    model, placement = run.text("recipe", "model", "name"), run.text("recipe", "train", "placement")
    order, optimizer = run.text("recipe", "train", "order"), run.text("recipe", "train", "optimizer")
    return _joined(
        f"{inputs:,.0f} inputs" if inputs is not None else None,
        f"{sum(len(column_names(feature)) for feature in features)} categorical features" if features else None,
        f"model {model}" if model else None,
        f"placement {placement}" if placement else None,
        f"order {order}" if order else None,
        optimizer,
    )


def machine_text(run: RunRecord) -> Shown:
    """The machine and the most important versions, in one line."""
    cores, memory = run.number("machine", "cores"), run.number("machine", "memory_bytes")
    fae, python, torch = (run.text("versions", name) for name in ("fae", "python", "torch"))
    return _joined(
        run.text("machine", "processor"),
        f"{cores:g} cores" if cores else None,
        f"{memory / 2**30:.0f} GiB of memory" if memory else None,
        run.text("machine", "gpu") or ("no GPU" if run.has("machine", "gpu") else None),
        f"fae {fae}" if fae else None,
        f"Python {python}" if python else None,
        f"torch {torch}" if torch else None,
    )


def _joined(*facts: str | None) -> Shown:
    return ", ".join(fact for fact in facts if fact) or Absent.NOT_RECORDED
