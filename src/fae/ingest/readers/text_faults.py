"""Say what is wrong with CSV text, and in which record: of the block that the parser has refused, and of headers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fae.core.compiled import Int64
from fae.core.errors import LogError
from fae.ingest.config import LogConfig
from fae.ingest.readers.line_blocks import shown
from fae.ingest.value_types.value_texts import first_bad

SPACES = " \t"
"""What the parser takes off both ends of a number."""
LABELS = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
"""Every way to write a label without `label_map` or `label_threshold`, in lower case."""
_SEPARATORS = {"\t": "\\t", ";": ";", "|": "|", ",": ",", "\x01": "\\u0001"}


@dataclass(frozen=True, kw_only=True)
class TextLayout:
    """What the fields of one text file must be.

    Attributes
    ----------
    num_fields
        Number of fields of every line.
    has_header
        Whether the first line has named them.
    positions
        Positions of the fields that are read.
    dense, also_dense
        Those of `positions` that are numbers and nothing else, and numbers and text.
    label
        Position of the label; -1 if none is read.
    missing, decimal
        As in `LogConfig`.
    """

    num_fields: int
    has_header: bool
    positions: tuple[int, ...]
    dense: tuple[int, ...]
    also_dense: tuple[int, ...]
    label: int
    missing: tuple[str, ...]
    decimal: str


def explain_header(path: Path, config: LogConfig, fields: Sequence[bytes], error: LogError) -> LogError:
    """The error for a header in which a column is not found, with the cause where it is a likely one."""
    text = b"".join(fields)
    try:
        text.decode()
    except UnicodeDecodeError:
        return LogError(f"{path}: the header is not UTF-8, and the recipe's columns are not in it; convert the file")
    if len(fields) == 1 and not config.columns:
        for separator, written in _SEPARATORS.items():
            if separator.encode() in text and separator != config.separator:
                return LogError(f'{error}; the header is one field: is the separator "{written}"?')
    if not config.columns and any(is_number(field.decode()) for field in fields):
        return LogError(f"{error}; if line 1 is an input and no header, name its fields with [log] columns")
    return error


def explain_text_fault(
    layout: TextLayout, index: Int64, parse: Callable[[int], list[Any]], parser_message: str
) -> tuple[int, str]:
    """The first record of a block that the parser refuses, and what is wrong with it, without a place.

    Parameters
    ----------
    index
        int64 ``[n, 3]``: of each record first byte, number of fields, line.
    parse
        The columns at ``layout.positions`` of the first records of the block, as bytes.
    """
    wrong = np.flatnonzero(index[:, 1] != layout.num_fields)
    row = int(wrong[0]) if len(wrong) else len(index)
    message = f"{' '.join(parser_message.split())}; fix or remove the line"
    if len(wrong):
        like = " as in the header" if layout.has_header else " as in [log] columns"
        message = f"{index[row, 1]} fields, expected {layout.num_fields}{like}; fix or remove the line"
    for position, array in zip(layout.positions, parse(row), strict=False):
        bad = _first_bad(array[:row], lambda part: part.cast(pa.string()))
        if bad < row:
            row, message = (
                bad,
                f"field {position + 1} is not UTF-8 ({shown(array[bad].as_py())}); convert the file (iconv does it)",
            )
        if position in layout.dense or position in layout.also_dense:
            bad = _first_bad(array[:row], lambda part: to_numbers(part.cast(pa.string()), layout))
            if bad < row:
                row, message = bad, f"field {position + 1} is {_not_a_number(array[bad].as_py(), layout)}"
    return min(row, len(index) - 1), message


def _first_bad(array: Any, convert: Callable[[Any], Any]) -> int:
    """Index of the first value that `convert` refuses; the length if it takes all."""
    try:
        convert(array)
    except (pa.ArrowInvalid, UnicodeError):
        return first_bad(array, convert)
    return len(array)


def _not_a_number(value: bytes, layout: TextLayout) -> str:
    point = "." if layout.decimal == "," else ","
    other = value.decode("utf-8", "replace").replace(point, layout.decimal)
    if point.encode() in value and is_number(other.replace(layout.decimal, ".")):
        return f'{shown(value)}, expected a number; set [log] decimal = "{point}" if that is its decimal point'
    return (
        f"{shown(value)}, expected a number; fix the line, name the word in [log] missing if it means a missing value, "
        "or list the column as categorical"
    )


def to_numbers(text: Any, layout: TextLayout) -> Any:
    """Text as float64 as the CSV parser reads numbers, with missing values as nulls. Raises ``pa.ArrowInvalid``."""
    missing = pc.is_in(text, value_set=pa.array(["", *layout.missing], pa.string()))
    return number_texts(pc.if_else(missing, pa.scalar(None, pa.string()), text), layout.decimal).cast(pa.float64())


def number_texts(text: Any, decimal: str) -> Any:
    """Text without spaces around it and with a point for `decimal`, so that a cast takes what the CSV parser takes."""
    trimmed = pc.utf8_trim(text, SPACES)
    if decimal == ",":
        # A point is no part of a number then, and no letter is either.
        trimmed = pc.replace_substring(pc.replace_substring(trimmed, ".", "x"), ",", ".")
    return trimmed


def is_number(text: str) -> bool:
    """Whether `text` is a number as the CSV parser reads numbers: Python's own takes ``1_000`` and other digits too.

    >>> [is_number(text) for text in (" 5", "1e3", "1_000", "٣", "0x10")]
    [True, True, False, False, False]
    """
    try:
        pa.scalar(text.strip(SPACES)).cast(pa.float64())
    except (pa.ArrowInvalid, UnicodeError):
        return False
    return True


def reads_as_input(config: LogConfig, layout: TextLayout, fields: Sequence[bytes], start: int, stop: int) -> int:
    """How many of the fields `start` to ``stop - 1`` are a label or a number, as they must be; -1 if one is not."""
    count = 0
    for position in (layout.label, *layout.dense, *layout.also_dense):
        if not start <= position < stop:
            continue
        text = fields[position].decode("utf-8", "replace").strip(SPACES)
        if position != layout.label:
            if text in ("", *layout.missing):
                continue
            good = is_number(text.replace(layout.decimal, "."))
        elif config.label_map:
            good = text in config.label_map
        else:
            good = is_number(text) if config.label_threshold is not None else text.lower() in LABELS
        if not good:
            return -1
        count += 1
    return count
