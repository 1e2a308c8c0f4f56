"""Find out what is wrong with a CSV file, and in which line: a slow second reading, only after a fault.

It is used when the fast parser refuses a block without saying where. Lines are counted as an editor counts them, with
blank lines and quoted line ends.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from fae.core.units import format_bytes


@dataclass(frozen=True, kw_only=True)
class TextLayout:
    """How the lines of one text file are split into fields.

    Attributes
    ----------
    num_fields
        Number of fields of every line.
    header_lines
        Lines before the first input.
    positions
        Positions of the fields that are read: label, dense, categorical.
    dense
        Those of `positions` that must be numbers.
    """

    separator: str
    quoting: bool
    num_fields: int
    header_lines: int
    positions: tuple[int, ...]
    dense: tuple[int, ...]


def _rows(lines: TextIO, layout: TextLayout) -> Iterator[tuple[int, list[str]]]:
    """``(first line, fields)`` of every input, without blank lines."""
    if layout.quoting:
        reader = csv.reader(lines, delimiter=layout.separator)
    else:
        reader = csv.reader(lines, delimiter=layout.separator, quoting=csv.QUOTE_NONE)
    line_before = 0
    for row in reader:
        if row and reader.line_num > layout.header_lines:
            yield line_before + 1, row  # the line where it begins: an unclosed quote may end it far below
        line_before = reader.line_num


def line_of_row(lines: TextIO, layout: TextLayout, row: int) -> int:
    """Line number, from 1, of input `row` of the file, from 0."""
    for index, (line, _) in enumerate(_rows(lines, layout)):
        if index == row:
            return line
    return layout.header_lines + row + 1  # the file changed meanwhile: only a guess


def explain_csv_fault(lines: TextIO, path: Path, layout: TextLayout, parser_message: str, block_bytes: int) -> str:
    """A one-line message: what is wrong with the first bad line of the file, and its number."""
    line = layout.header_lines
    try:
        for line, row in _rows(lines, layout):
            if len(row) != layout.num_fields:
                return (
                    f"{path}, line {line}: {len(row)} fields, expected {layout.num_fields}"
                    f"{' as in the header' if layout.header_lines else ''}; fix or remove the line"
                )
            for position in layout.positions:
                if not _is_utf8(row[position]):
                    return f"{path}, line {line}: field {position + 1} is not UTF-8; convert the file (iconv does it)"
            for position in layout.dense:
                if row[position] and not is_number(row[position]):
                    return (
                        f"{path}, line {line}: field {position + 1} is {row[position]!r}, expected a number; fix the "
                        "line or list the column as categorical"
                    )
    except csv.Error as error:
        return f"{path}, after line {line}: {error}; is a quote never closed?"
    if "straddl" in parser_message:
        return f"{path}: a line is longer than {format_bytes(block_bytes)}, or a quote is never closed; fix the file"
    return f"{path}: {' '.join(parser_message.split())}"


def is_number(text: str) -> bool:
    """Whether `text` is a number as the fast parser reads numbers (Python's own takes ``1_000`` too)."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
