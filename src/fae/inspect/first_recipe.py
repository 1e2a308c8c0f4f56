"""`fae init`: a recipe that runs, from what a look at raw files has found; every choice has a comment."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc

from fae.core.config import check_path
from fae.core.errors import RecipeError
from fae.core.files import reason
from fae.core.printable import printable
from fae.core.progress import say
from fae.core.whole_files import write_whole
from fae.ingest.column_config import ColumnConfig, Part
from fae.ingest.value_types.date_parts import date_parts
from fae.inspect.column_kinds import ColumnGuess
from fae.inspect.inspection import Inspection
from fae.inspect.inspection_text import inspection_warnings, shown_name, shown_part
from fae.inspect.label_guess import no_label
from fae.inspect.training_guess import can_validate, model_lines, says_little, training_lines

_RARE_VALUES, _RARE_SHARE = 1000, 0.5
"""A column of more values than this, of which more than this share occurs once, takes `min_frequency`."""
_SORTED_SHARE = 0.5
_MOST_LEFT_OUT = 40
_LEAST_DAYS: dict[Part, int] = {"hour": 2, "weekday": 10}
"""Days of a log whose last fifth has no hour, or weekday, that is not in the inputs to train on before it."""


def first_recipe(found: Inspection, *, out: str | None = None) -> str:
    """The recipe's text.

    Parameters
    ----------
    out
        File that it is for, whose folder the names of raw files start from; None is the current folder.

    Raises
    ------
    RecipeError
        If no column looks like a label, or no column can be a categorical one.
    """
    base = Path(out).parent if out else Path()
    lines = [*_head(found), "", "[log]", *_files(found, base)]
    if found.shape.name in ("criteo", "avazu", "taobao"):
        lines += _public_log(found)
    else:
        lines += _own_log(found)
    lines += ["", *model_lines(found), "", *training_lines(found)]
    return "\n".join(lines) + "\n"


def write_recipe(text: str, out: str, *, replace: bool) -> None:
    """Write a recipe to `out`, which is replaced only where `replace` says so.

    Raises
    ------
    RecipeError
        If it is there already, is no plain file, or cannot be written.
    """
    check_path(out, "--out")
    path = Path(out)
    if os.path.lexists(path) and not replace:
        raise RecipeError(
            f"{path} is there already, and it may be your work; give --force to replace it, or another --out"
        )
    if path.exists() and not path.is_file():  # a device, /dev/null even, would be replaced
        raise RecipeError(f"{path} is no plain file; choose another --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise RecipeError(f"cannot write {path}: {reason(error)}; choose another --out") from error
    say(f"init: {path}; fae run {path}")


def _head(found: Inspection) -> list[str]:
    read = "all of them" if found.is_whole else f"of about {found.num_lines:,}"
    names = found.files[0].name if found.num_files == 1 else f"{found.num_files} files"
    faults = recipe_faults(found)
    runs = "" if faults else "It runs as it is; "
    lines = [
        f"# A first recipe for {printable(names)}: {found.shape.describe()}.",
        f"# Written by `fae init` after a look at {found.lines_read:,} inputs ({read}). {runs}all keys:",
        "# docs/reference/recipe.md. What each column holds: `fae inspect`, the same files.",
    ]
    return [*lines, *(f"# {fault}" for fault in faults)]


def recipe_faults(found: Inspection) -> list[str]:
    """What must be corrected in the files before the recipe runs, one line each."""
    lines = []
    if found.odd_lines:
        lines.append(f"{found.odd_lines:,} lines are no inputs, and ingest stops at the first: correct them before.")
    name = None if found.label is None else found.label.name
    missing = next((column.values.num_missing for column in found.columns if column.name == name), 0)
    if missing:
        lines.append(
            f"{missing:,} inputs have no label, and ingest stops at the first: take them out, or say in label_map what "
            "they mean."
        )
    return lines


def _files(found: Inspection, base: Path) -> list[str]:
    names = [_seen_from(name, base) for name in found.names]
    train = _text(names[0]) if len(names) == 1 else "[\n" + "".join(f"    {_text(name)},\n" for name in names) + "]"
    return [f"train = {train}"]


def _seen_from(name: str, base: Path) -> str:
    """A name or glob from the current folder, as it is from the recipe's; in full where it is not below that."""
    if name.startswith("~"):
        return name
    there = os.path.relpath(os.path.abspath(name), os.path.abspath(base))
    return os.path.abspath(name) if there.startswith("..") else there


