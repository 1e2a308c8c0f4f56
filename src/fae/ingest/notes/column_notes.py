"""Notes on categorical columns: unknown or empty in a split, with a single value, lists that are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from fae.ingest.config import LogConfig
from fae.ingest.notes.note_words import shown_share, shown_value
from fae.ingest.notes.split_lookups import ColumnLookups
from fae.ingest.notes.value_examples import UnknownExample

UNKNOWN_SHARE = 0.9
"""A note is made where this share of a split's lookups is unknown, and at most half that share of training's."""
FORM_SHARE = 0.5
"""The same, where at least half of the unknown values differ from training's by their form alone."""
FEW_LOOKUPS = 5
"""Where a split has fewer lookups of a column, they may all be new by chance: no note, unless the form tells."""
_SEPARATORS = ";,| \t/:&"


def column_notes(
    config: LogConfig,
    columns: Sequence[ColumnLookups],
    example: Callable[[int, str], UnknownExample],
    only_value: Callable[[int], str],
) -> list[str]:
    """Columns that are unknown or empty in a split, or say nothing.

    Parameters
    ----------
    example
        From the place of a column and the name of a split to an unknown value of it.
    only_value
        From the place of a column to the text of its `ColumnLookups.only_value`.
    """
    notes: list[str] = []
    for index, (column, settings) in enumerate(zip(columns, config.categorical_columns(), strict=True)):
        name, training = column.schema.name, column.splits["train"]
        notes += _single_notes(config, column, partial(only_value, index))
        has_items = column.only_value >= 0 and any(split.lookups for split in column.splits.values())
        if column.schema.length > 1 and not column.has_lists and has_items:
            looked_for = "',' or white space" if settings.brackets else repr(settings.separator)
            value = only_value(index)
            notes.append(
                f"the list column {name!r} never has more than one item; the separator looked for is {looked_for}, and "
                f"one item is {shown_value(value)}; {_separator_hint(value, settings.separator)}"
            )
        if name not in _split_columns(config):
            notes += _unknown_notes(config, column, partial(example, index))
        for split, found in column.splits.items():
            if found.num_inputs and found.absent == found.num_inputs and training.absent < training.num_inputs / 2:
                notes.append(
                    f"the column {name!r} has no value in any input of the {split} split, and training lacks it in "
                    f"{shown_share(training.absent / training.num_inputs)}; was it left out there?"
                )
    return notes


def _split_columns(config: LogConfig) -> list[str | None]:
    """Columns whose values are each in one split, so that those of validation and test are unknown."""
    by_user = config.has_published_split() and config.known is not None and config.known.split == "users"
    return [config.split_by, "user" if by_user else None]


def _separator_hint(value: str, separator: str) -> str:
    if value.startswith("[") and value.endswith("]"):
        return "set brackets = true"
    marks = [mark for mark in _SEPARATORS if mark in value and mark != separator]
    return f"set separator = {marks[0]!r}?" if marks else "set its separator, or leave max_length out"


def _single_notes(config: LogConfig, column: ColumnLookups, only_value: Callable[[], str]) -> list[str]:
    name, training = column.schema.name, column.splits["train"]
    if training.num_inputs < 2:
        return []
    if training.absent == training.num_inputs:
        return [f"the column {name!r} has no value in the whole training split; leave it out, or correct the log"]
    if column.num_values == 1:
        return [
            f"the column {name!r} has a single value in the whole training split, {shown_value(only_value())}; it says "
            "nothing there: leave it out, or correct the log"
            + ("; items that fill up lists are left out with `padding`" if column.schema.length > 1 else "")
        ]
    if column.num_ids == 1:
        settings = next(each for each in config.categorical_columns() if each.name == name)
        least = config.min_frequency if settings.min_frequency is None else settings.min_frequency
        return [
            f"none of the {column.num_values:,} values of the column {name!r} occurs {least} times in the training "
            "split, so all of them share the reserved id; lower min_frequency"
        ]
    return []


def _unknown_notes(config: LogConfig, column: ColumnLookups, example: Callable[[str], UnknownExample]) -> list[str]:
    training = column.splits["train"].unknown_share or 0.0
    lines, reason = [], ""
    for split, found in column.splits.items():
        share = found.unknown_share
        if split == "train" or share is None or share < FORM_SHARE or training > share / 2:
            continue
        shown = example(split)
        is_plain = share >= UNKNOWN_SHARE and found.lookups >= FEW_LOOKUPS
        if not shown.here or not (is_plain or shown.form_share >= 0.5):
            continue
        lines.append(
            f"{shown_share(share)} of its lookups in the {split} split are unknown (training: "
            f"{shown_share(training)}), such as {shown_value(shown.here)}, where "
            f"training has {shown_value(shown.in_training)}"
        )
        if shown.forms and shown.form_share >= 0.1:
            reason = (
                f"two files write values differently ({' and '.join(shown.forms)}): write them in one way in all files"
            )
    if not lines:
        return []
    if not reason:
        by_time = "if the log is sorted by this column, order it by time ([log] time); "
        reason = (
            f"are they written in one way in all files? {'' if config.time else by_time}values that are always new "
            "(dates) are better left out"
        )
    return [f"the column {column.schema.name!r}: {'; '.join(lines)}; {reason}"]
