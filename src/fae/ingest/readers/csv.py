"""Read CSV files with a header line; plain, gz or zst.

Ids stay text exactly as written, dense columns become float64 with empty fields as nulls, and blank lines are skipped.
pyarrow parses one block at a time on one thread. Where it fails, `fae.ingest.readers.text_faults` reads the file again
to name the line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from fae.core.errors import LogError, RecipeError
from fae.ingest.config import LogConfig
from fae.ingest.readers.chunk import Chunk
from fae.ingest.readers.file_columns import FileColumns, find_columns
from fae.ingest.readers.text_faults import TextLayout, explain_csv_fault, line_of_row
from fae.ingest.readers.text_files import check_suffix, cut_short, open_bytes, open_lines

_BLOCK_BYTES = 4 * 2**20
"""Bytes of text parsed at a time, and the longest possible line. A block of Criteo is 16,000 inputs; smaller blocks are
slower, and 8 MiB is no faster and holds twice the memory."""
_NO_INPUTS = ("Empty CSV", "Could not skip initial")
"""The parser's messages for a file with nothing behind the header."""


def read_text(config: LogConfig, path: Path, *, labelled: bool = True) -> Iterator[Chunk]:
    """Stream a CSV file. Raises `LogError`; see `fae.ingest.readers.dispatch.read_chunks`."""
    try:
        layout, columns = _layout(config, path, labelled)
        yield from _chunks(path, layout, columns)
    except OSError as error:
        raise cut_short(path, error) from error


def check_text_header(config: LogConfig, path: Path, *, labelled: bool = True) -> None:
    """Look at the header alone. Raises `LogError`; see `fae.ingest.readers.dispatch.check_header`."""
    try:
        _layout(config, path, labelled)
    except OSError as error:
        raise cut_short(path, error) from error


def _layout(config: LogConfig, path: Path, labelled: bool) -> tuple[TextLayout, FileColumns]:
    check_suffix(path)
    if len(config.separator) != 1 or not config.separator.isascii():
        raise RecipeError(f"[log] separator = {config.separator!r} must be one ASCII character")
    with open_lines(path) as lines:
        reader = csv.reader(lines, delimiter=config.separator)
        try:
            header = next((row for row in reader if row), [])
        except csv.Error as error:
            raise LogError(f"{path}, line {reader.line_num}: the header cannot be read ({error})") from error
        header_lines = reader.line_num
    if not header:
        raise LogError(f"{path} holds no text; copy it again or take it out of the recipe")
    columns = find_columns(config, header, path, labelled=labelled)
    dense = [
        position for name, position in zip(columns.names, columns.positions, strict=True) if columns.dense_only(name)
    ]
    layout = TextLayout(
        separator=config.separator, quoting=True, num_fields=len(header), header_lines=header_lines,
        positions=columns.positions, dense=tuple(dense),
    )  # fmt: skip
    return layout, columns


def _chunks(path: Path, layout: TextLayout, columns: FileColumns) -> Iterator[Chunk]:
    stream, raw = open_bytes(path)
    first_row, bytes_before = 0, 0
    with raw, stream:
        try:
            for batch in _open_csv(stream, layout, bool(columns.label in columns.names)):
                if not batch.num_rows:
                    continue
                bytes_read = raw.tell()
                yield columns.chunk(
                    dict(zip(columns.names, batch.columns, strict=True)),
                    num_inputs=batch.num_rows,
                    locate=partial(_locate, path, layout, first_row),
                    raw_bytes=bytes_read - bytes_before,
                )
                first_row += batch.num_rows
                bytes_before = bytes_read
        except pa.ArrowInvalid as error:
            if not any(text in str(error) for text in _NO_INPUTS):
                with open_lines(path) as lines:
                    raise LogError(explain_csv_fault(lines, path, layout, str(error), _BLOCK_BYTES)) from error
    if first_row == 0:
        found = "a header and no inputs" if layout.header_lines else "no inputs"
        raise LogError(f"{path} holds {found}; copy it again or take it out of the recipe")


def _open_csv(stream: Any, layout: TextLayout, labelled: bool) -> Any:
    # Columns go by position: other columns may have no name or one name twice.
    names = [str(position) for position in range(layout.num_fields)]
    types = {names[position]: pa.string() for position in layout.positions}
    types |= {names[position]: pa.float64() for position in layout.dense}
    if labelled:
        # The label has few values: as a dictionary each is looked at once.
        types[names[layout.positions[0]]] = pa.dictionary(pa.int32(), pa.string())
    return pyarrow.csv.open_csv(
        stream,
        # One thread: its blocks come one at a time, where the parallel reader holds one per core of the machine.
        read_options=pyarrow.csv.ReadOptions(
            column_names=names, skip_rows=layout.header_lines, block_size=_BLOCK_BYTES, use_threads=False
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=layout.separator, quote_char='"' if layout.quoting else False, newlines_in_values=layout.quoting
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=types,
            include_columns=[names[position] for position in layout.positions],
            null_values=[""],
            strings_can_be_null=False,
        ),
    )


def _locate(path: Path, layout: TextLayout, first_row: int, row: int) -> str:
    with open_lines(path) as lines:
        return f"{path}, line {line_of_row(lines, layout, first_row + row)}"
