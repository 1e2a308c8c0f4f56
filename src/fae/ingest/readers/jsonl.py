"""Read JSON lines: one object a line, its keys are the columns; plain, gz or zst.

A key that is not there is a missing value; a column that no line of a file has is an error, which the reader of a span
leaves to who joins the spans. What a value becomes is decided by `fae.ingest.readers.json_values`, from itself alone:
neither blocks nor files matter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fae.core.config import nearest
from fae.core.errors import LogError
from fae.ingest.config import LogConfig
from fae.ingest.readers.chunk import Chunk, NoInputsError
from fae.ingest.readers.file_columns import FileColumns, find_columns, folder_values
from fae.ingest.readers.json_values import RefusedValue, list_runs, to_arrays
from fae.ingest.readers.line_blocks import line_blocks, shown
from fae.ingest.readers.span import WHOLE_FILE, Span, SpanEnds

_BLOCK_BYTES = 4 * 2**20
"""Bytes of text read at a time, and the longest possible line; as in the CSV reader."""
_MOST_INPUTS = 1 << 13
"""Most inputs of a chunk: parsed lines are Python objects, which take several times the memory of their text."""
_HEADER_LINES = 20
_HEADER_BYTES = 1 << 16


class _Repeated(dict[str, Any]):
    """An object that has a key twice."""


def read_jsonl(
    config: LogConfig, path: Path, *, labelled: bool = True, span: Span = WHOLE_FILE, ends: SpanEnds | None = None
) -> Iterator[Chunk]:
    """Stream a file of JSON lines. Raises `LogError`; see `fae.ingest.readers.dispatch.read_chunks`."""
    columns = _of_begin(config, path, labelled) if span.begin else None
    file = _JsonFile(config, path, labelled, columns, span.first_line)
    for buffer, begin, stop, raw_bytes in line_blocks(path, _BLOCK_BYTES, span, ends):
        text, at, left = bytes(buffer[begin:stop]), 0, raw_bytes
        while at < len(text):
            at = file.parse(text, at)
            for chunk in file.chunks(left):
                left = 0
                yield chunk
            if file.fault:
                raise LogError(file.fault)
    if span.is_whole:
        file.finish()
    elif ends is not None:
        ends.unseen = file.unseen


def _of_begin(config: LogConfig, path: Path, labelled: bool) -> FileColumns | None:
    """The columns that the first object of a file says; None where any object says the same."""
    if not folder_values(path):
        return None
    file = _JsonFile(config, path, labelled)
    for buffer, begin, stop, _ in line_blocks(path, _BLOCK_BYTES):
        text, at = bytes(buffer[begin:stop]), 0
        while at < len(text) and file.columns is None:
            at = file.parse(text, at, most=1)
            if file.fault:
                raise LogError(file.fault)
        if file.columns is not None:
            break
    return file.columns


def check_jsonl_header(config: LogConfig, path: Path, *, labelled: bool = True) -> None:
    """Look at the first lines alone. Raises `LogError`; see `fae.ingest.readers.dispatch.check_header`."""
    file = _JsonFile(config, path, labelled)
    try:
        buffer, begin, stop, _ = next(line_blocks(path, _HEADER_BYTES))
    except (LogError, StopIteration):
        return  # a long first line, or none: the reader says what is wrong
    file.parse(bytes(buffer[begin:stop]), 0, most=_HEADER_LINES)
    if file.fault:
        raise LogError(file.fault)
    file.check_label()


class _JsonFile:
    """Parses lines of one file in order.

    Parameters
    ----------
    columns
        What the first object of the file has said; None where it is among these lines, or any says the same.
    first_line
        Number of the first line.

    Attributes
    ----------
    columns
        The columns of the file; None before the first object.
    fault
        The error line of the first line that cannot be read; behind it nothing is.
    """

    def __init__(
        self, config: LogConfig, path: Path, labelled: bool, columns: FileColumns | None = None, first_line: int = 1
    ) -> None:
        self._config, self._path, self._labelled = config, path, labelled
        self._decoder = json.JSONDecoder(object_pairs_hook=_to_object)
        self.columns = columns
        self._unseen = {*(config.wanted_columns(labelled=labelled) if columns is None else columns.names)}
        self._line, self._known = first_line, list[str]()
        self._objects: list[dict[str, Any]] = []
        self._lines: list[int] = []
        self.fault = ""

    def parse(self, text: bytes, at: int, most: int = _MOST_INPUTS) -> int:
        """Parse whole lines of ``text[at:]``, at most `most`, up to a fault; return the first byte behind them."""
        self._objects, self._lines = [], []
        while at < len(text) and len(self._objects) < most:
            end = text.find(b"\n", at) + 1 or len(text)
            try:
                self._parse_line(text[at:end])
            except RefusedValue as error:
                self.fault = f"{self._path}, line {self._line}: {error}"
                break
            at, self._line = end, self._line + 1
        return at

    def _parse_line(self, line: bytes) -> None:
        try:
            found = self._decoder.decode(line.rstrip(b"\r\n").decode())
        except UnicodeDecodeError:
            raise RefusedValue("it is not UTF-8; convert the file (iconv does it)") from None
        except RecursionError:
            raise RefusedValue("it is nested too deeply; fix or remove the line") from None
        except ValueError as error:
            if not line.strip():
                return
            reason = "a whole number has too many digits"
            if isinstance(error, json.JSONDecodeError):
                reason = f"{error.msg.removesuffix(' at')} at character {error.pos + 1}"
            raise RefusedValue(
                f"{shown(line.strip())} is not JSON ({reason}); fix the line, or copy the file again if it is cut short"
            ) from None
        if not isinstance(found, dict):
            raise RefusedValue(f'it is {shown(line.strip())}, expected an object such as {{"user": 7}}; fix the line')
        if self.columns is None:
            self.columns = _columns(self._config, self._path, found, self._labelled)
            self._unseen, self._known = {*self.columns.names}, [key for key in found if key]
        if type(found) is _Repeated:
            self._check_repeated(line, self.columns)
        if self._unseen:
            self._unseen.difference_update(found)
        self._objects.append(found)
        self._lines.append(self._line)

    def _check_repeated(self, line: bytes, columns: FileColumns) -> None:
        keys = [key for key, _ in json.JSONDecoder(object_pairs_hook=list).decode(line.decode())]
        for name in columns.names:
            if keys.count(name) > 1:
                raise RefusedValue(f"it has the key {name!r} {keys.count(name)} times; give each its own name")

    def chunks(self, raw_bytes: int) -> Iterator[Chunk]:
        """The inputs parsed last, up to the first with a value that is refused: `fault` is its line then."""
        if self.columns is None or not self._objects:
            return
        for start, stop in list_runs(self._config, self._objects):
            objects, lines = self._objects[start:stop], self._lines[start:stop]
            arrays, numbers, bad = to_arrays(self._config, self.columns, objects)
            if bad is not None:
                row, reason = bad
                self.fault = f"{self._path}, line {lines[row]}: {reason}"
                if row:
                    arrays, numbers, _ = to_arrays(self._config, self.columns, objects[:row])
                lines = lines[:row]
            if lines:
                yield self.columns.chunk(
                    arrays,
                    num_inputs=len(lines),
                    locate=partial(_locate, self._path, lines),
                    raw_bytes=raw_bytes,
                    numbers=numbers,
                )
                raw_bytes = 0
            if bad is not None:
                return

    @property
    def unseen(self) -> tuple[str, ...]:
        """The columns that none of the lines has."""
        return tuple(sorted(self._unseen))

    def check_label(self) -> None:
        """Refuse a file whose first lines have no label."""
        if self.columns is not None and self.columns.label in self._unseen:
            self._refuse(str(self.columns.label))

    def finish(self) -> None:
        """Refuse a file without lines, or with a column that was in none of them."""
        if self.columns is None:
            raise NoInputsError(f"{self._path} holds no inputs; copy it again or take it out of the recipe")
        for name in self.columns.names:
            if name in self._unseen:
                self._refuse(name)

    def _refuse(self, name: str) -> None:
        raise LogError(f"{self._path}: there is no column {name!r} in any line; {nearest(name, self._known)}")


def _to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Repeated(found)


def _columns(config: LogConfig, path: Path, first: dict[str, Any], labelled: bool) -> FileColumns:
    """The columns of a file by its first object: a folder's column is one whose key that does not have."""
    folders = folder_values(path)
    header = [name for name in config.wanted_columns() if name in first or name not in folders]
    return find_columns(config, header, path, labelled=labelled)


def _locate(path: Path, lines: list[int], row: int) -> str:
    return f"{path}, line {lines[row]}"
