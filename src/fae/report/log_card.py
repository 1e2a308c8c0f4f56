"""The card "Your log": its splits, its columns, and what ingest noticed. Older records show what they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

from fae.core.units import format_count
from fae.report.per_table import column_names
from fae.report.records import RunRecord, as_number
from fae.report.shown_values import DASH, Absent, Shown, show_count, show_share

_SPLITS = ("train", "validation", "test")
_NAMES = {"train": "training", "validation": "validation", "test": "test"}
_HEADS = ("distinct", "seen once", "most frequent", "missing", "unknown ids in test")
_MOST_OPEN = 14
"""Columns that are shown at once; the lines of more are folded."""


@dataclass(frozen=True, kw_only=True)
class LogColumn:
    """One column of the log.

    Attributes
    ----------
    kind
        ``ids``, ``list of ids`` or ``number``.
    cells
        A value for each of `LogCard.heads`.
    note
        What is odd about it, such as ``nearly every value occurs once: a key?``; empty where nothing is.
    """

    name: str
    kind: str
    cells: Sequence[Shown]
    note: str


@dataclass(frozen=True, kw_only=True)
class LogCard:
    """What the page says of the log.

    Attributes
    ----------
    heads
        What the cells of columns are; what the record has for no column is left out.
    splits
        ``(name, inputs, label rate)`` of those that the record has.
    columns
        Categorical columns first, in the order of the recipe.
    summary
        All columns in a sentence.
    is_folded
        Whether the columns are too many to be shown at once.
    lines
        What ingest noticed.
    """

    heads: Sequence[str]
    splits: Sequence[tuple[str, Shown, Shown]]
    columns: Sequence[LogColumn]
    summary: str
    is_folded: bool
    lines: Sequence[str]


def read_log_card(run: RunRecord) -> LogCard | None:
    """The card, or None where the record has no log."""
    if not run.table("log"):
        return None
    notes = run.get("log", "notes")
    columns = [*_categorical(run), *_dense(run)]
    known = [
        any(column.cells[place] not in (Absent.NOT_RECORDED, DASH) for column in columns)
        for place in range(len(_HEADS))
    ]
    return LogCard(
        heads=list(compress(_HEADS, known)),
        splits=[one for name in _SPLITS if not isinstance((one := _split(run, name))[1], Absent)],
        columns=[replace(column, cells=list(compress(column.cells, known))) for column in columns],
        summary=_summary(run, columns),
        is_folded=len(columns) > _MOST_OPEN,
        lines=[str(note) for note in notes if note] if isinstance(notes, list) else [],
    )


def _summary(run: RunRecord, columns: Sequence[LogColumn]) -> str:
    """How many columns there are, their distinct values, and which have the most that is unknown or missing."""
    num_ids = sum(column.kind != "number" for column in columns)
    counted = [(as_number(facts.get("distinct")), as_number(facts.get("seen_once")))
               for facts in run.table("log", "value_facts").values() if isinstance(facts, Mapping)]  # fmt: skip
    distinct, once = (sum(pair[place] or 0 for pair in counted) for place in (0, 1))
    text = f"{num_ids} column{'s' * (num_ids != 1)} of ids"
    if distinct:
        share = f"{100 * once / distinct:.0f} %"
        text += f" with {format_count(distinct)} values, {format_count(once)} of them ({share}) seen once"
    if len(columns) > num_ids:
        text += f"; {len(columns) - num_ids} of numbers"
    unknown = _largest(run.table("log", "unknown_share", "test"))
    if unknown:
        text += f"; most unknown ids in test: {unknown[0]}, {100 * unknown[1]:.1f} %"
    missing = _largest({**run.table("log", "missing_share"), **run.table("log", "dense_missing_share")})
    if missing:
        text += f"; most missing: {missing[0]}, {100 * missing[1]:.1f} %"
    return text + "."


def _largest(shares: Mapping[str, Any]) -> tuple[str, float] | None:
    """The column with the largest share, if that is above 0.05 %."""
    known = [(str(name), share) for name, value in shares.items() if (share := as_number(value)) is not None]
    most = max(known, key=lambda pair: pair[1], default=None)
    return most if most and most[1] >= 0.0005 else None


def _split(run: RunRecord, name: str) -> tuple[str, Shown, Shown]:
    ends = run.get("log", "splits", name)
    start, stop = map(as_number, ends) if isinstance(ends, list) and len(ends) == 2 else (None, None)
    size = stop - start if start is not None and stop is not None else None
    rate = run.number("log", "label_rate", name)
    return _NAMES[name], show_count(size), DASH if size == 0 else show_share(rate)


def _categorical(run: RunRecord) -> list[LogColumn]:
    found = []
    for feature in run.items("log", "features"):
        names = column_names(feature)
        for name in names:
            found.append(_categorical_column(run, feature, name, is_shared=len(names) > 1))
    return found


def _categorical_column(run: RunRecord, feature: Mapping[str, Any], name: str, *, is_shared: bool) -> LogColumn:
    facts = run.table("log", "value_facts", name)
    distinct = as_number(facts.get("distinct"))
    if distinct is None and not is_shared and _keeps_every_value(run):
        distinct = as_number(feature.get("num_embeddings"))
        distinct = distinct and distinct - (as_number(feature.get("unknown_id")) is not None)
    once, share = as_number(facts.get("seen_once")), as_number(facts.get("most_frequent_share"))
    most = facts.get("most_frequent")
    frequent: Shown = show_share(share)
    if share is not None:
        frequent = f"{_short(most)}: {100 * share:.1f} %" if isinstance(most, str) and most else f"{100 * share:.1f} %"
    return LogColumn(
        name=name,
        kind="list of ids" if (as_number(feature.get("length")) or 1) > 1 and not is_shared else "ids",
        cells=[
            show_count(distinct),
            _once(once, distinct),
            frequent,
            show_share(run.number("log", "missing_share", name)),
            _unseen(run, name),
        ],
        note=_note(facts, once, distinct),
    )


def _keeps_every_value(run: RunRecord) -> bool:
    return run.number("recipe", "log", "min_frequency") in (None, 1)


def _once(once: float | None, distinct: float | None) -> Shown:
    if once is None:
        return Absent.NOT_RECORDED
    return format_count(once) + (f" ({100 * once / distinct:.0f} %)" if distinct else "")


def _unseen(run: RunRecord, name: str) -> Shown:
    if run.has("log", "unknown_share", "test", name) and run.number("log", "unknown_share", "test", name) is None:
        return DASH
    return show_share(run.number("log", "unknown_share", "test", name))


def _note(facts: Mapping[str, Any], once: float | None, distinct: float | None) -> str:
    looks = facts.get("looks_like")
    if looks == "key":
        counted = f"{format_count(once)} of {format_count(distinct)} values occur once" if once and distinct else ""
        return f"{counted or 'nearly every value occurs once'}: a key says nothing of other inputs"
    if looks == "timestamp":
        return "points in time: those of later inputs are always new"
    return ""


def _short(text: str, most: int = 18) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _dense(run: RunRecord) -> list[LogColumn]:
    names = run.get("log", "dense")
    return [
        LogColumn(
            name=str(name), kind="number", note="",
            cells=[DASH, DASH, DASH, show_share(run.number("log", "dense_missing_share", str(name))), DASH],
        )
        for name in (names if isinstance(names, list) else [])
    ]  # fmt: skip
