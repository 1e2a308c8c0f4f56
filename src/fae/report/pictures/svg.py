"""Line plots as SVG text: axes, curves, bars, marks.

The text is put together here and not by a template: nearly all of it is coordinates, worked out point by point, and a
plot is built up by calls. Every text in it is escaped here, so the templates take a picture as `Markup`. Pictures name
classes of ``templates/style.css`` and no colours, so they follow the page into dark mode and onto paper; they have no
identifiers, so one page can hold any number of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

from markupsafe import Markup

from fae.core.units import format_bytes

WIDTH, WIDE, HEIGHT = 560, 1150, 290
"""In units of about a pixel: a picture fills half of the page, or with `WIDE` all of it, so text keeps its size."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 16, 12, 46
_MOST_TICKS = 7


def series_class(index: int) -> str:
    """The class of the series number `index`: six colours, then the same with other dashes."""
    return f"s{index % 6}" + (f" d{(index // 6 - 1) % 3 + 1}" if index >= 6 else "")


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a plot.

    Attributes
    ----------
    base
        2 or 10 for a logarithmic axis, None for a linear one.
    form
        Turns the value of a tick into text.
    """

    low: float
    high: float
    label: str
    form: Callable[[float], str]
    base: int | None = None

    def place(self, value: float) -> float:
        """Where a value lies on the axis: 0 at `low`, 1 at `high`."""
        if self.base is None:
            span = self.high - self.low
            return (value - self.low) / span if span else 0.5
        span = math.log(self.high / self.low)
        return math.log(max(value, self.low) / self.low) / span if span else 0.5

    def ticks(self) -> list[float]:
        """Round values within the axis, at most seven or so."""
        return _linear_ticks(self.low, self.high) if self.base is None else _log_ticks(self.low, self.high, self.base)


def _linear_ticks(low: float, high: float) -> list[float]:
    span = high - low
    if span <= 0:
        return [low]
    step = 10.0 ** math.floor(math.log10(span / _MOST_TICKS))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (factor * step) <= _MOST_TICKS)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def _log_ticks(low: float, high: float, base: int) -> list[float]:
    first, last = math.ceil(math.log(low, base) - 1e-9), math.floor(math.log(high, base) + 1e-9)
    every = max(1, -(-(last - first + 1) // _MOST_TICKS))
    # Counted from the hot end of the axis, so that 100 % keeps its tick.
    return [float(base) ** power for power in range(last, first - 1, -every)][::-1] or [low]


@dataclass(kw_only=True)
class Plot:
    """One picture, built up part by part.

    Attributes
    ----------
    label
        What it shows, for readers who cannot see it.
    width, height
        Size of the whole picture.
    """

    label: str
    x: Axis
    y: Axis
    width: int = WIDTH
    height: int = HEIGHT
    _parts: list[str] = field(default_factory=list)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Left and top of a point in the picture."""
        return (
            _LEFT + self.x.place(x) * (self.width - _LEFT - _RIGHT),
            self.height - _BOTTOM - self.y.place(y) * (self.height - _TOP - _BOTTOM),
        )

    def line(self, points: Sequence[tuple[float, float]], css: str, *, tip: str = "") -> None:
        """A curve through points."""
        placed = [self.at(x, y) for x, y in points]
        if placed:
            path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
            self._parts.append(f'<path class="line {css}" d="{path}">{_tip(tip)}</path>')

    def dot(self, x: float, y: float, css: str, *, tip: str = "", radius: float = 4.5) -> None:
        """A mark; `tip` is shown under the pointer."""
        left, top = self.at(x, y)
        self._parts.append(
            f'<circle class="dot {css}" cx="{left:.1f}" cy="{top:.1f}" r="{radius:g}">{_tip(tip)}</circle>'
        )

    def bar(self, start: float, stop: float, height: float, css: str, *, tip: str = "") -> None:
        """A bar from the x axis up."""
        left, top = self.at(start, height)
        right, bottom = self.at(stop, self.y.low)
        self._parts.append(
            f'<rect class="bar {css}" x="{left:.2f}" y="{top:.1f}" width="{max(0.4, right - left):.2f}" '
            f'height="{max(0.0, bottom - top):.1f}">{_tip(tip)}</rect>'
        )

    def marker(self, x: float, text: str) -> None:
        """A vertical line with a word at its foot."""
        left, top = self.at(x, self.y.high)
        side = ' text-anchor="end"' if self.x.place(x) > 0.5 else ""
        shift = -5 if side else 5
        self._parts.append(
            f'<path class="marker" d="M{left:.1f} {top:.1f}V{self.height - _BOTTOM}"/>'
            f'<text class="word" x="{left + shift:.1f}" y="{self.height - _BOTTOM - 8}"{side}>{escape(text)}</text>'
        )

    def render(self) -> Markup:
        """The picture as one SVG element; all text in it is escaped."""
        wide = ' class="wide"' if self.width >= WIDE else ""
        return Markup(
            f'<svg{wide} viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(self.label)}">'
            f"{self._axes()}{''.join(self._parts)}</svg>"
        )

    def _axes(self) -> str:
        parts, floor = [], self.height - _BOTTOM
        for value in self.y.ticks():
            top = self.at(self.x.low, value)[1]
            parts.append(f'<path class="grid" d="M{_LEFT} {top:.1f}H{self.width - _RIGHT}"/>')
            parts.append(
                f'<text x="{_LEFT - 8}" y="{top + 4:.1f}" text-anchor="end">{escape(self.y.form(value))}</text>'
            )
        for value in self.x.ticks():
            left = self.at(value, self.y.low)[0]
            parts.append(f'<path class="grid" d="M{left:.1f} {_TOP}V{floor}"/>')
            # Words at the right edge would be cut off if they were centred.
            anchor = "end" if left > self.width - _RIGHT - 12 else "middle"
            shift = 12 if anchor == "end" else 0
            where = f'x="{left + shift:.1f}" y="{floor + 17}" text-anchor="{anchor}"'
            parts.append(f"<text {where}>{escape(self.x.form(value))}</text>")
        middle = (_LEFT + self.width - _RIGHT) / 2
        parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{floor}H{self.width - _RIGHT}"/>')
        where = f'x="{middle:g}" y="{self.height - 8}" text-anchor="middle"'
        parts.append(f'<text class="name" {where}>{escape(self.x.label)}</text>')
        parts.append(
            f'<text class="name" text-anchor="middle" transform="translate(13 {(floor + _TOP) / 2:g}) rotate(-90)">'
            f"{escape(self.y.label)}</text>"
        )
        return "".join(parts)


def _tip(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""


def percent(value: float) -> str:
    """A share as a tick.

    >>> percent(1.0), percent(0.2), percent(0.0001)
    ('100 %', '20 %', '0.01 %')
    """
    return f"{100 * value:.10f}".rstrip("0").rstrip(".") + " %"


def short_count(value: float) -> str:
    """A count as a tick.

    >>> short_count(500), short_count(20_000), short_count(4.5e7)
    ('500', '20 k', '45 M')
    """
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def short_bytes(value: float) -> str:
    """Bytes as a tick.

    >>> short_bytes(2**20), short_bytes(1.5 * 2**30)
    ('1 MiB', '1.5 GiB')
    """
    return format_bytes(int(value)).replace(".0 ", " ")
