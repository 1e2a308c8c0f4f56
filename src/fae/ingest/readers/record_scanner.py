"""Find the records of CSV text in compiled loops, by the rules of the parser that reads them afterwards.

A quote counts where a field begins; two of them inside a quoted value are one; the byte behind an escape is meant as
it is; records end in LF, CR LF or CR outside quotes; blank lines are no records. What the parser would take and nobody
means is a fault: a quote that nothing closes, text behind a closing quote.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fae.core.compiled import Int64, compiled

STOP, LINES, FAULT, AT, AT_LINES, CLOSE, CLOSE_LINES, FIELD = range(8)
"""Places in the array `end` of `scan_records`, which says what is in them."""
WHOLE, OPEN_QUOTE, TEXT_BEHIND_QUOTE, LINES_IN_QUOTES = range(4)
"""Values of ``end[FAULT]``."""

_NEWLINE, _RETURN = 10, 13


@compiled
def scan_records(
    data: npt.NDArray[np.uint8],
    start: int,
    stop: int,
    syntax: Int64,
    separator: npt.NDArray[np.uint8],
    num_fields: int,
    checked: int,
    index: Int64,
    end: Int64,
) -> int:
    """Scan ``data[start:stop]``, which begins with a record, up to the last whole record; return their number.

    Parameters
    ----------
    syntax
        int64 ``[4]``: quote and escape as bytes, -1 for none; 1 if the text ends with `stop`; most records to scan.
    separator
        uint8: the bytes between fields.
    num_fields
        Number of fields of every record; 0 if it is not known. A quoted value over several lines which would each
        have that number without the quotes is the fault `LINES_IN_QUOTES`.
    checked
        A quoted value that begins at or before this byte is never that fault.
    index
        int64 ``[n, 3]``: first byte, number of fields and lines before each record. Without rows nothing is noted.
    end
        int64 ``[8]``: first byte that was not taken (a faulty record begins there), lines up to it, kind of fault,
        first byte of its quoted value and lines before it, byte behind the closing quote and lines before that,
        number of the field from 0. Inside a quote that is not closed before `stop`, the fault is `OPEN_QUOTE`.
    """
    quote, escape, ended, most = syntax[0], syntax[1], syntax[2], syntax[3]
    first, width = separator[0], separator.size
    special = np.zeros(256, np.bool_)
    special[_NEWLINE] = special[_RETURN] = special[first] = True
    if quote >= 0:
        special[quote] = True
    if escape >= 0:
        special[escape] = True
    records, lines, position = 0, 0, start
    end[STOP], end[LINES], end[FAULT] = start, 0, WHOLE
    while position < stop and records < most:
        character = data[position]
        if character in (_NEWLINE, _RETURN):
            if character == _RETURN and position + 1 == stop and not ended:
                break
            two = character == _RETURN and position + 1 < stop and data[position + 1] == _NEWLINE
            position += 2 if two else 1
            lines += 1
            end[STOP], end[LINES] = position, lines
            continue
        begin, lines_before, field, whole = position, lines, 0, False
        while True:
            if position < stop and data[position] == quote:
                opened, opened_lines = position, lines
                inner, separators, alike, closed = 0, 0, True, False
                position += 1
                while position < stop:
                    character = data[position]
                    if not special[character]:
                        position += 1
                        continue
                    if character == quote:
                        if position + 1 < stop and data[position + 1] == quote:
                            position += 2
                            continue
                        if position + 1 == stop and not ended:
                            break
                        closed = True
                        position += 1
                        break
                    if character == escape:
                        position += 1
                        if position >= stop:
                            break
                        character = data[position]
                    elif character == first and (width == 1 or _matches(data, position, stop, separator)):
                        separators += 1
                        position += width
                        continue
                    position += 1
                    if character in (_NEWLINE, _RETURN):
                        if character == _RETURN and position < stop and data[position] == _NEWLINE:
                            position += 1
                        alike = alike and separators == num_fields - 1 - (field if inner == 0 else 0)
                        inner, separators, lines = inner + 1, 0, lines + 1
                if not closed:
                    end[FAULT], end[AT], end[AT_LINES], end[FIELD] = OPEN_QUOTE, opened, opened_lines, field
                    return records
                fault = WHOLE
                if position < stop and not (
                    data[position] == _NEWLINE
                    or data[position] == _RETURN
                    or (data[position] == first and (width == 1 or _matches(data, position, stop, separator)))
                ):
                    if width > 1 and not ended and stop - position < width:
                        return records  # the separator may be cut in two here
                    fault = TEXT_BEHIND_QUOTE
                elif inner and alike and num_fields > 1 and separators == field:
                    fault = LINES_IN_QUOTES if opened > checked else WHOLE
                if fault != WHOLE:
                    end[FAULT], end[AT], end[AT_LINES], end[FIELD] = fault, opened, opened_lines, field
                    end[CLOSE], end[CLOSE_LINES] = position, lines
                    return records
            is_separator = False
            while position < stop:
                character = data[position]
                if not special[character]:
                    position += 1
                    continue
                if character == escape:
                    position += 1
                    if position < stop:
                        character = data[position]
                        position += 1
                        # A newline behind an escaped carriage return still ends the record.
                        if character == _NEWLINE or (
                            character == _RETURN and not (position < stop and data[position] == _NEWLINE)
                        ):
                            lines += 1
                    continue
                if character in (_NEWLINE, _RETURN):
                    break
                if character == first and (width == 1 or _matches(data, position, stop, separator)):
                    is_separator = True
                    break
                position += 1
            if is_separator:
                position += width
                field += 1
                continue
            break
        if position >= stop:
            whole = ended == 1
        else:
            whole = not (data[position] == _RETURN and position + 1 == stop and not ended)
            two = data[position] == _RETURN and position + 1 < stop and data[position + 1] == _NEWLINE
            position += 2 if two else 1
            lines += 1
        if not whole:
            return records
        if len(index):
            index[records, 0], index[records, 1], index[records, 2] = begin, field + 1, lines_before
        records += 1
        end[STOP], end[LINES] = position, lines
    return records


@compiled
def _matches(data: npt.NDArray[np.uint8], position: int, stop: int, separator: npt.NDArray[np.uint8]) -> bool:
    """Whether `separator` is at `position`."""
    if position + separator.size > stop:
        return False
    for offset in range(separator.size):  # noqa: SIM110  (numba compiles no generator here)
        if data[position + offset] != separator[offset]:
            return False
    return True


@compiled
def rewrite_records(
    data: npt.NDArray[np.uint8],
    start: int,
    stop: int,
    syntax: Int64,
    separator: npt.NDArray[np.uint8],
    replacement: int,
    words: npt.NDArray[np.uint8],
    bounds: Int64,
    out: npt.NDArray[np.uint8],
) -> int:
    """Copy whole records into `out`, separators outside quotes replaced by one byte; return the bytes written.

    Parameters
    ----------
    syntax
        int64 ``[2]``: quote and escape as bytes, -1 for none.
    replacement
        The byte that is written for each separator; it may be the separator itself.
    out
        uint8: at least ``stop - start`` bytes.
    words, bounds
        uint8 and int64 ``[w + 1]``: the w words that leave an empty field behind, where they are all of an unquoted
        one. They are compared before an escape is taken for one.
    """
    quote, escape, width = syntax[0], syntax[1], separator.size
    position, size = start, 0
    at_begin = True
    while position < stop:
        character = data[position]
        if at_begin:
            at_begin = False
            taken = 0
            for word in range(bounds.size - 1):
                length = bounds[word + 1] - bounds[word]
                behind = position + length
                if (
                    behind <= stop
                    and _matches(data, position, stop, words[bounds[word] : bounds[word + 1]])
                    and (
                        behind == stop or data[behind] in (_NEWLINE, _RETURN) or _matches(data, behind, stop, separator)
                    )
                ):
                    taken = length
                    break
            if taken:
                position += taken
                continue
            if character == quote:
                out[size] = data[position]
                size, position = size + 1, position + 1
                while position < stop:
                    character = data[position]
                    out[size] = character
                    size, position = size + 1, position + 1
                    if (character == escape or (character == quote and data[min(position, stop - 1)] == quote)) and (
                        position < stop
                    ):
                        out[size] = data[position]
                        size, position = size + 1, position + 1
                    elif character == quote:
                        break
                continue
        if character == escape and position + 1 < stop:
            out[size], out[size + 1] = data[position], data[position + 1]
            size, position = size + 2, position + 2
            continue
        if _matches(data, position, stop, separator):
            out[size] = replacement
            size, position, at_begin = size + 1, position + width, True
            continue
        out[size] = character
        size, position = size + 1, position + 1
        at_begin = character in (_NEWLINE, _RETURN)
    return size
