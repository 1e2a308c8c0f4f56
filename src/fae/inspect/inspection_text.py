"""An inspection as a table for a terminal of 100 columns, as a JSON object, and its warnings in words."""

from __future__ import annotations

from typing import Any

from fae.core.printable import printable
from fae.core.units import format_bytes
from fae.inspect.column_kinds import ColumnGuess
from fae.inspect.inspection import QUANTILES, Inspection
from fae.inspect.label_guess import no_label
from fae.inspect.unread_texts import is_marked_number

WIDTH = 100
_NAME, _MOST_COLUMNS = 24, 400
_NEW_SHARE = 0.5
_FEATURES = ("categorical", "list", "count", "number")


def inspection_lines(found: Inspection) -> list[str]:
    """The lines for a terminal."""
    lines = [*_head(found), ""]
    name_width = min(max([len(shown_name(column.name)) for column in found.columns] + [6]), _NAME)
    rest = WIDTH - name_width - 48
    lines.append(f"{'column':{name_width}}  {'kind':11} {'distinct':>9} {'once':>6} {'new':>6} {'missing':>7}  values")
    for column in found.columns[:_MOST_COLUMNS]:
        lines.append(_row(found, column, name_width, rest).rstrip())
    if len(found.columns) > _MOST_COLUMNS:
        lines.append(f"and {len(found.columns) - _MOST_COLUMNS} more columns; --json has all of them")
    lines += ["", "once: share of the distinct values seen once; new: share of the last tenth not seen before it"]
    if warnings := inspection_warnings(found):
        lines += ["", *(f"! {line}" for line in warnings)]
    return [printable(line) for line in lines]


def _head(found: Inspection) -> list[str]:
    names = found.files[0].name if found.num_files == 1 else f"{found.num_files} files"
    lines = [f"{names}: {found.shape.describe()}; {format_bytes(found.num_bytes)}"]
    if found.is_whole:
        inputs = "1 input, which is all" if found.lines_read == 1 else f"{found.lines_read:,} inputs, all of them"
        lines.append(f"{inputs} read" if found.lines_read > 1 else inputs)
    else:
        pieces = sorted({sample.pieces for sample in found.samples})
        where = pieces[0] if len(pieces) == 1 else "parts"
        files = "" if len(found.files) == found.num_files else f" in {len(found.files)} of {found.num_files} files"
        about = "" if all(sample.stored for sample in found.samples) else "about "
        lines.append(
            f"{found.lines_read:,} of {about}{found.num_lines:,} inputs read ({where}){files}; --lines all reads all"
        )
    if found.label is not None:
        meaning = f"1 from {found.label.threshold:g} on" if found.label.threshold is not None else "yes or no"
        lines.append(f"label {shown_name(found.label.name)}: {meaning}, {100 * found.label.rate:.3g} % ones")
    return lines


def shown_name(name: str) -> str:
    """A column's name as it is printed: one without a name has words for it.

    >>> shown_name(""), shown_name("user")
    ('(no name)', 'user')
    """
    return printable(name) or "(no name)"


def shown_part(count: float, total: float) -> str:
    """A share of a count for people; 0 % and 100 % are exact.

    >>> shown_part(0, 9), shown_part(1, 10000), shown_part(1, 3), shown_part(9, 9), shown_part(0, 0)
    ('0 %', '0.1 %', '33 %', '100 %', '-')
    """
    if not total:
        return "-"
    share = 100 * count / total
    if count in (0, total):
        return f"{share:.0f} %"
    return f"{min(max(share, 0.1), 99.9):.1f} %" if share < 10 or share > 99 else f"{share:.0f} %"


def _row(found: Inspection, column: ColumnGuess, name_width: int, rest: int) -> str:
    values = column.values
    name = _cut(shown_name(column.name), name_width)
    kind = f"{column.kind}"
    if column.kind in ("not read", "empty"):
        words = column.why or "no value"
        return f"{name:{name_width}}  {kind:11} {'':9} {'':6} {'':6} {'':7}  {_cut(words, rest)}"
    once = "" if column.kind in ("count", "number") else shown_part(values.seen_once, values.distinct)
    new = values.new_share
    new_text = "" if column.kind in ("count", "number", "label") or new is None else shown_part(new, 1.0)
    missing = shown_part(values.num_missing, found.lines_read)
    return (
        f"{name:{name_width}}  {kind:11} {_count(values.distinct):>9} {once:>6} {new_text:>6} {missing:>7}  "
        f"{_cut(_shown_values(found, column), rest)}"
    )


