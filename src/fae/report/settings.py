"""What runs were asked to do and where they did it: values that differ stand out, the others are folded.

Place in the flow: as `fae.report.side_by_side`. Invariant: every value of the sections asked for is on the page once.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from fae.report.markup import NOT_RECORDED, show_value, table
from fae.report.records import Run, flatten

_MISSING = object()


def differences(runs: Sequence[Run], *sections: str) -> tuple[list[str], list[str]]:
    """Names of the values of some sections that differ between runs, and of those that are the same in all."""
    flat = [_flat(run, sections) for run in runs]
    names = list(dict.fromkeys(name for one in flat for name in one))
    differ = [name for name in names if any(one.get(name, _MISSING) != flat[0].get(name, _MISSING) for one in flat[1:])]
    return differ, [name for name in names if name not in differ]


def _flat(run: Run, sections: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for section in sections:
        value = run.get(section)
        # The recipe's own sections name its values well enough.
        prefix = "" if section == "recipe" else f"{section}."
        if value is not None:
            found.update(flatten(value, prefix) if isinstance(value, dict) else [(section, value)])
    return found


def values(runs: Sequence[Run], *sections: str, same: str) -> str:
    """Values of some sections: those that differ between runs stand first and are marked, the others are folded.

    Parameters
    ----------
    same
        What the folded ones are, such as "values of the recipe".
    """
    differ, equal = differences(runs, *sections)
    if not differ and not equal:
        return f"<p>{NOT_RECORDED}</p>"
    flat, head = [_flat(run, sections) for run in runs], ["", *(run.label for run in runs)]

    def cells(name: str) -> str:
        return "".join(
            f'<td class="text">{NOT_RECORDED if name not in one else show_value(one[name])}</td>' for one in flat
        )

    parts = []
    if differ:
        rows = [
            f'<tr class="differs"><th scope="row"><code>{escape(name)}</code></th>{cells(name)}</tr>' for name in differ
        ]
        parts.append(table(head, rows, run_columns=True, words=True))
    elif len(runs) > 1:
        parts.append('<p class="note">The same in all runs.</p>')
    if equal:
        count = f"{len(equal)} {same}" + (", the same in all runs" if len(runs) > 1 else "")
        rows = [
            f'<tr><th scope="row"><code>{escape(name)}</code></th>'
            f'<td class="text">{show_value(flat[0][name])}</td></tr>'
            for name in equal
        ]
        parts.append(f"<details><summary>{escape(count)}</summary>{table(['', 'value'], rows, words=True)}</details>")
    return "".join(parts)
