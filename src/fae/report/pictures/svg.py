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
from itertools import pairwise

from markupsafe import Markup

from fae.core.units import format_bytes

WIDTH, WIDE, HEIGHT = 530, 1110, 296
"""In units of about a pixel: a picture fills half of the page, or with `WIDE` all of it, so text keeps its size."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 16, 12, 54
_MOST_TICKS = 7


def series_class(index: int) -> str:
    """The class of the series number `index`: six colours, each with dashes of its own; then the same, thinner."""
    return f"s{index % 6}" + (" again" if index >= 6 else "")


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
        """Left and top of a point in the picture; of one outside the axes, on its edge."""
        across, up = (min(1.0, max(0.0, axis.place(value))) for axis, value in ((self.x, x), (self.y, y)))
        return (
            _LEFT + across * (self.width - _LEFT - _RIGHT),
            self.height - _BOTTOM - up * (self.height - _TOP - _BOTTOM),
        )

    def line(self, points: Sequence[tuple[float, float]], css: str, *, tip: str = "") -> None:
        """A curve through points; one that leaves the picture runs along its edge."""
        placed = [self.at(x, y) for x, y in points]
        if placed:
            path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
            self._parts.append(f'<path class="line {css}" d="{path}">{_tip(tip)}</path>')

    def dot(self, x: float, y: float, css: str, *, tip: str = "", radius: float = 4.5, square: bool = False) -> None:
        """A mark, round or square; `tip` is shown under the pointer."""
        left, top = self.at(x, y)
        if square:
            side = 2 * radius - 1
            self._parts.append(
                f'<rect class="dot {css}" x="{left - side / 2:.1f}" y="{top - side / 2:.1f}" width="{side:g}" '
                f'height="{side:g}">{_tip(tip)}</rect>'
            )
            return
        self._parts.append(
            f'<circle class="dot {css}" cx="{left:.1f}" cy="{top:.1f}" r="{radius:g}">{_tip(tip)}</circle>'
        )

    def hover(self, places: Sequence[tuple[float, str]]) -> None:
        """Strips from edge to edge, each around a place of the x axis, that tell values under the pointer."""
        if not places:
            return
        lefts = [self.at(x, self.y.low)[0] for x, _ in places]
        ends = [_LEFT, *((one + two) / 2 for one, two in pairwise(lefts)), self.width - _RIGHT]
        for (_, tip), start, stop in zip(places, ends[:-1], ends[1:], strict=True):
            self._parts.append(
                f'<rect class="hit" x="{start:.1f}" y="{_TOP}" width="{max(0.1, stop - start):.1f}" '
                f'height="{self.height - _TOP - _BOTTOM}">{_tip(tip)}</rect>'
            )

    def bar(self, start: float, stop: float, height: float, css: str, *, tip: str = "") -> None:
        """A bar from 0, or from the low end of an axis above it, to `height`, which may be below 0."""
        left, one = self.at(start, max(0.0, self.y.low))
        right, other = self.at(stop, height)
        self._parts.append(
            f'<rect class="bar {css}" x="{left:.2f}" y="{min(one, other):.1f}" width="{max(0.4, right - left):.2f}" '
            f'height="{abs(other - one):.1f}">{_tip(tip)}</rect>'
        )

    def level(self, y: float, text: str) -> None:
        """A dashed line across the picture with a word at its right end."""
        top = self.at(self.x.low, y)[1]
        below = top < _TOP + 20
        self._parts.append(
            f'<path class="marker" d="M{_LEFT} {top:.1f}H{self.width - _RIGHT}"/>'
            f'<text class="word" x="{self.width - _RIGHT - 4}" y="{top + (16 if below else -6):.1f}" text-anchor="end">'
            f"{escape(text)}</text>"
        )

    def word(self, x: float, y: float, text: str, *, left: bool = False) -> None:
        """A word in the picture beside a point: right of it, or left."""
        at, top = self.at(x, y)
        anchor = ' text-anchor="end"' if left else ""
        self._parts.append(
            f'<text class="word" x="{at + (-9 if left else 9):.1f}" y="{top + 4:.1f}"{anchor}>{escape(text)}</text>'
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
        for number, value in enumerate(self.x.ticks()):
            left = self.at(value, self.y.low)[0]
            parts.append(f'<path class="grid" d="M{left:.1f} {_TOP}V{floor}"/>')
            # Words at an edge would be cut off, or lie over those of the other axis, if they were centred.
            anchor = "end" if left > self.width - _RIGHT - 12 else "start" if left < _LEFT + 12 else "middle"
            shift = {"end": 12, "start": -6, "middle": 0}[anchor]
            # On a phone every second number is left out.
            odd = ' class="odd"' if number % 2 else ""
            where = f'x="{left + shift:.1f}" y="{floor + 20}" text-anchor="{anchor}"{odd}'
            parts.append(f"<text {where}>{escape(self.x.form(value))}</text>")
        middle = (_LEFT + self.width - _RIGHT) / 2
        parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{floor}H{self.width - _RIGHT}"/>')
        where = f'x="{middle:g}" y="{self.height - 9}" text-anchor="middle"'
        parts.append(f'<text class="name" {where}>{escape(self.x.label)}</text>')
        parts.append(
            f'<text class="name" text-anchor="middle" transform="translate(15 {(floor + _TOP) / 2:g}) rotate(-90)">'
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
