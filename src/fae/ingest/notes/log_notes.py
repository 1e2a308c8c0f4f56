"""Lines for people about a log: columns and splits that are probably not what their owner meant. None for most logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fae.ingest.config import LogConfig
from fae.ingest.notes.split_lookups import ColumnLookups
from fae.ingest.notes.value_examples import UnknownExample

UNKNOWN_SHARE = 0.9
"""A note is made where this share of a split's lookups is unknown, and at most half that share of training's."""
FORM_SHARE = 0.5
"""The same, where at least half of the unknown values differ from training's by their form alone."""
LARGE = 1e4
"""Largest dense value behind the transform without a note."""
VANISHED_SHARE = 0.05
"""Share of the values of a dense column that may be negative and become 0 without a note."""
FEW_LOOKUPS = 5
"""Where a split has fewer lookups of a column, they may all be new by chance: no note, unless the form tells."""
_MOST_CHARACTERS = 60
_SEPARATORS = ";,| \t/:&"


def shown_value(text: str | None) -> str:
    """A value as notes show it.

    >>> shown_value("a b"), shown_value(""), shown_value("x" * 99)[-7:]
    ("'a b'", 'no value', "xxx'...")
    """
    if not text:
        return "no value"
    return repr(text[:_MOST_CHARACTERS]) + ("..." if len(text) > _MOST_CHARACTERS else "")


def percent(share: float) -> str:
    """A share for people; 100 % and 0 % are exact.

    >>> percent(1.0), percent(0.9999), percent(0.4872), percent(0.0)
    ('100 %', '99.9 %', '48.7 %', '0 %')
    """
    if share in (0.0, 1.0):
        return f"{100 * share:.0f} %"
    return f"{min(max(100 * share, 0.1), 99.9):.1f} %"


def class_notes(label_rate: Mapping[str, float | None]) -> list[str]:
    """Splits with one class only."""
    notes = []
    for rate in (0.0, 1.0):
        names = ["training" if name == "train" else name for name, found in label_rate.items() if found == rate]
        if names:
            which = f"the {names[0]} split has" if len(names) == 1 else f"the {' and '.join(names)} splits have"
            notes.append(
                f"{which} one class only: every label is {rate:.0f}, so AUC is not defined there"
                + (", and nothing can be learned that tells the classes apart" if "training" in names else "")
                + '; is the log sorted by label? Set [log] split = "random", or add the other class'
            )
    return notes


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
        notes += _single_notes(config, column, lambda index=index: only_value(index))
        if column.schema.length > 1 and not column.has_lists and any(s.lookups for s in column.splits.values()):
            looked_for = "',' or white space" if settings.brackets else repr(settings.separator)
            value = only_value(index)
            notes.append(
                f"the list column {name!r} never has more than one item; the separator looked for is {looked_for}, and "
                f"one item is {shown_value(value)}; {_separator_hint(value, settings.separator)}"
            )
        if not (config.has_published_split() and config.known and config.known.split == "users" and name == "user"):
            notes += _unknown_notes(column, lambda split, index=index: example(index, split))
        for split, found in column.splits.items():
            if found.num_inputs and found.absent == found.num_inputs and training.absent < training.num_inputs / 2:
                notes.append(
                    f"the column {name!r} has no value in any input of the {split} split, and training lacks it in "
                    f"{percent(training.absent / training.num_inputs)}; was it left out there?"
                )
    return notes


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


def _unknown_notes(column: ColumnLookups, example: Callable[[str], UnknownExample]) -> list[str]:
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
            f"{percent(share)} of its lookups in the {split} split are unknown (training: {percent(training)}), such "
            f"as {shown_value(shown.here)}, where training has {shown_value(shown.in_training)}"
        )
        if shown.forms and shown.form_share >= 0.1:
            reason = (
                f"two files write values differently ({' and '.join(shown.forms)}): write them in one way in all files"
            )
    if not lines:
        return []
    reason = reason or (
        "do all files write values in one way? If the log is sorted by this column, order it by time ([log] time); "
        "values that are always new, such as dates, are better left out"
    )
    return [f"the column {column.schema.name!r}: {'; '.join(lines)}; {reason}"]


def dense_notes(
    config: LogConfig,
    missing: Mapping[str, Sequence[int]],
    sizes: Mapping[str, int],
    facts: Mapping[str, Any],
) -> list[str]:
    """Dense columns without values, far too large, or cut off at 0.

    Parameters
    ----------
    missing, sizes
        Per split: inputs that lack each column, and all inputs.
    facts
        `fae.ingest.notes.dense_facts.DenseFacts.state`.
    """
    notes: list[str] = []
    total, transform = sum(sizes.values()), config.dense_transform
    for index, name in enumerate(config.dense_columns()):
        lacking = {split: counts[index] for split, counts in missing.items() if sizes[split]}
        vanished, largest = facts["vanished"][index], facts["largest"][index]
        if lacking["train"] == sizes["train"]:
            where = "log" if sum(lacking.values()) == total else "training split"
            notes.append(f"the dense column {name!r} has no value in the whole {where}; leave it out, or correct it")
        else:
            notes += [
                f"the dense column {name!r} has no value in any input of the {split} split, and training lacks it in "
                f"{percent(lacking['train'] / sizes['train'])}; was it left out there?"
                for split, count in lacking.items()
                if count == sizes[split] and lacking["train"] < sizes["train"] / 2
            ]
        if largest > LARGE:
            notes.append(
                f'the dense column {name!r} has values as large as {largest:.3g} (dense_transform = "{transform}"), '
                "with which training seldom works; a time or a key is no number to learn from: leave it out or list it "
                'as categorical; a count takes dense_transform = "log1p"; anything else, scale it'
            )
        with_value = total - sum(lacking.values())
        if config.known is None and with_value and vanished > VANISHED_SHARE * with_value:
            notes.append(
                f"{percent(vanished / with_value)} of the values of the dense column {name!r} are negative and became "
                f'0, as dense_transform = "{transform}" is for counts; set dense_transform = "none", or '
                '"signed_log1p" where they are large'
            )
    return notes