def _text(value: str) -> str:
    """Text as TOML has it."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _texts(values: Sequence[str]) -> str:
    return "[" + ", ".join(map(_text, values)) + "]"


def _public_log(found: Inspection) -> list[str]:
    name = found.shape.name
    if name == "criteo":
        return [
            'format = "criteo"               # "criteo_kaggle" or "criteo_terabyte" for the published split of these',
            *_fractions(found),
        ]
    if name == "taobao":
        return ['format = "taobao"               # histories of clicks are made, split by user: docs/guide/ingest.md']
    days = {text[:6] for text in _values(found, "hour")}
    lines = ['format = "avazu"                # `hour` becomes the hour of the day']
    if len(days) < 2:
        lines += [
            "# One day alone was seen, and the published split takes the last day for the test.",
            *_fractions(found),
        ]
    return lines


def _values(found: Inspection, name: str) -> list[str]:
    column = next(each for each in found.columns if each.name == name)
    return [str(text) for text in column.values.texts.to_pylist()]


def _fractions(found: Inspection) -> list[str]:
    if not can_validate(found):
        return [
            "test_fraction = 0.2",
            _with_comment("validation_fraction = 0.0", "too few inputs to decide anything"),
        ]
    share = 0.1 if found.num_lines < 1_000_000 else 0.05
    test = 0.2 if says_little(found) else 0.1
    why = "of the rest; it decides when training stops"
    return [f"test_fraction = {test}", _with_comment(f"validation_fraction = {share}", why)]


def _own_log(found: Inspection) -> list[str]:
    if found.label is None:
        raise RecipeError(f"{no_label(found.columns)} (`fae inspect` shows all)")
    usable = [column for column in found.columns if column.name in found.everywhere and column.name]
    times = [column for column in usable if column.kind in ("timestamp", "date")]
    lines = _text_settings(found)
    lines += _label_settings(found)
    categorical = [_categorical(found, column) for column in usable if column.kind in ("categorical", "list")]
    names = [each.name for each in found.columns]
    for column in times:
        entries = _parts(column, names)
        categorical += entries.values()
        names += entries
    if not categorical:
        raise RecipeError(
            "no column can be a categorical one, and embedding tables need one; `fae inspect` shows what the columns "
            "were taken for"
        )
    lines += ["categorical = [", *(_with_comment(f"    {entry},", why) for entry, why in categorical), "]"]
    lines += _dense(usable)
    lines += _split(found, times)
    return [*lines, *_left_out(found)]


def _with_comment(line: str, comment: str) -> str:
    return f"{line:<44}  # {comment}" if comment else line


def _text_settings(found: Inspection) -> list[str]:
    shape = found.shape
    lines = [f'format = "{shape.name}"']
    if shape.name == "csv":
        if shape.separator != ",":
            lines.append(f"separator = {_text(shape.separator)}")
        if shape.quote != '"':
            lines.append(_with_comment(f"quote = {_text(shape.quote)}", "" if shape.quote else "quotes are text"))
        if not shape.has_header:
            lines.append("# There is no header line: give the columns names of yours, here and below.")
            lines.append(f"columns = {_texts(shape.columns)}")
        if any(column.decimal_comma for column in found.columns):
            lines.append('decimal = ","')
    words = sorted({word for column in found.columns for word in column.missing_words})
    if words:
        lines.append(_with_comment(f"missing = {_texts(words)}", "words that mean a missing value"))
    return lines


def _label_settings(found: Inspection) -> list[str]:
    label = found.label
    assert label is not None
    others = f"; {', '.join(map(printable, label.others[:3]))} could be it too" if label.others else ""
    lines = [_with_comment(f"label = {_text(label.name)}", f"{100 * label.rate:.3g} % ones{others}")]
    if label.threshold is not None:
        lines.append(_with_comment(f"label_threshold = {label.threshold:g}", "1 from this number on: choose it"))
    elif not label.is_plain:
        pairs = ", ".join(f"{_text(text)} = {meaning}" for text, meaning in label.meanings.items())
        why = "the rarer one is taken as 1: swap them if it is not what you look for" if label.is_guessed_rarer else ""
        lines.append(_with_comment(f"label_map = {{ {pairs} }}", why))
    return lines


def _categorical(found: Inspection, column: ColumnGuess) -> tuple[str, str]:
    """An entry of `categorical`, and why it is so."""
    values = column.values
    settings: list[str] = []
    why = [f"{values.distinct:,} values"]
    if column.lists is not None:
        lists = column.lists
        settings.append(f"max_length = {lists.max_length}")
        settings.append('pooling = "mean"')
        if lists.brackets:
            settings.append("brackets = true")
        elif lists.separator not in ("", "|"):
            settings.append(f"separator = {_text(lists.separator)}")
        if lists.weight_separator:
            settings.append(f"weight_separator = {_text(lists.weight_separator)}")
        if lists.padding is not None:
            settings.append(f"padding = {_text(lists.padding)}")
        why.append(f"lists of up to {lists.longest}")
    if values.distinct > _RARE_VALUES and values.seen_once > _RARE_SHARE * values.distinct:
        settings.append("min_frequency = 2")
        why.append(f"{shown_part(values.seen_once, values.distinct)} of them occur once")
    if values.new_share is not None and values.new_share > _SORTED_SHARE:
        why.append(f"{shown_part(values.new_share, 1.0)} of the last tenth are new")
    entry = _text(column.name)
    if settings:
        entry = "{ " + ", ".join([f"name = {entry}", *settings]) + " }"
    return entry, ", ".join(why)


def _parts(column: ColumnGuess, names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Hour and weekday of a column of times, as far as the log's days repeat them; by names that are not taken."""
    parts: tuple[Part, ...] = ("weekday",) if column.kind == "date" else ("hour", "weekday")
    entries = {}
    for part in parts:
        config = ColumnConfig(name=part, from_=column.name, part=part)
        if len(pc.unique(date_parts(column.values.texts, config, str))) < 2 or _num_days(column) < _LEAST_DAYS[part]:
            continue
        name = part if part not in names else f"{column.name}_{part}"
        entry = f"{{ name = {_text(name)}, from = {_text(column.name)}, part = {_text(part)} }}"
        entries[name] = (entry, 'in UTC; zone = "Europe/Berlin" for another' if part == "hour" else "0 is Monday")
    return entries


