"""How values of records are printed on a page: counts, bytes, shares, seconds, and the words for what is absent."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

from fae.core.units import format_bytes, format_count

DASH = "\N{EN DASH}"
"""The text of a cell that has no meaning in its row."""


class Absent(Enum):
    """Why a value is not on the page; the value of a member is what the page says, in a quiet style."""

    NOT_RECORDED = "not recorded"
    NOT_DEFINED = "not defined"
    NULL = "none"


Shown = str | Absent
"""What a cell of a page holds: plain text, which the template escapes, or why there is none."""


def show_share(value: float | None) -> Shown:
    """A share in [0, 1] as per cent, one digit behind the point."""
    return Absent.NOT_RECORDED if value is None else f"{100 * value:.1f} %"


def show_count(value: float | None) -> Shown:
    """A count with thousands separators."""
    return Absent.NOT_RECORDED if value is None else format_count(value)


def show_bytes(value: float | None) -> Shown:
    """Bytes in binary units."""
    return Absent.NOT_RECORDED if value is None else format_bytes(int(value))


def show_metric(value: float | None) -> Shown:
    """A metric of the model: four digits, as differences in the fifth are noise."""
    return Absent.NOT_RECORDED if value is None else metric_text(value)


def metric_text(value: float) -> str:
    """A metric as text.

    >>> metric_text(0.72345)
    '0.7235'
    """
    return f"{value:.4f}"


def show_seconds(value: float | None) -> Shown:
    """A duration, see `seconds_text`."""
    return Absent.NOT_RECORDED if value is None else seconds_text(value)


def seconds_text(value: float) -> str:
    """A duration for people.

    >>> seconds_text(0.0312), seconds_text(75.2), seconds_text(8000)
    ('0.03 s', '75.2 s', '2 h 13 min')
    """
    if value < 10:
        return f"{value:.2f} s"
    if value < 120:
        return f"{value:.1f} s"
    minutes = round(value / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def show_value(value: Any) -> Shown:
    """Any JSON value of a record: text as it is, everything else as JSON."""
    if value is None:
        return Absent.NULL
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def show_number(name: str, value: float) -> Shown:
    """A number by the suffix of its name or of the table that it is in, such as ``moved_bytes``.

    >>> show_number("moved_bytes", 2048), show_number("phase_seconds.hot", 0.5), show_number("count", 2)
    ('2.0 KiB', '0.50 s', '2')
    """
    if name.endswith("_bytes"):
        return show_bytes(value)
    if name.endswith("_seconds") or name.split(".")[0].endswith("_seconds"):
        return show_seconds(value)
    return format_count(value) if value == int(value) else f"{value:.6g}"
