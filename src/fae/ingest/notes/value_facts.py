"""What is known of the values of each column: distinct, seen once, the most frequent one, keys and points in time."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from fae.ingest.config import LogConfig
from fae.ingest.notes.note_words import shown_value
from fae.ingest.notes.split_lookups import ColumnLookups

KEY_LOOKUPS, KEY_SHARE = 1000, 0.9
"""A column of at least this many lookups looks like a key where this share of them are values that occur once."""
_TIME_VALUES = 100
"""Fewer distinct points in time may well come back, as days of a week do."""
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*", re.DOTALL)
_UNIX = re.compile(r"1\d{9}(\.\d+|\d{3}|\d{6}|\d{9})?")
"""Seconds, milliseconds, microseconds or nanoseconds from 2001 to 2033."""


def is_instant(text: str) -> bool:
    """Whether a value reads as a point in time: ISO 8601 with a time of day, or Unix time.

    >>> [is_instant(text) for text in ("2019-11-24 00:01:03", "1574553663", "1574553663123", "2019-11-24", "157455366")]
    [True, True, True, False, False]
    """
    return bool(_ISO.fullmatch(text) or _UNIX.fullmatch(text))


def looks_like_key(seen_once: int, lookups: int) -> bool:
    """Whether nearly every lookup of a column is of a value that no other lookup has.

    >>> looks_like_key(950, 1000), looks_like_key(899, 1000), looks_like_key(9, 9)
    (True, False, False)
    """
    return lookups >= KEY_LOOKUPS and seen_once >= KEY_SHARE * lookups


def value_facts(columns: Sequence[ColumnLookups], text: Callable[[int], str]) -> dict[str, dict[str, Any]]:
    """``value_facts`` of a log's summary: facts of each column by its name.

    Parameters
    ----------
    text
        From the place of a column to the text of its `ColumnLookups.only_value`.
    """
    facts: dict[str, dict[str, Any]] = {}
    for index, column in enumerate(columns):
        lookups = column.splits["train"].lookups
        value = text(index) if column.only_value >= 0 else ""
        kind = None
        if column.num_values >= _TIME_VALUES and is_instant(value):
            kind = "timestamp"
        elif not column.schema.encoded and looks_like_key(column.seen_once, lookups):
            kind = "key"
        facts[column.schema.name] = {
            "distinct": column.num_values,
            "seen_once": column.seen_once,
            "most_frequent": ("" if column.is_missing_first else value) if lookups else None,
            "most_frequent_share": column.most_frequent / lookups if lookups else None,
            "looks_like": kind,
        }
    return facts


def key_notes(config: LogConfig, columns: Sequence[ColumnLookups], facts: dict[str, dict[str, Any]]) -> list[str]:
    """Columns that are keys or points in time, whose values a later log does not have."""
    notes = []
    for column in columns:
        name = column.schema.name
        found = facts[name]
        if config.known is not None or name == config.split_by or found["looks_like"] is None:
            continue
        once, lookups = found["seen_once"], column.splits["train"].lookups
        if found["looks_like"] == "key":
            notes.append(
                f"{once:,} of the {lookups:,} training lookups of the column {name!r} "
                "are of values that occur once, as in a key or a row number, which says nothing of other inputs; leave "
                "it out, or set min_frequency"
            )
        else:
            notes.append(
                f"the column {name!r} holds points in time, such as {shown_value(found['most_frequent'])}, and "
                f"{once:,} of its {found['distinct']:,} values occur once; use parts of them in its "
                f'place, {{ name = "hour", from = "{name}", part = "hour" }}'
            )
    return notes
