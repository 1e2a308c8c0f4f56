"""A card of the page as plain values: a title over a curve or bars, with a legend and a caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True, kw_only=True)
class BarPart:
    """One coloured piece of a bar.

    Attributes
    ----------
    css
        Class of the series in ``templates/style.css``.
    share
        Share of the full width, in [0, 1].
    tip
        What the pointer shows over it.
    """

    css: str
    share: float
    tip: str


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One horizontal bar: its name, its parts from the left, and the text behind it."""

    name: str
    parts: Sequence[BarPart]
    text: str


@dataclass(frozen=True, kw_only=True)
class PageCard:
    """One card; without pictures, bars and numbers it says "not recorded".

    Attributes
    ----------
    pictures
        SVG elements of `fae.report.pictures.svg`.
    numbers
        ``(value, name)`` of what is too little for a picture.
    legend
        ``(class, text)`` of each series: a class of ``line`` is drawn as a line, one of ``dot`` as a mark, another as
        a box.
    """

    title: str
    pictures: Sequence[Markup] = ()
    bars: Sequence[Bar] = ()
    numbers: Sequence[tuple[str, str]] = ()
    legend: Sequence[tuple[str, str]] = ()
    caption: str = ""
