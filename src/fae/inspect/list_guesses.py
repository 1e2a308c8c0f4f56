"""Notice lists in text: their separator, brackets, weights, padding, and how long they are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fae.ingest.column_config import ColumnConfig
from fae.ingest.value_types.printed_lists import read_printed
from fae.inspect.column_counts import CountedValues
from fae.inspect.sampled_tables import ITEM_MARK

_SEPARATORS = ("|", ";", ",", "^", "\t", "~", "#", " ")
_LISTED_SHARE = 0.2
"""Least share of the values that have a separator, in a list column."""
_ITEM = re.compile(r"[\w.:@/&'+-]{1,64}")
_CODE = re.compile(r"(?=.*\d)[\w.:-]{1,64}")
"""An item between spaces: text with a digit, where words would be a sentence."""
_WEIGHTED = r"^[^:]+:[+-]?[0-9]+(\.[0-9]+)?$"
_MOST_LENGTH = 64
_LOOKED_AT = 20_000


@dataclass(frozen=True, kw_only=True)
class ListGuess:
    """How the lists of a column are written.

    Attributes
    ----------
    separator
        Empty for lists that are no text (Parquet, JSON).
    max_length
        Items that nearly all lists have at most.
    longest
        Items of the longest list.
    """

    separator: str
    brackets: bool
    weight_separator: str
    padding: str | None
    max_length: int
    longest: int
    items: CountedValues


def guess_list(values: CountedValues, *, stored: bool) -> ListGuess | None:
    """How the lists of a column are written; None where its values are no lists.

    Parameters
    ----------
    stored
        Whether the file has lists that are no text.
    """
    texts = values.texts
    if not len(texts):
        return None
    if stored:
        return _found(values, pc.split_pattern(texts, pattern=ITEM_MARK), separator="")
    head = texts.slice(0, _LOOKED_AT)
    weights = values.weights()[: len(head)].astype(np.float64)
    bracketed = pc.match_substring_regex(head, r"(?s)^[\[({].*[\])}]$")
    if _share(bracketed, weights) > 0.9:
        column = ColumnConfig(name="list", max_length=2, brackets=True)
        try:
            return _found(values, read_printed(texts, column, str), separator="|", brackets=True)
        except Exception:  # no list after all, whatever the reason
            return None
    for separator in _SEPARATORS:
        has_several = pc.match_substring(head, separator)
        if _share(has_several, weights) < _LISTED_SHARE:
            continue
        lists = pc.split_pattern(head, pattern=separator)
        if _reads_as_list(head, lists, separator):
            if _share(pc.match_substring(head, separator + " "), weights) > 0.9 * _share(has_several, weights):
                separator += " "
            return _found(values, pc.split_pattern(texts, pattern=separator), separator=separator)
    return None


def _share(mask: Any, weights: Any) -> float:
    return float(weights[np.asarray(mask)].sum() / max(1.0, weights.sum()))


def _reads_as_list(head: Any, lists: Any, separator: str) -> bool:
    """Whether items are short and come back in other lists, as ids do; words of sentences, prices and times do not."""
    flat = lists.flatten()
    flat = flat.filter(pc.not_equal(flat, ""))
    if not len(flat):
        return False
    sample = flat.slice(0, 2000).to_pylist()
    pattern = _CODE if separator == " " else _ITEM
    if sum(bool(pattern.fullmatch(item.strip())) for item in sample) < 0.9 * len(sample):
        return False
    if separator == "," and all(re.fullmatch(r"[+-]?\d+,\d+", text) for text in head.slice(0, 200).to_pylist()):
        return False  # a decimal comma
    items = len(pc.replace_substring_regex(flat, r":[+-]?[0-9.]+$", "").unique())  # without weights
    return items < 0.8 * len(flat) or len(head) < 20


def _found(values: CountedValues, lists: Any, *, separator: str, brackets: bool = False) -> ListGuess | None:
    weight_separator = ""
    flat = lists.flatten()
    present = flat.filter(pc.not_equal(flat, ""))
    head = present.slice(0, _LOOKED_AT)
    if len(head) and float(np.mean(np.asarray(pc.match_substring_regex(head, _WEIGHTED)))) > 0.95:
        weight_separator = ":"
        lists = pa.ListArray.from_arrays(
            lists.offsets, pc.replace_substring_regex(lists.flatten(), r"^(.*):[^:]*$", r"\1")
        )
    lengths = np.asarray(pc.list_value_length(lists).fill_null(0), np.int64)
    if separator and not brackets and lengths.max(initial=0) < 2:
        return None
    padding = _padding(lists, lengths)
    if padding is not None:
        kept = np.asarray(pc.not_equal(lists.flatten(), padding))
        owners = np.repeat(np.arange(len(lists)), lengths)[kept]
        lengths = np.bincount(owners, minlength=len(lists))
        ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        lists = pa.ListArray.from_arrays(pa.array(ends), lists.flatten().filter(pa.array(kept)))
    order = np.argsort(lengths, kind="stable")
    shares = np.cumsum(values.weights()[order]) / max(1, int(values.weights().sum()))
    usual = int(lengths[order][min(int(np.searchsorted(shares, 0.95)), len(order) - 1)])
    return ListGuess(
        separator=separator, brackets=brackets, weight_separator=weight_separator, padding=padding,
        max_length=min(max(2, usual), _MOST_LENGTH), longest=int(lengths.max(initial=0)), items=values.items(lists),
    )  # fmt: skip


def _padding(lists: Any, lengths: Any) -> str | None:
    """The item that fills all lists up to one length, if they are filled: ``0`` or a word for it, at one end."""
    if len(lists) < 20 or lengths.min() < 3 or lengths.min() != lengths.max():
        return None
    items = np.array(lists.flatten().slice(0, int(lengths[0]) * _LOOKED_AT).to_pylist(), object).reshape(-1, lengths[0])
    for item in ("0", "-1", "[PAD]", "<pad>", "PAD"):
        filled = items == item
        if filled.any(axis=1).mean() > 0.3 and (
            (filled[:, :-1] <= filled[:, 1:]).all() or (filled[:, :-1] >= filled[:, 1:]).all()
        ):
            return item
    return None