def _shown_values(found: Inspection, column: ColumnGuess) -> str:
    values = column.values
    if len(column.numbers):
        low, middle, high = column.quantiles((0.05, 0.5, 0.95))
        return f"{column.numbers.min():.4g} | {low:.4g} {middle:.4g} {high:.4g} | {column.numbers.max():.4g}"
    if column.kind == "label" and found.label is not None:
        return f"{100 * found.label.rate:.3g} % ones"
    top = values.most_frequent(3)
    words = ", ".join(_cut(printable(text), 18) for text, _ in top)
    if column.lists is not None:
        mark = "" if not column.lists.separator else f" by {column.lists.separator!r}"
        mark = " in brackets" if column.lists.brackets else mark
        return f"up to {column.lists.longest}{mark}: {words}"
    if column.kind in ("timestamp", "date", "key", "row number", "free text"):
        return words
    return f"{shown_part(top[0][1], values.num_values)} {words}" if top else ""


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 3)] + "..."


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**7 else f"{number / 1e6:.0f} M"


def inspection_warnings(found: Inspection) -> list[str]:
    """What is worth a second look, one line each."""
    lines = []
    if found.label is None and found.shape.name != "taobao":
        lines.append(no_label(found.columns))
    elif found.label is not None:
        lines += _label_warnings(found)
    for column in found.columns:
        lines += _column_warnings(found, column)
    some = [shown_name(c.name) for c in found.columns if c.name not in found.everywhere and c.kind != "not read"]
    if some:
        names = ", ".join(map(repr, some[:3])) + (f" and {len(some) - 3} more" if len(some) > 3 else "")
        lines.append(f"not in every file: {names}; a recipe for all of them cannot name these")
    words = sorted({word for column in found.columns for word in column.missing_words})
    if words:
        lines.append(f"words for missing values: {', '.join(words)}; name them in [log] missing")
    if found.odd_lines:
        what = "line is no input" if found.odd_lines == 1 else "lines are no inputs"
        lines.append(f"{found.odd_lines:,} {what} (another number of fields, or no JSON object), which ingest refuses")
    if not found.is_whole and any(sample.pieces == "begin" for sample in found.samples) and found.shape.compression:
        lines.append(
            "only the beginning was read, as a packed file cannot be read from its middle; --lines all reads all"
        )
    return lines


def _label_warnings(found: Inspection) -> list[str]:
    assert found.label is not None
    lines = []
    name, rate = found.label.name, found.label.rate
    column = next(each for each in found.columns if each.name == name)
    if not found.label.is_plain:
        how = "label_threshold" if found.label.threshold is not None else "label_map"
        lines.append(f"the label {name!r} is not 0 and 1: the recipe needs {how}, see [log] in `fae init`")
    if found.label.is_guessed_rarer:
        other, one = sorted(found.label.meanings, key=found.label.meanings.__getitem__)
        lines.append(f"{one!r} of the label {name!r} is taken as 1, as it is rarer than {other!r}: swap them if not")
    if column.values.num_missing:
        some = "1 input has" if column.values.num_missing == 1 else f"{column.values.num_missing:,} inputs have"
        lines.append(f"{some} no label {name!r}; ingest refuses a missing one")
    if rate < 0.001 or rate > 0.999:
        lines.append(f"{100 * rate:.3g} % of the labels are 1; so few of one class say little")
    if found.label.others:
        lines.append(
            f"{', '.join(map(repr, found.label.others[:5]))} could be the label too; --label COLUMN chooses it. What "
            "is known only after the click must not be a feature"
        )
    return lines


