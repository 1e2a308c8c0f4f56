"""Pieces of HTML that every part of a report is made of, and how values are printed.

Invariant: every text that comes from a record is escaped here or in `fae.report.svg`, and nowhere else is it put
between tags; what is missing says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from fae.core.units import format_bytes, format_count

NOT_RECORDED = '<span class="none">not recorded</span>'
NOT_DEFINED = '<span class="none">not defined</span>'


def figure(title: str, body: str | None, *, legend: Iterable[tuple[str, str]] = (), caption: str = "") -> str:
    """A card with a picture; `body` is HTML, None where the record does not say.

    Parameters
    ----------
    legend
        ``(class, text)`` of each series.
    """
    if body is None:
        return f'<section class="card"><h3>{escape(title)}</h3><p>{NOT_RECORDED}</p></section>'
    items = "".join(f'<li><i class="{css}"></i>{escape(text)}</li>' for css, text in legend)
    below = f'<ul class="legend">{items}</ul>' if items else ""
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<section class="card"><h3>{escape(title)}</h3><figure>{body}{below}{words}</figure></section>'


def table(head: Sequence[str], rows: Iterable[str], *, run_columns: bool = False, words: bool = False) -> str:
    """A table that scrolls sideways where the window is narrow.

    Parameters
    ----------
    rows
        HTML.
    run_columns
        Whether the columns are runs, whose names stand out.
    words
        Whether the cells hold words, which are aligned on the left.
    """
    css = ' class="run"' if run_columns else ""
    cells = "".join(f'<th scope="col"{css if index else ""}>{escape(text)}</th>' for index, text in enumerate(head))
    kind = ' class="words"' if words else ""
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def bars(rows: Iterable[tuple[str, Sequence[tuple[str, float, str]], str]]) -> str:
    """Horizontal bars, one a row.

    Parameters
    ----------
    rows
        Name; ``(class, share of the full width, tip)`` of each part; text behind the bar.
    """
    parts = []
    for name, pieces, text in rows:
        inner = "".join(
            f'<i class="fill {css}" style="width:{100 * share:.3f}%" title="{escape(tip)}"></i>'
            for css, share, tip in pieces
        )
        parts.append(f'<b>{escape(name)}</b><div class="track">{inner}</div><span>{escape(text)}</span>')
    return f'<div class="bars">{"".join(parts)}</div>'


def show_share(value: float | None) -> str:
    """A share in [0, 1], one digit behind the point."""
    return NOT_RECORDED if value is None else f"{100 * value:.1f} %"


def show_count(value: float | None) -> str:
    """A count."""
    return NOT_RECORDED if value is None else format_count(value)


def show_bytes(value: float | None) -> str:
    """Bytes."""
    return NOT_RECORDED if value is None else format_bytes(int(value))


def show_metric(value: float | None) -> str:
    """A metric of the model: four digits, as differences in the fifth are noise."""
    return NOT_RECORDED if value is None else f"{value:.4f}"


def seconds_text(value: float) -> str:
    """A duration, plain text.

    >>> seconds_text(0.0312), seconds_text(75.2), seconds_text(8000)
    ('0.03 s', '75.2 s', '2 h 13 min')
    """
    if value < 10:
        return f"{value:.2f} s"
    if value < 120:
        return f"{value:.1f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def show_seconds(value: float | None) -> str:
    """A duration."""
    return NOT_RECORDED if value is None else escape(seconds_text(value))


def show_value(value: Any) -> str:
    """Any value of a record: text as it is, all else as JSON."""
    if value is None:
        return '<span class="none">none</span>'
    return escape(value if isinstance(value, str) else json.dumps(value, sort_keys=True))
