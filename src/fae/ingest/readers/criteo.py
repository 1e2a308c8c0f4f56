"""Read Criteo's text: tab-separated lines without a header; plain, gz or zst.

Every field of every line is checked (label 0 or 1, whole numbers, hex ids), and the first fault is named with its line.
Blank lines are skipped. What is read does not depend on where the file's blocks end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fae.core.errors import LogError
from fae.ingest.config import LogConfig
from fae.ingest.readers.chunk import CriteoChunk, NoInputsError
from fae.ingest.readers.criteo_parser import ID_DIGITS, MAX_DIGITS, NUM_COUNTS, NUM_IDS, parse_lines
from fae.ingest.readers.line_blocks import faulty_line, line_blocks, shown
from fae.ingest.readers.span import WHOLE_FILE, Span, SpanEnds

_BLOCK_BYTES = 4 * 2**20
"""Bytes of text parsed at a time, and the longest possible line; as in the CSV reader."""
_MOST_INPUTS = 1 << 15
"""Most inputs of a chunk: lines may be as short as 41 bytes, but seldom are under 200."""
_NUM_FIELDS = 1 + NUM_COUNTS + NUM_IDS


def read_criteo(
    config: LogConfig, path: Path, *, labelled: bool = True, span: Span = WHOLE_FILE, ends: SpanEnds | None = None
) -> Iterator[CriteoChunk]:
    """Stream a file of Criteo's format. Raises `LogError`; see `fae.ingest.readers.dispatch.read_chunks`."""
    parser, line, found = _Parser(config, labelled=labelled), span.first_line, False
    for buffer, start, stop, num_bytes in line_blocks(path, _BLOCK_BYTES, span, ends):
        begin, raw_bytes = start, num_bytes
        if not (found or labelled):  # the first line with anything in it says whether there are labels
            first = bytes(buffer[start:stop]).lstrip(b"\r\n").split(b"\n", 1)[0]
            parser.has_labels = first.count(b"\t") == _NUM_FIELDS - 1
        while begin < stop:
            chunk, begin, num_lines, fault = parser.parse(buffer, begin, stop, raw_bytes)
            line += num_lines
            if chunk.num_inputs:
                found, raw_bytes = True, 0
                yield chunk
            if fault:
                text = faulty_line(buffer, begin, stop)
                label = config.label_column() if parser.has_labels else None
                raise LogError(f"{path}, line {line}: {explain_criteo_fault(text, label)}")
    if not found and span.is_whole:
        raise NoInputsError(f"{path} holds no inputs; copy it again or take it out of the recipe")


def check_criteo_header(config: LogConfig, path: Path, *, labelled: bool = True) -> None:
    """The format has no header. See `fae.ingest.readers.dispatch.check_header`."""


class _Parser:
    """Calls the compiled loop, and transforms the counts that are too large for its table of small ones."""

    def __init__(self, config: LogConfig, *, labelled: bool) -> None:
        self._labelled = self.has_labels = labelled
        clips = config.dense_clip is not None or config.dense_clip_quantiles is not None
        self._is_transformed = config.dense_transform == "log1p" and not clips
        counts = np.arange(1 << 16 if self._is_transformed else 0, dtype=np.float64)
        self._small = np.log1p(counts).astype(np.float32)
        self._large = np.empty((NUM_COUNTS * _MOST_INPUTS, 2), np.int64)
        self._end = np.zeros(4, np.int64)

    def parse(
        self, data: npt.NDArray[np.uint8], begin: int, stop: int, raw_bytes: int
    ) -> tuple[CriteoChunk, int, int, bool]:
        """Parse lines from `begin` on.

        Returns the inputs, the first byte behind them, the number of their lines, and whether a faulty line follows.
        """
        most = min(_MOST_INPUTS, (stop - begin) // _NUM_FIELDS + 1)
        labels, dense = np.empty(most, np.uint8), np.empty((most, NUM_COUNTS), np.float32)
        keys, missing = np.empty((NUM_IDS, most), np.int64), np.empty((most, 2), np.uint8)
        count = parse_lines(data, begin, stop, self._small, labels, dense, keys, missing, self._large, self._end,
                            self.has_labels)  # fmt: skip
        position, num_lines, num_large, fault = map(int, self._end)
        if num_large:
            places, values = self._large[:num_large].T
            dense.reshape(-1)[places] = np.log1p(values.astype(np.float64)).astype(np.float32)
        chunk = CriteoChunk(
            labels=labels[:count] if self._labelled else None, dense=dense[:count], keys=keys[:, :count],
            missing=missing[:count], raw_bytes=raw_bytes, is_transformed=self._is_transformed,
        )  # fmt: skip
        return chunk, position, num_lines, bool(fault)


def explain_criteo_fault(line: bytes, label: str | None) -> str:
    """What is wrong with a line that the compiled loop refused; `label` is None where lines have none.

    >>> explain_criteo_fault(b"1\\t2", "label")
    '2 fields, expected 40; fix or remove the line'
    """
    fields = line.split(b"\t")
    first = 0 if label is None else 1
    expected = NUM_COUNTS + NUM_IDS + first
    if len(fields) != expected:
        return f"{len(fields)} fields, expected {expected}; fix or remove the line"
    if label is not None and fields[0] not in (b"0", b"1"):
        return f"the label {label!r} is {shown(fields[0])}, expected 0 or 1; fix or remove the line"
    for index, field in enumerate(fields[first : first + NUM_COUNTS], 1):
        digits = field.removeprefix(b"-")
        if field and not (digits.isdigit() and len(digits) <= MAX_DIGITS):
            return (
                f"the count I{index} (field {index + first}) is {shown(field)}, expected a whole number of at most "
                f"{MAX_DIGITS} digits, or nothing; fix or remove the line"
            )
    for index, field in enumerate(fields[first + NUM_COUNTS :], 1):
        if len(field) > ID_DIGITS or field.strip(b"0123456789abcdef"):
            return (
                f"the id C{index} (field {index + first + NUM_COUNTS}) is {shown(field)}, expected at most {ID_DIGITS} "
                "hex digits (0-9, a-f), or nothing; fix or remove the line"
            )
    return "it is not a line of Criteo's format; fix or remove it"
