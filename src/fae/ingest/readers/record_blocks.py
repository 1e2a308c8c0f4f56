"""Read CSV text as blocks of whole records, so that its parser never has to cut one; plain, gz or zst.

Every byte behind the header is in one block, in order. Memory is two blocks: a record longer than a block is an error,
found out when a block of it is read. A text without quotes and escapes is cut at its last line end; another one is
scanned (`fae.ingest.readers.record_scanner`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.compiled import Int64
from fae.core.errors import LogError
from fae.core.units import format_bytes
from fae.ingest.readers.line_blocks import BOM, first_line_begin, open_bytes
from fae.ingest.readers.record_scanner import (
    AT,
    AT_LINES,
    CLOSE,
    CLOSE_LINES,
    FAULT,
    FIELD,
    LINES,
    LINES_IN_QUOTES,
    OPEN_QUOTE,
    STOP,
    TEXT_BEHIND_QUOTE,
    WHOLE,
    scan_records,
)
from fae.ingest.readers.span import WHOLE_FILE, Span, SpanEnds

_HEADER_BYTES = 1 << 16
LINE_END = re.compile(rb"\r?\n|\r")
"""What ends a line of CSV text."""
IsInput = Callable[[list[bytes], int, int], int]
_NO_INDEX = np.empty((0, 3), np.int64)


@dataclass(frozen=True, kw_only=True)
class TextSyntax:
    """How text is written: the bytes between fields, and the bytes (-1 for none) that are quote and escape."""

    separator: bytes
    quote: int
    escape: int

    def has_marks(self, text: bytes) -> bool:
        """Whether a quote or an escape is anywhere in a text."""
        return any(mark >= 0 and mark in text for mark in (self.quote, self.escape))

    def scan(
        self,
        text: bytes,
        begin: int,
        stop: int,
        *,
        ended: bool,
        most: int = 1 << 62,
        num_fields: int = 0,
        checked: int = -1,
        index: Int64 = _NO_INDEX,
    ) -> tuple[int, Int64]:
        """Run `scan_records`; returns the number of records and its `end`."""
        end = np.zeros(8, np.int64)
        syntax = np.array([self.quote, self.escape, ended, most], np.int64)
        separator = np.frombuffer(self.separator, np.uint8)
        data = np.frombuffer(text, np.uint8)
        count = scan_records(data, begin, stop, syntax, separator, num_fields, checked, index, end)
        return int(count), end

    def index(self, text: bytes, begin: int, stop: int) -> Int64:
        """int64 ``[n, 3]``: first byte, number of fields, and lines before each record of whole ones."""
        most = count_line_ends(text, begin, stop) + 1
        index = np.empty((most, 3), np.int64)
        count, _ = self.scan(text, begin, stop, ended=True, index=index)
        return index[:count]

    def split(self, record: bytes) -> list[bytes]:
        """The fields of one record, as the parser reads them."""
        fields, position, quoted, at_begin, field = [], 0, False, True, bytearray()
        while position < len(record):
            byte = record[position]
            position += 1
            if byte == self.escape and position < len(record):
                field.append(record[position])
                position, at_begin = position + 1, False
            elif quoted and byte == self.quote:
                if record[position : position + 1] == bytes([byte]):
                    field.append(byte)
                    position += 1
                else:
                    quoted = False
            elif not quoted and at_begin and byte == self.quote:
                quoted, at_begin = True, False
            elif not quoted and record.startswith(self.separator, position - 1):
                fields.append(bytes(field))
                field, at_begin = bytearray(), True
                position += len(self.separator) - 1
            elif not quoted and byte in b"\r\n":
                break
            else:
                field.append(byte)
                at_begin = False
        return [*fields, bytes(field)]


@dataclass(frozen=True, kw_only=True)
class RecordBlock:
    """Whole records: ``text[begin:stop]``, which begins with line `first_line` of the file, from 1.

    `raw_bytes` are the bytes of the file, as it is on disk, that were read for it.
    """

    text: bytes
    begin: int
    stop: int
    first_line: int
    raw_bytes: int


class RecordFile:
    """A CSV file, or a span of one, that is read once: `read_header`, then `blocks`. Closing it is up to the caller.

    Parameters
    ----------
    block_bytes
        Bytes of text in a block, and the longest possible record.
    span
        Which records; only the span at the begin of the file has a header to read. Of a packed file, all.
    ends
        Is told where the records behind the header begin and end.
    """

    def __init__(
        self, path: Path, syntax: TextSyntax, block_bytes: int, span: Span = WHOLE_FILE, ends: SpanEnds | None = None
    ) -> None:
        self._path, self._syntax, self._block_bytes = path, syntax, block_bytes
        self._end, self._ends = span.end, SpanEnds() if ends is None else ends
        self._stream, self._raw = open_bytes(path)
        self._at = first_line_begin(self._raw, span, LINE_END)
        self._raw.seek(self._at)
        self._rest, self._ended, self._line, self._told = b"", False, span.first_line, self._at
        self._begun = self._at > 0

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        self._raw.close()

    def _read(self, num_bytes: int) -> None:
        """Append up to `num_bytes` to the text at hand."""
        parts, missing = [self._rest], num_bytes
        while missing > 0:
            part = self._stream.read(missing)
            if not part:
                self._ended = True
                break
            parts.append(part)
            missing -= len(part)
        self._rest = b"".join(parts)
        if not self._begun and (len(self._rest) >= len(BOM) or self._ended):
            self._begun = True
            if self._rest.startswith(BOM):
                self._rest, self._at = self._rest.removeprefix(BOM), self._at + len(BOM)

    def read_header(self, *, keep: bool = False) -> list[bytes]:
        """The fields of the first record, without blank lines before it; empty if there is none.

        With `keep` the record stays the first input.
        """
        size = min(_HEADER_BYTES, self._block_bytes)
        while True:
            self._read(size)
            count, end = self._syntax.scan(self._rest, 0, len(self._rest), ended=self._ended, most=1)
            if count:
                break
            self._drop(int(end[STOP]), int(end[LINES]))
            if self._ended or end[FAULT] == TEXT_BEHIND_QUOTE or len(self._rest) > self._block_bytes:
                if self._ended and not self._rest:
                    return []
                raise self._fault(end)
            size = self._block_bytes
        index = self._syntax.index(self._rest, 0, int(end[STOP]))
        fields = self._syntax.split(self._rest[int(index[0, 0]) : int(end[STOP])])
        if keep:
            self._drop(int(index[0, 0]), int(index[0, 2]))
        else:
            self._drop(int(end[STOP]), int(end[LINES]))
        return fields

    @property
    def line(self) -> int:
        """Number of the first line that is not in a header or block yet, from 1."""
        return self._line

    def blocks(self, num_fields: int, is_input: IsInput) -> Iterator[RecordBlock]:
        """The rest of the file; a fault of quotes is raised behind the block of the records before it.

        Parameters
        ----------
        num_fields
            Number of fields of each record.
        is_input
            How many of some fields of a line (from, below) are what they must be in an input; -1 if one is not. A
            quoted value whose lines read as inputs of their own is one that an open quote has swallowed.
        """
        self._ends.begin = self._ends.stop = self._at
        while not self._is_behind():
            if len(self._rest) < self._block_bytes and not self._ended:
                self._read(self._block_bytes - len(self._rest))
            text = self._rest
            if not self._syntax.has_marks(text):
                stop, end = self._last_line_end(text), None
            else:
                stop, end = self._scan(text, num_fields, is_input)
            if self._end is not None and self._at + stop > self._end:
                stop, end = self._cut(text, stop, has_marks=end is not None), None
            if stop:
                told = self._raw.tell() if self._end is None else self._at + stop
                yield RecordBlock(text=text, begin=0, stop=stop, first_line=self._line, raw_bytes=told - self._told)
                self._told = told
                self._drop(stop, int(end[LINES]) if end is not None else count_line_ends(text, 0, stop))
                self._ends.stop = self._at
                if self._is_behind():
                    return
            is_open = end is not None and end[FAULT] == OPEN_QUOTE
            if end is not None and (end[FAULT] not in (WHOLE, OPEN_QUOTE) or (is_open and self._ended)):
                raise self._fault(end)
            if self._ended:
                return
            if not stop:
                if len(text) > self._block_bytes:
                    raise self._fault(np.zeros(8, np.int64) if end is None else end)
                self._read(self._block_bytes)

    def _is_behind(self) -> bool:
        """Whether the next record begins behind the span."""
        return self._end is not None and self._at >= self._end

    def _cut(self, text: bytes, stop: int, *, has_marks: bool) -> int:
        """Where the first of the whole records ``text[:stop]`` begins that is behind the span, or `stop`."""
        assert self._end is not None
        inside = self._end - self._at
        if not has_marks:
            found = LINE_END.search(text, max(inside - 1, 0), stop)
            return stop if found is None else found.end()
        begins = self._syntax.index(text, 0, stop)[:, 0]
        behind = begins[begins >= inside]
        return int(behind[0]) if len(behind) else stop

    def _scan(self, text: bytes, num_fields: int, is_input: IsInput) -> tuple[int, Int64]:
        """Scan up to the last whole record or the first fault that is one."""
        begin, lines, checked = 0, 0, -1
        while True:
            _, end = self._syntax.scan(
                text, begin, len(text), ended=self._ended, num_fields=num_fields, checked=checked
            )
            begin = int(end[STOP])
            end[[AT_LINES, CLOSE_LINES, LINES]] += lines
            lines = int(end[LINES])
            if end[FAULT] != LINES_IN_QUOTES or self._swallowed(text, end, num_fields, is_input):
                return begin, end
            checked = int(end[AT])

    def _swallowed(self, text: bytes, end: Int64, num_fields: int, is_input: IsInput) -> bool:
        """Whether the lines of a quoted value read as inputs without the quotes."""
        value = text[int(end[AT]) + 1 : int(end[CLOSE]) - 1].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *whole, last = (line.split(self._syntax.separator) for line in value.split(b"\n"))
        field = int(end[FIELD])
        found = [
            is_input([b""] * field + first, field + 1, num_fields),
            *(is_input(line, 0, num_fields) for line in whole),
            is_input(last, 0, field),
        ]
        return min(found) >= 0 and sum(found) > 0

    def _last_line_end(self, text: bytes) -> int:
        """Position behind the last line end, where no record can be cut; the end of the text behind the last block."""
        if self._ended:
            return len(text)
        # A carriage return that is the last byte may be the first half of a line end.
        return max(text.rfind(b"\n"), text.rfind(b"\r", 0, max(len(text) - 1, 0))) + 1

    def _drop(self, num_bytes: int, num_lines: int) -> None:
        self._rest = self._rest[num_bytes:]
        self._at += num_bytes
        self._line += num_lines

    def _fault(self, end: Int64) -> LogError:
        """The error for what begins with the first byte at hand; `end` is of a scan whose whole records are dropped."""
        end[[AT, CLOSE]] -= end[STOP]
        end[[AT_LINES, CLOSE_LINES]] -= end[LINES]
        where = f"{self._path}, line {self._line + int(end[AT_LINES])}"
        closes = f"line {self._line + int(end[CLOSE_LINES])}"
        double = 'set [log] quote = "" where quotes are part of the text, else write such a quote twice'
        if self._syntax.escape < 0 and self._syntax.quote >= 0:
            first_line = self._rest[int(end[AT]) :].split(b"\n", 1)[0]
            if b"\\" + bytes([self._syntax.quote]) in first_line:
                double = 'set [log] escape = "\\\\" where a backslash before a quote makes it text'
        if end[FAULT] == OPEN_QUOTE:
            longest = "the file ends" if self._ended else f"{format_bytes(self._block_bytes)} follow"
            return LogError(f"{where}: a quote begins a value here, and {longest} before one closes it; {double}")
        if end[FAULT] == TEXT_BEHIND_QUOTE:
            return LogError(
                f"{where}: a quote begins a value here, and text is behind the one that closes it in {closes}; {double}"
            )
        if end[FAULT] == LINES_IN_QUOTES:
            return LogError(
                f"{where}: a quote begins a value here that ends in {closes}, and its lines read as inputs of their "
                f"own; {double}"
            )
        return LogError(f"{where}: it is longer than {format_bytes(self._block_bytes)}; fix the file")


def count_line_ends(text: bytes, begin: int, stop: int) -> int:
    """Number of line ends in ``text[begin:stop]``: LF, CR LF or CR, as an editor counts them."""
    data: npt.NDArray[np.uint8] = np.frombuffer(text, np.uint8)[begin:stop]
    newlines = data == ord("\n")
    count = int(np.count_nonzero(newlines))
    if text.find(b"\r", begin, stop) < 0:
        return count
    returns: Any = data == ord("\r")
    return count + int(np.count_nonzero(returns)) - int(np.count_nonzero(returns[:-1] & newlines[1:]))