def _column_warnings(found: Inspection, column: ColumnGuess) -> list[str]:
    values, name = column.values, shown_name(column.name)
    once = f"{values.seen_once:,} of {values.num_values:,} values occur once"
    if column.kind == "timestamp" and values.seen_once < 0.5 * values.num_values:
        once = f"{values.distinct:,} points in time in {values.num_values:,} inputs"
    if column.kind == "timestamp":
        return [f"{name!r} is a timestamp: {once}; order the log by it, and use its hour and weekday"]
    if column.kind == "date":
        return [f"{name!r} is a date: those of a later day are unknown; order the log by it, and use its weekday"]
    if column.kind == "row number":
        return [f"{name!r} is a row number, it grows from input to input and says nothing of others; leave it out"]
    if column.kind == "key":
        return [f"{name!r} is a key: {once}; it says nothing of other inputs, leave it out"]
    if column.kind == "constant":
        return [f"{name!r} has one value, {values.texts[0].as_py()!r}; leave it out"]
    if column.kind == "empty":
        return [f"{name!r} has no value at all; leave it out"]
    if column.kind == "free text":
        return [f"{name!r} is free text: {once}; leave it out, or make categories of it first"]
    if column.kind == "not read":
        return [f"{name!r} is not read: {column.why}"]
    if column.kind not in _FEATURES:
        return []
    lines = []
    if column.kind == "categorical" and is_marked_number(values.texts):
        shown = values.most_frequent(1)[0][0]
        lines.append(f"{name!r} has numbers with signs in them, such as {shown!r}; without these it can be dense")
    if values.num_missing > 0.5 * found.lines_read:
        lines.append(f"{name!r} is missing in {shown_part(values.num_missing, found.lines_read)} of the inputs")
    new = values.new_share
    if column.kind in ("categorical", "list") and new is not None and new > _NEW_SHARE:
        lines.append(
            f"{shown_part(new, 1.0)} of the last tenth of {name!r} was never seen before it: its values are new every "
            "time, or the log is sorted by it"
        )
    return lines


def inspection_result(found: Inspection) -> dict[str, Any]:
    """The object of ``--json``."""
    return {
        "files": [str(file) for file in found.files],
        "num_files": found.num_files,
        "num_bytes": found.num_bytes,
        "format": {
            "name": found.shape.name, "has_header": found.shape.has_header, "separator": found.shape.separator,
            "quote": found.shape.quote, "compression": found.shape.compression or None,
        },
        "inputs": found.num_lines,
        "inputs_read": found.lines_read,
        "whole": found.is_whole,
        "pieces": sorted({sample.pieces for sample in found.samples}),
        "odd_lines": found.odd_lines,
        "label": None if found.label is None else {
            "name": found.label.name, "rate": found.label.rate, "meanings": found.label.meanings,
            "threshold": found.label.threshold, "others": list(found.label.others),
        },
        "columns": [_column_result(found, column) for column in found.columns],
        "warnings": inspection_warnings(found),
    }  # fmt: skip


def _column_result(found: Inspection, column: ColumnGuess) -> dict[str, Any]:
    values = column.values
    top = values.most_frequent(1)
    result: dict[str, Any] = {
        "name": column.name, "kind": column.kind, "distinct": values.distinct, "seen_once": values.seen_once,
        "seen_once_share": values.seen_once / values.distinct if values.distinct else None,
        "values": values.num_values, "missing": values.num_missing,
        "missing_share": values.num_missing / found.lines_read, "new_share": values.new_share,
        "most_frequent": top[0][0] if top else None,
        "most_frequent_share": top[0][1] / values.num_values if top else None,
        "missing_words": list(column.missing_words), "stored_type": column.stored or None,
    }  # fmt: skip
    if len(column.numbers):
        result["numbers"] = {
            "min": float(column.numbers.min()), "max": float(column.numbers.max()),
            "quantiles": dict(zip(map(str, QUANTILES), column.quantiles(QUANTILES), strict=True)),
        }  # fmt: skip
    if column.lists is not None:
        result["list"] = {
            "separator": column.lists.separator or None, "brackets": column.lists.brackets,
            "weight_separator": column.lists.weight_separator or None, "padding": column.lists.padding,
            "max_length": column.lists.max_length, "longest": column.lists.longest,
        }  # fmt: skip
    if column.why:
        result["why"] = column.why
    return result
