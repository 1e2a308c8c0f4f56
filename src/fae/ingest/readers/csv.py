"""Read CSV files, with a header line or with ``[log] columns``; plain, gz or zst.

Ids stay text exactly as written, dense columns become float64 with missing values as nulls, and blank lines are
skipped. pyarrow parses one block of whole records at a time on one thread (`fae.ingest.readers.record_blocks`). What
it refuses is named from that block alone (`fae.ingest.readers.text_faults`), behind the inputs before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from fae.core.compiled import Int64
from fae.core.errors import LogError, RecipeError
from fae.ingest.config import LogConfig
from fae.ingest.readers.chunk import Chunk, NoInputsError
from fae.ingest.readers.file_columns import FileColumns, find_columns
from fae.ingest.readers.line_blocks import cut_short
from fae.ingest.readers.record_blocks import RecordBlock, RecordFile, TextSyntax
from fae.ingest.readers.record_scanner import rewrite_records
from fae.ingest.readers.span import WHOLE_FILE, Span, SpanEnds
from fae.ingest.readers.text_faults import TextLayout, explain_header, explain_text_fault, reads_as_input, to_numbers

_BLOCK_BYTES = 4 * 2**20
"""Bytes of text parsed at a time, and the longest possible line. A block of Criteo is 16,000 inputs; smaller blocks are
slower, and 8 MiB is no faster and holds twice the memory."""
_FREE_SEPARATORS = tuple(byte for byte in (*range(1, 32), 127) if byte not in b"\t\n\r")
"""Bytes that may take the place of a separator of several bytes, where a block does not have them."""


def read_csv(
    config: LogConfig, path: Path, *, labelled: bool = True, span: Span = WHOLE_FILE, ends: SpanEnds | None = None
) -> Iterator[Chunk]:
    """Stream a CSV file. Raises `LogError`; see `fae.ingest.readers.dispatch.read_chunks`."""
    syntax = _syntax(config)
    try:
        file = RecordFile(path, syntax, _BLOCK_BYTES, span, ends)
        try:
            columns, layout = (
                _layout(config, path, file, labelled) if not span.begin else _of_begin(config, path, labelled)
            )
            parser = _Parser(path, syntax, columns, layout)
            found = False
            for block in file.blocks(layout.num_fields, partial(reads_as_input, config, layout)):
                for chunk in parser.chunks(block):
                    found = True
                    yield chunk
        finally:
            file.close()
    except OSError as error:
        raise cut_short(path, error) from error
    if not found and span.is_whole:
        what = "no inputs" if config.columns else "a header and no inputs"
        raise NoInputsError(f"{path} holds {what}; copy it again or take it out of the recipe")


def check_csv_header(config: LogConfig, path: Path, *, labelled: bool = True) -> None:
    """Look at the header alone. Raises `LogError`; see `fae.ingest.readers.dispatch.check_header`."""
    try:
        _of_begin(config, path, labelled)
    except OSError as error:
        raise cut_short(path, error) from error


def _of_begin(config: LogConfig, path: Path, labelled: bool) -> tuple[FileColumns, TextLayout]:
    """What the first record of a file says."""
    file = RecordFile(path, _syntax(config), _BLOCK_BYTES)
    try:
        return _layout(config, path, file, labelled)
    finally:
        file.close()


def _syntax(config: LogConfig) -> TextSyntax:
    for key in ("quote", "escape"):
        mark = getattr(config, key)
        if mark and (mark in config.separator or mark in "\r\n"):
            raise RecipeError(
                f"[log] {key} = {mark!r} must not be a line end or in separator = {config.separator!r}; correct one"
            )
    quote, escape = (ord(mark) if mark else -1 for mark in (config.quote, config.escape))
    return TextSyntax(separator=config.separator.encode(), quote=quote, escape=escape)


def _layout(config: LogConfig, path: Path, file: RecordFile, labelled: bool) -> tuple[FileColumns, TextLayout]:
    line = file.line
    fields = file.read_header(keep=bool(config.columns))
    if not fields:
        raise NoInputsError(f"{path} holds no text; copy it again or take it out of the recipe")
    header = [field.decode("utf-8", "surrogateescape") for field in fields]
    if config.columns:
        if header == list(config.columns):
            raise LogError(f"{path}, line {line}: it is a header with the names of [log] columns; leave `columns` out")
        if not labelled and header == [name for name in config.columns if name != config.label_column()]:
            raise LogError(f"{path}, line {line}: it is a header with the names of [log] columns; remove the line")
        header = list(config.columns)
        if not labelled and len(fields) == len(header) - 1:
            header.remove(config.label_column())
    try:
        columns = find_columns(config, header, path, labelled=labelled)
    except LogError as error:
        raise explain_header(path, config, fields, error) from error
    numbers = [
        place for name, place in zip(columns.names, columns.positions, strict=True) if columns.dense_only(name)
    ]  # fmt: skip
    layout = TextLayout(
        num_fields=len(header), has_header=not config.columns, positions=columns.positions, dense=tuple(numbers),
        also_dense=tuple(
            place
            for name, place in zip(columns.names, columns.positions, strict=True)
            if name in columns.dense and place not in numbers
        ),
        label=columns.positions[columns.names.index(columns.label)] if columns.label in columns.names else -1,
        missing=config.missing, decimal=config.decimal,
    )  # fmt: skip
    if config.columns and len(fields) != len(header):
        raise LogError(
            f"{path}, line {file.line}: {len(fields)} fields, and [log] columns names {len(header)}; correct "
            "`columns` or the separator"
        )
    return columns, layout


class _Parser:
    """Parses the blocks of one file."""

    def __init__(self, path: Path, syntax: TextSyntax, columns: FileColumns, layout: TextLayout) -> None:
        self._path, self._syntax, self._columns, self._layout = path, syntax, columns, layout
        # Columns go by position: other columns may have no name or one name twice.
        self._names = [str(position) for position in range(layout.num_fields)]
        self._words = [word.encode() for word in layout.missing if syntax.escape >= 0 and chr(syntax.escape) in word]
        wanted = [self._names[position] for position in layout.positions]
        types = dict.fromkeys(wanted, pa.string())
        types |= {self._names[position]: pa.float64() for position in layout.dense}
        if layout.label >= 0:
            # The label has few values: as a dictionary each is looked at once.
            types[self._names[layout.label]] = pa.dictionary(pa.int32(), pa.string())
        self._typed = pyarrow.csv.ConvertOptions(
            column_types=types,
            include_columns=wanted,
            null_values=["", *layout.missing],
            strings_can_be_null=False,
            decimal_point=layout.decimal,
        )
        self._untyped = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(wanted, pa.binary()), include_columns=wanted, strings_can_be_null=False
        )

    def chunks(self, block: RecordBlock) -> Iterator[Chunk]:
        """The inputs of one block, at most one chunk; raises the first fault behind the inputs before it."""
        try:
            arrays = self._parse(block.text, block.begin, block.stop, self._typed)
            numbers = self._also_numbers(arrays)
        except (pa.ArrowInvalid, UnicodeError) as error:
            index = self._syntax.index(block.text, block.begin, block.stop)
            parse = partial(self._untyped_columns, block, index)
            row, message = explain_text_fault(self._layout, index, parse, str(error))
            if row:
                arrays = self._parse(block.text, block.begin, int(index[row, 0]), self._typed)
                yield self._chunk(block, arrays, self._also_numbers(arrays))
            line = block.first_line + int(index[row, 2])
            raise LogError(f"{self._path}, line {line}: {message}") from error
        if arrays and len(arrays[0]):
            yield self._chunk(block, arrays, numbers)

    def _chunk(self, block: RecordBlock, arrays: list[Any], numbers: dict[str, Any]) -> Chunk:
        return self._columns.chunk(
            dict(zip(self._columns.names, arrays, strict=True)),
            num_inputs=len(arrays[0]),
            locate=partial(_locate, self._path, self._syntax, block),
            raw_bytes=block.raw_bytes,
            numbers=numbers,
        )

    def _also_numbers(self, arrays: list[Any]) -> dict[str, Any]:
        """Dense columns that are wanted as text too, as numbers."""
        places = dict(zip(self._layout.positions, zip(self._columns.names, arrays, strict=True), strict=True))
        found = (places[place] for place in self._layout.also_dense)
        return {name: to_numbers(array, self._layout) for name, array in found}

    def _untyped_columns(self, block: RecordBlock, index: Int64, num_rows: int) -> list[Any]:
        """The wanted columns of the first records as bytes, which the parser takes whatever they are."""
        stop = int(index[num_rows, 0]) if num_rows < len(index) else block.stop
        return self._parse(block.text, block.begin, stop, self._untyped) if num_rows else []

    def _parse(self, text: bytes, begin: int, stop: int, options: Any) -> list[Any]:
        syntax = self._syntax
        data, delimiter, has_marks = pa.py_buffer(text).slice(begin, stop - begin), syntax.separator, True
        if begin == 0 and stop == len(text):
            has_marks = syntax.has_marks(text)
        if len(delimiter) > 1 or (self._words and has_marks):
            data, delimiter = self._one_byte_separators(text, begin, stop)
        table = pyarrow.csv.read_csv(
            pa.BufferReader(data),
            # One thread: this already runs ahead of the next stage. One block: the parser cuts none of its records.
            read_options=pyarrow.csv.ReadOptions(column_names=self._names, block_size=data.size + 1, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter.decode(),
                quote_char=chr(syntax.quote) if syntax.quote >= 0 and has_marks else False,
                escape_char=chr(syntax.escape) if syntax.escape >= 0 and has_marks else False,
                newlines_in_values=has_marks,
            ),
            convert_options=options,
        )
        return [column.combine_chunks() if column.num_chunks != 1 else column.chunk(0) for column in table.columns]

    def _one_byte_separators(self, text: bytes, begin: int, stop: int) -> tuple[Any, bytes]:
        separator = self._syntax.separator
        free = separator if len(separator) == 1 else self._free_byte(text)
        words = b"".join(self._words)
        bounds = np.cumsum([0, *map(len, self._words)])
        out = np.empty(stop - begin, np.uint8)
        size = rewrite_records(
            np.frombuffer(text, np.uint8), begin, stop, np.array([self._syntax.quote, self._syntax.escape]),
            np.frombuffer(separator, np.uint8), free[0], np.frombuffer(words, np.uint8), bounds, out,
        )  # fmt: skip
        return pa.py_buffer(out).slice(0, size), free

    def _free_byte(self, text: bytes) -> bytes:
        marks = (self._syntax.quote, self._syntax.escape)
        free = next((byte for byte in _FREE_SEPARATORS if byte not in text and byte not in marks), None)
        if free is None:
            raise LogError(
                f"{self._path} holds every control character, and a separator of several needs one that is free; "
                "write the file with a separator of one character"
            )
        return bytes([free])


def _locate(path: Path, syntax: TextSyntax, block: RecordBlock, row: int) -> str:
    index = syntax.index(block.text, block.begin, block.stop)
    return f"{path}, line {block.first_line + int(index[row, 2])}"
