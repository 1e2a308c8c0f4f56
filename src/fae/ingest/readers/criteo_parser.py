"""Parse Criteo's tab-separated lines byte by byte, in a compiled loop.

A line is only taken if each of its 40 fields is what the format says. The loop stops at the first line that is not, and
the reader explains what is wrong with it. The loop reads a few bytes past the field it is in: `data` must have
`fae.ingest.readers.line_blocks.PADDING` bytes behind the text.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fae.core.compiled import Int64, compiled

NUM_COUNTS, NUM_IDS = 13, 26
MAX_DIGITS = 18
"""Most digits of a count: more would not fit into 63 bits."""
ID_DIGITS = 8

_TAB, _NEWLINE, _RETURN, _MINUS, _ZERO = 9, 10, 13, 45, 48
_HEX = np.full(256, 16, np.int64)
_HEX[ord("0") : ord("9") + 1] = range(10)
_HEX[ord("a") : ord("f") + 1] = range(10, 16)


@compiled
def parse_lines(
    data: npt.NDArray[np.uint8],
    start: int,
    stop: int,
    small: npt.NDArray[np.float32],
    labels: npt.NDArray[np.uint8],
    dense: npt.NDArray[np.float32],
    keys: Int64,
    missing: npt.NDArray[np.uint8],
    large: Int64,
    end: Int64,
    has_labels: bool,
) -> int:
    """Parse whole lines of ``data[start:stop]``, which ends in a line end; return the number of inputs.

    Parameters
    ----------
    small
        float32: the transformed counts 0, 1, 2 ..; negative counts become what 0 becomes. Empty: counts are not
        transformed.
    labels, dense, keys
        Filled: uint8 ``[n]``, float32 ``[n, 13]``, int64 ``[26, n]``; lines beyond n are left for the next call.
    missing
        Filled: uint8 ``[n, 2]``, bit j of a row is count j: 1 where there is none.
    large
        int64 ``[m, 2]``, m at least 13 n: place in `dense`, row-major, and value of each count beyond `small`.
    end
        int64 ``[4]``: first byte that was not taken, lines that were (blank ones too), counts in `large`, and 1 if the
        line at that byte is faulty.
    has_labels
        False: lines have 39 fields, without the label, and `labels` is not filled.
    """
    row, lines, num_large, position, fault = 0, 0, 0, start, False
    while position < stop and row < labels.size:
        at = position
        character = data[at]
        if character == _NEWLINE or (character == _RETURN and data[at + 1] == _NEWLINE):
            position += 1 if character == _NEWLINE else 2
            lines += 1
            continue
        if has_labels:
            fault = not ((character == _ZERO or character == _ZERO + 1) and data[at + 1] == _TAB)
            if fault:
                break
            labels[row] = character - _ZERO
            at += 2
        absent = 0
        for count in range(NUM_COUNTS):
            negative = data[at] == _MINUS
            if negative:
                at += 1
            first = at
            value = np.int64(0)
            digit = np.int64(data[at]) - _ZERO
            while 0 <= digit <= 9 and at - first <= MAX_DIGITS:
                value = value * 10 + digit
                at += 1
                digit = np.int64(data[at]) - _ZERO
            if data[at] != _TAB or at - first > MAX_DIGITS or (negative and at == first):
                fault = True
                break
            if small.size == 0:
                dense[row, count] = -np.float32(value) if negative else np.float32(value)
            elif negative:
                dense[row, count] = small[0]
            elif value < small.size:
                dense[row, count] = small[value]
            else:
                large[num_large, 0] = row * NUM_COUNTS + count
                large[num_large, 1] = value
                num_large += 1
            if at == first:
                dense[row, count] = np.float32(0.0)
                absent |= 1 << count
            at += 1
        if fault:
            break
        missing[row, 0], missing[row, 1] = absent & 255, absent >> 8
        for column in range(NUM_IDS):
            last = column == NUM_IDS - 1
            # Nearly all ids have eight digits, which are checked at once.
            digits = (
                _HEX[data[at]] | _HEX[data[at + 1]] | _HEX[data[at + 2]] | _HEX[data[at + 3]]
                | _HEX[data[at + 4]] | _HEX[data[at + 5]] | _HEX[data[at + 6]] | _HEX[data[at + 7]]
            )  # fmt: skip
            if digits < 16:
                value = (
                    (_HEX[data[at]] << 28) | (_HEX[data[at + 1]] << 24) | (_HEX[data[at + 2]] << 20)
                    | (_HEX[data[at + 3]] << 16) | (_HEX[data[at + 4]] << 12) | (_HEX[data[at + 5]] << 8)
                    | (_HEX[data[at + 6]] << 4) | _HEX[data[at + 7]]
                )  # fmt: skip
                length = ID_DIGITS
            else:
                value, length = np.int64(0), 0
                while length < ID_DIGITS and _HEX[data[at + length]] < 16:
                    value = (value << 4) | _HEX[data[at + length]]
                    length += 1
            at += length
            keys[column, row] = (np.int64(length) << 32) | value
            if last and data[at] == _RETURN:
                at += 1
            if data[at] != (_NEWLINE if last else _TAB):
                fault = True
                break
            at += 1
        if fault:
            break
        position = at
        lines += 1
        row += 1
    end[0], end[1], end[2], end[3] = position, lines, num_large, 1 if fault else 0
    return row
