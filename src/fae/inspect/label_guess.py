"""Choose the label among the columns of a log: two values that say yes and no, or a rating, and a name for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fae.core.config import nearest
from fae.core.errors import RecipeError
from fae.ingest.readers.text_faults import LABELS
from fae.inspect.column_kinds import ColumnGuess, label_meanings

_NAMES = (
    re.compile(r"^(label|target|y|click|clicked|is_click|is_clicked|clk|isclick|ctr_label)$", re.IGNORECASE),
    re.compile(
        r"(^|_)(label|target|click|clicked|clk|conversion|converted|purchase|purchased|bought|buy|install|installed|"
        r"like|liked|like_?flag|response|outcome|churn|follow|finish|engaged|is_relevant|relevance)($|_)",
        re.IGNORECASE,
    ),
)
_RATINGS = re.compile(r"(rating|stars?|score|grade|watch_ratio)", re.IGNORECASE)
_MOST_RATINGS = 100


@dataclass(frozen=True, kw_only=True)
class LabelGuess:
    """The label of a log.

    Attributes
    ----------
    meanings
        From each value to 0 or 1; empty where `threshold` says it.
    threshold
        A number is 1 from here on; None where `meanings` say it.
    rate
        Share of labels that are 1.
    others
        Columns that could be labels too.
    is_guessed_rarer
        Whether its two values say neither yes nor no, so that the rarer one was taken as 1.
    """

    name: str
    meanings: dict[str, int]
    threshold: float | None
    rate: float
    others: tuple[str, ...] = ()
    is_guessed_rarer: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether ingest reads it without `label_map` and `label_threshold`."""
        return self.threshold is None and all(text.strip().lower() in LABELS for text in self.meanings)


def guess_label(columns: Sequence[ColumnGuess], wanted: str | None) -> LabelGuess | None:
    """The label; None where no column looks like one.

    Parameters
    ----------
    wanted
        Name of the column that it is, where somebody says so.

    Raises
    ------
    RecipeError
        If there is no column `wanted`, or it holds no labels.
    """
    if wanted is not None:
        return _chosen(columns, wanted)
    found = [(column, meanings) for column in columns if (meanings := label_meanings(column.values)) is not None]
    ranked = sorted(found, key=lambda pair: _rank(pair[0].name))
    if ranked and (len(ranked) == 1 or _rank(ranked[0][0].name) < len(_NAMES)):
        column, meanings = ranked[0]
        others = tuple(other.name for other, _ in ranked[1:] if _rank(other.name) < len(_NAMES))
        return LabelGuess(
            name=column.name, meanings=meanings, threshold=None, rate=_rate(column, meanings), others=others
        )
    for column in columns:
        if _RATINGS.search(column.name) and (guess := _rating(column)) is not None:
            return guess
    for column in columns:
        if _rank(column.name) < len(_NAMES) and (guess := _of_two(column)) is not None:
            return guess
    if ranked:
        column, meanings = ranked[0]
        names = tuple(other.name for other, _ in ranked[1:])
        return LabelGuess(
            name=column.name, meanings=meanings, threshold=None, rate=_rate(column, meanings), others=names
        )
    return None


def _rank(name: str) -> int:
    return next((rank for rank, pattern in enumerate(_NAMES) if pattern.search(name)), len(_NAMES))


def _chosen(columns: Sequence[ColumnGuess], wanted: str) -> LabelGuess:
    column = next((each for each in columns if each.name == wanted), None)
    if column is None:
        raise RecipeError(f"--label {wanted!r} is no column of the files; {nearest(wanted, [c.name for c in columns])}")
    meanings = label_meanings(column.values)
    if meanings is not None:
        return LabelGuess(name=wanted, meanings=meanings, threshold=None, rate=_rate(column, meanings))
    guess = _of_two(column) or _rating(column, most=None)
    if guess is None:
        shown = ", ".join(repr(text) for text, _ in column.values.most_frequent(3))
        raise RecipeError(
            f"--label {wanted!r} has {column.values.distinct:,} values, such as {shown}; expected two that say yes and "
            "no, or numbers to compare with a threshold ([log] label_map, label_threshold)"
        )
    return guess


def _rate(column: ColumnGuess, meanings: dict[str, int]) -> float:
    ones = sum(int(count) for text, count in column.values.most_frequent(2) if meanings.get(text))
    return ones / max(1, column.values.num_values)


def _of_two(column: ColumnGuess) -> LabelGuess | None:
    """A label of two words that say neither yes nor no: the rarer one is what is looked for."""
    if column.values.distinct != 2 or column.kind not in ("categorical", "list"):
        return None
    (often, _), (rare, count) = column.values.most_frequent(2)
    return LabelGuess(
        name=column.name, meanings={often: 0, rare: 1}, threshold=None, rate=count / max(1, column.values.num_values),
        is_guessed_rarer=True,
    )  # fmt: skip


def no_label(columns: Sequence[ColumnGuess]) -> str:
    """Why there is no label, and what to do."""
    for column in columns:
        if _rank(column.name) < len(_NAMES) and column.kind in ("constant", "empty"):
            held = f"one value, {column.values.most_frequent(1)[0][0]!r}" if column.values.distinct else "no value"
            return f"{column.name!r} would be the label and has {held}; a label needs inputs of both kinds"
        if _rank(column.name) < len(_NAMES) and column.kind == "not read":
            return f"{column.name!r} would be the label and is not read ({column.why}); correct the files"
    return "no column looks like a label (two values that say yes and no, or a rating); name it with --label COLUMN"


def _rating(column: ColumnGuess, most: int | None = _MOST_RATINGS) -> LabelGuess | None:
    """A threshold for ratings or counts: the number that at least a quarter and at most three quarters reach."""
    texts = column.values.texts.to_pylist()
    try:
        numbers = np.array([float(str(text)) for text in texts])
    except ValueError:
        return None
    if len(numbers) < 2 or (most is not None and len(numbers) > most) or not np.isfinite(numbers).all():
        return None
    order = np.argsort(-numbers, kind="stable")
    # The share of inputs that reach each number.
    reached = np.cumsum(column.values.weights()[order]) / max(1, column.values.num_values)
    places = np.flatnonzero(np.diff(numbers[order]) < 0)
    place = places[np.argmin(np.abs(reached[places] - 0.5))]
    return LabelGuess(name=column.name, meanings={}, threshold=float(numbers[order][place]), rate=float(reached[place]))
