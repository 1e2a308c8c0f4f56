"""Guess what a column is: label, categorical, list, count, number, time, key, constant or free text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fae.core.errors import LogError
from fae.core.printable import printable
from fae.ingest.column_config import ColumnConfig
from fae.ingest.readers.text_faults import LABELS, number_texts
from fae.ingest.value_types.date_parts import date_parts
from fae.inspect.column_counts import CountedValues
from fae.inspect.list_guesses import ListGuess, guess_list
from fae.inspect.unread_texts import is_other_date

Kind = Literal[
    "label", "categorical", "list", "count", "number", "timestamp", "date", "key", "row number", "constant", "empty",
    "free text", "not read",
]  # fmt: skip
MISSING_WORDS = ("NULL", "null", "\\N", "NaN", "nan", "NA", "N/A", "n/a", "None", "none", "<NA>", "-", "?",
                 "inf", "-inf", "Infinity", "-Infinity")  # fmt: skip
"""Words that mean a missing value where they are among numbers; the first five do so everywhere."""
_ALWAYS_MISSING = frozenset(MISSING_WORDS[:5])
_NUMBER = r"^[ \t]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t]*$"
_COMMA_NUMBER = r"^[+-]?[0-9]+,[0-9]+$"
_TIME_NAMES = re.compile(r"(time|date|stamp|hour|day)|(^|_)(ts|at|dt|t)($|_)", re.IGNORECASE)
_ID_NAMES = re.compile(
    r"(^|[_.-])(id|ids|idx|code|type|cat|category|class|group|cluster|user|item|product|campaign|ad|advertiser|site|"
    r"app|device|country|city|zip|region|brand|model|segment|pos|position|slot|hash|c\d+)($|[_.\d-])|id$",
    re.IGNORECASE,
)
_COUNT_NAMES = re.compile(
    r"(^|[_.-])(n|num|cnt|count|counts|views?|clicks?|impressions|price|amount|qty|quantity|age|days|hours|minutes|"
    r"seconds|duration|length|size|len|total|sum|balance|score|freq|frequency|i\d+)($|[_.\d-])|(count|cnt|price|score)s?$",
    re.IGNORECASE,
)
_KEY_NAMES = re.compile(
    r"(^|[_.-])(id|uuid|guid|key|index|row|rownum|hash|session|request|event|impression)($|[_.-])|id$", re.IGNORECASE
)
_KEY_SHARE, _KEY_INPUTS, _ROW_INPUTS = 0.9, 100, 20
_FEW = 20
_WORDS = 4.0
_INSTANT_DIGITS = (10, 13, 16, 19)


@dataclass(frozen=True, kw_only=True)
class ColumnGuess:
    """What a column is taken for, and the facts behind it.

    Attributes
    ----------
    values
        Its values, or of a list its items; words for missing ones are taken out.
    missing_words
        Words among its values that mean missing ones.
    lists
        How its lists are written; None where it has none.
    numbers
        float64 of the looked-at values, for counts and numbers; else empty.
    decimal_comma
        Whether numbers have a comma for a point.
    """

    name: str
    kind: Kind
    values: CountedValues
    missing_words: tuple[str, ...] = ()
    lists: ListGuess | None = None
    numbers: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    decimal_comma: bool = False
    stored: str = ""
    why: str = ""

    def quantiles(self, shares: tuple[float, ...]) -> list[float]:
        """Quantiles of the numbers, each counted as often as it occurs."""
        order = np.argsort(self.numbers, kind="stable")
        reached = np.cumsum(self.values.weights()[order]) / max(1, int(self.values.weights().sum()))
        places = np.minimum(np.searchsorted(reached, np.array(shares)), len(order) - 1)
        return [float(each) for each in self.numbers[order][places]]


def guess_column(
    name: str, counted: CountedValues, *, stored: str = "", is_list: bool = False, num_files: int = 1
) -> ColumnGuess:
    """What a column is; never ``label``, which is one of several (`fae.inspect.label_guess`).

    Parameters
    ----------
    stored
        Its type in a Parquet file.
    is_list
        Whether the file has lists that are no text.
    num_files
        Files of the log: each of them may number its inputs.
    """
    words = tuple(word for word, _ in counted.most_frequent(50) if word in _ALWAYS_MISSING)
    values = counted.without(words)
    facts: dict[str, Any] = {"name": name, "stored": stored, "missing_words": words}
    if not values.distinct:
        return ColumnGuess(kind="empty", values=values, **facts)
    if is_list:
        lists = guess_list(values, stored=True)
        assert lists is not None
        return ColumnGuess(kind="list", values=lists.items, lists=lists, **facts)
    if values.distinct == 1 and not values.num_missing:
        return ColumnGuess(kind="constant", values=values, **facts)
    numbers, among, comma = _numbers(values)
    if numbers is not None:
        if among:
            values = values.without(among)
            facts["missing_words"] = tuple(dict.fromkeys((*words, *among)))
        kind = _number_kind(name, values, numbers, num_files)
        kept = numbers if kind in ("count", "number") else np.zeros(0)
        return ColumnGuess(kind=kind, values=values, numbers=kept, decimal_comma=comma, **facts)
    if _are_times(values.texts):
        has_clock = float(np.mean(np.asarray(pc.match_substring_regex(values.texts, r"[0-9]{2}:[0-9]{2}")))) > 0.05
        return ColumnGuess(kind="timestamp" if has_clock else "date", values=values, **facts)
    if is_other_date(values.texts):
        shown = printable(values.most_frequent(1)[0][0])
        why = f"dates such as {shown!r}; written as 2019-11-24 08:05:00 they order the log and give hour and weekday"
        return ColumnGuess(kind="not read", values=values, why=why, **facts)
    lists = guess_list(values, stored=False)
    if lists is not None:
        return ColumnGuess(kind="list", values=lists.items, lists=lists, **facts)
    return ColumnGuess(kind=_text_kind(values), values=values, **facts)


def _numbers(values: CountedValues) -> tuple[npt.NDArray[np.float64] | None, tuple[str, ...], bool]:
    """The values as numbers, words among them that mean missing ones, whether they have a decimal comma."""
    texts = values.texts
    for pattern, comma in ((_NUMBER, False), (_COMMA_NUMBER, True)):
        is_number = np.asarray(pc.match_substring_regex(texts, pattern))
        if comma and not is_number.any():
            continue
        if comma:
            is_number |= np.asarray(pc.match_substring_regex(texts, _NUMBER)) & ~np.asarray(
                pc.match_substring(texts, ".")
            )
        others = texts.filter(pa.array(~is_number)).slice(0, len(MISSING_WORDS) + 1).to_pylist()
        if is_number.any() and all(word in MISSING_WORDS for word in others):
            found = number_texts(texts.filter(pa.array(is_number)), "," if comma else ".").cast(pa.float64())
            return found.to_numpy(zero_copy_only=False), tuple(others), comma
    return None, (), False


def _number_kind(name: str, values: CountedValues, numbers: npt.NDArray[np.float64], num_files: int) -> Kind:
    is_whole = bool(np.all(numbers == np.floor(numbers)))
    if _are_instants(name, values, numbers):
        return "timestamp"
    is_key = values.num_values >= _KEY_INPUTS and values.seen_once >= _KEY_SHARE * values.num_values
    steps = np.diff(numbers)
    # The index that a dataframe writes, or a counter: it grows by little from input to input, in each file anew.
    grows = len(steps) >= _ROW_INPUTS and (steps > 0).mean() > 0.99 and np.median(steps) <= 10
    if is_whole and grows and values.counts.max(initial=0) <= num_files:
        return "row number"
    if not is_whole:
        return "number"
    if _have_points(values) and not values.num_missing and not name.lower().endswith("id"):
        return "number"  # whole by chance, as shares and scores of few inputs are; gaps make 7.0 of an id, too
    by_name_count, by_name_id = bool(_COUNT_NAMES.search(name)), bool(_ID_NAMES.search(name))
    if is_key and (by_name_id or _KEY_NAMES.search(name) or not by_name_count):
        return "key"
    if (numbers < 0).any() and values.distinct > 3 and not by_name_id:
        return "count"
    if by_name_count and not by_name_id and values.distinct > 2:
        return "count"
    if by_name_id or values.distinct <= _FEW:
        return "categorical"
    return "count" if _falls_with_size(values, numbers) else "categorical"


def _have_points(values: CountedValues) -> bool:
    """Whether nearly all of the values are written with a decimal point."""
    return float(np.mean(np.asarray(pc.match_substring(values.texts, ".")))) > 0.9


def _falls_with_size(values: CountedValues, numbers: npt.NDArray[np.float64]) -> bool:
    """Whether small numbers are frequent and large ones rare, as of counts; ids have no such order."""
    if numbers.min() > 1 or len(numbers) < _FEW:
        return False
    ranks = [np.argsort(np.argsort(each, kind="stable"), kind="stable") for each in (numbers, values.weights())]
    return bool(np.corrcoef(ranks[0], ranks[1])[0, 1] < -0.8 and numbers.max() > 2 * len(numbers))


def _are_instants(name: str, values: CountedValues, numbers: npt.NDArray[np.float64]) -> bool:
    """Whether numbers are points in time: of the digits of Unix time or YYMMDDHH, within years, named or sorted so."""
    whole = np.floor(numbers)
    if not len(whole) or whole.min() < 10**7 or not _are_times(values.texts):
        return False
    digits = np.char.str_len(whole.astype(np.int64).astype(str))
    if digits.min() != digits.max():
        return False
    if int(digits[0]) == 8 or int(digits[0]) == 14:
        return bool(_TIME_NAMES.search(name)) or values.distinct >= _FEW
    if int(digits[0]) not in (9, *_INSTANT_DIGITS):
        return False
    is_sorted = len(whole) > _FEW and float(np.mean(np.diff(numbers) >= 0)) > 0.95
    span = (whole.max() - whole.min()) / 10.0 ** (int(digits[0]) - 10 if int(digits[0]) > 9 else 0)
    return span < 20 * 365 * 86400 and (bool(_TIME_NAMES.search(name)) or (is_sorted and not _KEY_NAMES.search(name)))


def _are_times(texts: Any) -> bool:
    """Whether all of the values read as times."""
    column = ColumnConfig(name="part", from_="time", part="hour")
    try:
        date_parts(texts, column, str)
    except LogError:
        return False
    return True


def _text_kind(values: CountedValues) -> Kind:
    words = np.asarray(pc.count_substring(pc.utf8_trim_whitespace(values.texts), " ")) + 1.0
    is_once = values.num_values >= _KEY_INPUTS and values.seen_once >= _KEY_SHARE * values.num_values
    if words.mean() >= _WORDS and values.distinct > 0.5 * values.num_values:
        return "free text"
    if is_once:
        return "free text" if words.mean() >= 2 and np.asarray(pc.utf8_length(values.texts)).mean() > 20 else "key"
    return "categorical"


def label_meanings(values: CountedValues) -> dict[str, int] | None:
    """From each of the values to 0 or 1, where they are two that say yes and no; None where they are not."""
    if values.distinct != 2 or len(values.texts) != 2:
        return None
    texts = [str(text) for text in values.texts.to_pylist()]
    plain = [LABELS.get(text.strip().lower()) for text in texts]
    if set(plain) == {0, 1}:
        return {text: int(meaning or 0) for text, meaning in zip(texts, plain, strict=True)}
    for no, yes in _YES_AND_NO:
        if {text.strip().lower() for text in texts} == {no, yes}:
            return {text: int(text.strip().lower() == yes) for text in texts}
    return None


_YES_AND_NO = (
    ("-1", "1"), ("no", "yes"), ("n", "y"), ("f", "t"), ("neg", "pos"), ("negative", "positive"), ("noclick", "click"),
    ("no_click", "click"), ("view", "click"), ("impression", "click"), ("not clicked", "clicked"), ("1", "2"),
    ("dislike", "like"), ("0", "-1"), ("off", "on"),
)  # fmt: skip
