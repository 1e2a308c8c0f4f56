"""Recipes, machines and versions of runs, value by value: those that differ and those that are the same in all runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fae.report.records import RunRecord, flatten
from fae.report.shown_values import Absent, Shown, show_value

_MISSING = object()


@dataclass(frozen=True, kw_only=True)
class ComparedSettings:
    """Values of some sections of the records of runs; every value is in it once.

    Attributes
    ----------
    labels
        Names of the runs, in the order of the cells.
    differing
        ``(dotted name, a cell for each run)`` of what differs.
    incomplete
        As `differing`, of tables that not every record has, such as ``hot`` beside a plain trainer.
    equal
        ``(dotted name, value)`` of what is the same in all runs.
    what
        What the equal ones are called, such as "values of the recipe".
    """

    labels: Sequence[str]
    differing: Sequence[tuple[str, Sequence[Shown]]]
    incomplete: Sequence[tuple[str, Sequence[Shown]]]
    equal: Sequence[tuple[str, Shown]]
    what: str


def compare_settings(runs: Sequence[RunRecord], *sections: str, what: str) -> ComparedSettings:
    """The values of some sections of the records, told apart; see `ComparedSettings`."""
    differing, equal = differing_names(runs, *sections)
    values = [_named_values(run, sections) for run in runs]
    complete = set[str].intersection(*({_table_of(name) for name in one} for one in values)) if values else set()
    lines = [
        (name, [show_value(one[name]) if name in one else Absent.NOT_RECORDED for one in values]) for name in differing
    ]
    return ComparedSettings(
        labels=[run.label for run in runs],
        differing=[line for line in lines if _table_of(line[0]) in complete],
        incomplete=[line for line in lines if _table_of(line[0]) not in complete],
        equal=[(name, show_value(values[0][name])) for name in equal],
        what=what,
    )


def differing_names(runs: Sequence[RunRecord], *sections: str) -> tuple[list[str], list[str]]:
    """Names of the values of some sections that differ between runs, and of those that are the same in all."""
    values = [_named_values(run, sections) for run in runs]
    names = list(dict.fromkeys(name for one in values for name in one))
    differing = [
        name for name in names if any(one.get(name, _MISSING) != values[0].get(name, _MISSING) for one in values[1:])
    ]
    return differing, [name for name in names if name not in differing]


def _table_of(name: str) -> str:
    return name.split(".", 1)[0]


def _named_values(run: RunRecord, sections: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for section in sections:
        value = run.get(section)
        # The sections of the recipe name its values well enough.
        prefix = "" if section == "recipe" else f"{section}."
        if value is not None:
            found.update(flatten(value, prefix) if isinstance(value, dict) else [(section, value)])
    return found