def _num_days(column: ColumnGuess) -> float:
    """Days on which a column of times has inputs, whatever the year; infinite where not all times were looked at."""
    if len(column.values.texts) < column.values.distinct:
        return math.inf
    parts: tuple[Part, ...] = ("month", "day")
    month, day = (
        date_parts(column.values.texts, ColumnConfig(name=part, from_=column.name, part=part), str) for part in parts
    )
    return len(pc.unique(pc.binary_join_element_wise(month, day, "-")))


def _transform(column: ColumnGuess) -> str:
    """The transform that suits a column's numbers."""
    low, high = float(column.numbers.min()), float(column.numbers.max())
    usual = column.quantiles((0.95,))[0]
    if column.kind == "count" or (low >= 0 and high > 20 * usual):
        return "log1p" if low >= 0 else "signed_log1p"
    return "standardize"


def _dense(usable: Sequence[ColumnGuess]) -> list[str]:
    columns = [column for column in usable if column.kind in ("count", "number") and len(column.numbers)]
    if not columns:
        return []
    transforms = [_transform(column) for column in columns]
    common = max(dict.fromkeys(transforms), key=transforms.count)
    lines = ["dense = ["]
    for column, transform in zip(columns, transforms, strict=True):
        entry = _text(column.name)
        if transform != common:
            entry = f"{{ name = {entry}, transform = {_text(transform)} }}"
        low, middle, high = column.numbers.min(), column.quantiles((0.5,))[0], column.numbers.max()
        lines.append(_with_comment(f"    {entry},", f"{low:.4g} to {high:.4g}, half below {middle:.4g}"))
    why = {
        "log1p": "log(1 + x), for counts and long tails", "signed_log1p": "sign(x) log(1 + |x|)",
        "standardize": "less its mean, by its deviation, both of the training split",
    }[common]  # fmt: skip
    return [*lines, "]", _with_comment(f'dense_transform = "{common}"', why)]


def _split(found: Inspection, times: Sequence[ColumnGuess]) -> list[str]:
    lines: list[str] = []
    complete = [column for column in times if not column.values.num_missing]
    if complete:
        lines.append(
            _with_comment(f"time = {_text(complete[0].name)}", "sorts the log, so that the test is the last in time")
        )
    elif reason_ := _why_random(found):
        lines.append(_with_comment('split = "random"', reason_))
    return [*lines, *_fractions(found)]


def _why_random(found: Inspection) -> str:
    """Why the last inputs would be no test of the others; empty where they are."""
    assert found.label is not None
    label = next(column for column in found.columns if column.name == found.label.name)
    before, after = label.values.before, label.values.after
    if len(before) == 2 and before.sum() and after.sum():
        shift = abs(float(before[0] / before.sum() - after[0] / after.sum()))
        if shift > 0.3 or (found.is_whole and 0 in (after[0], after[1]) and after.sum() > 100):
            return "the log is sorted by label"
    for column in found.columns:
        values = column.values
        if column.kind != "categorical" or values.new_share is None or values.num_values < 1000:
            continue
        if values.new_share > _SORTED_SHARE and values.seen_once < 0.3 * values.num_values:
            return f"the log is sorted by {shown_name(column.name)}"
    return ""


def _left_out(found: Inspection) -> list[str]:
    """Why columns are not in the recipe."""
    lines = []
    for column in found.columns:
        name = shown_name(column.name)
        if column.kind in ("categorical", "list", "count", "number", "label"):
            if column.name not in found.everywhere:
                lines.append(f"{name}: not in every file")
            elif not column.name:
                lines.append(f"{name}: a column needs a name to be read")
        else:
            told = [line for line in inspection_warnings(found) if line.startswith(f"{name!r} ")]
            lines.append(told[0].removeprefix(f"{name!r} ") if told else column.why or column.kind)
            lines[-1] = f"{name} {lines[-1]}" if told else f"{name}: {lines[-1]}"
    if not lines:
        return []
    more = [f"and {len(lines) - _MOST_LEFT_OUT} more columns"] if len(lines) > _MOST_LEFT_OUT else []
    return ["", "# Left out:", *(f"# * {printable(line)}" for line in [*lines[:_MOST_LEFT_OUT], *more])]
