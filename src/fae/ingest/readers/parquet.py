"""Read Parquet files, batch by batch within their row groups.

Columns keep their stored types; `fae.ingest.values` and `fae.ingest.dense_values` convert them. Text is checked to be
UTF-8. Nested columns other than lists are not read. Ids that are stored as a dictionary of text, with the number of a
value for each input, come as they are stored: each value is then looked up once a batch, and not once an input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fae.core.errors import LogError
from fae.ingest.config import LogConfig
from fae.ingest.readers.chunk import Chunk, NoInputsError
from fae.ingest.readers.file_columns import FileColumns, find_columns
from fae.ingest.readers.line_blocks import cannot_read, open_raw, shown
from fae.ingest.readers.span import WHOLE_FILE, Span, SpanEnds
from fae.ingest.value_types.type_classes import is_list
from fae.ingest.value_types.value_texts import first_bad

_BATCH_INPUTS = 32_768
_CODED_BYTES, _DICTIONARY_BYTES = 4.0, 1 << 20
"""Limits of a column that is read as dictionaries: bytes of a value, uncompressed, and of the dictionary as it is
stored. A column beyond the first limit has plain values too, for which the reader makes a dictionary; a large
dictionary is copied for each batch."""
_CODED_INPUTS = 8192
"""Fewest inputs of row groups that are read as dictionaries, each by itself: small batches cost more."""
_FAULTS = (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError, MemoryError)
"""What the reader raises for files that are damaged, encrypted or of a layout that it does not have."""


def read_parquet(
    config: LogConfig, path: Path, *, labelled: bool = True, span: Span = WHOLE_FILE, ends: SpanEnds | None = None
) -> Iterator[Chunk]:
    """Stream a Parquet file. Raises `LogError`; see `fae.ingest.readers.dispatch.read_chunks`."""
    try:
        with open_raw(path) as raw, ExitStack() as files:
            file = files.enter_context(pq.ParquetFile(raw))
            num_inputs = file.metadata.num_rows
            if num_inputs == 0:
                raise NoInputsError(f"{path} holds no inputs; write it again or take it out of the recipe")
            columns = find_columns(config, file.schema_arrow.names, path, labelled=labelled)
            groups = range(span.begin, file.num_row_groups if span.end is None else span.end)
            coded = _dictionaries(config, columns, file, groups)
            if coded:
                file = files.enter_context(pq.ParquetFile(raw, metadata=file.metadata, read_dictionary=coded))
            if ends is not None:
                ends.begin, ends.stop = groups.start, groups.stop
            first_row = sum(file.metadata.row_group(group).num_rows for group in range(groups.start))
            bytes_per_input = raw.size() / num_inputs
            # No threads here: the next stage uses all of them, and this already runs ahead of it.
            for batch in _batches(file, list(columns.names), groups, apart=bool(coded)):
                locate = partial(_locate, path, first_row)
                for name in columns.names:
                    _check_text(batch.column(name), name, locate)
                yield columns.chunk(
                    {name: batch.column(name) for name in columns.names},
                    num_inputs=batch.num_rows,
                    locate=locate,
                    raw_bytes=round(batch.num_rows * bytes_per_input),
                )
                first_row += batch.num_rows
    except _FAULTS as error:
        raise _cannot_read(path, error) from error


def _dictionaries(config: LogConfig, columns: FileColumns, file: Any, groups: range) -> list[str]:
    """The columns to be read as dictionaries: plain ids and nothing else, text, small in all of these row groups."""
    plain = Counter(columns.categorical)
    for column in config.categorical_columns():
        if column.max_length > 1 or column.part is not None or column.encoded:
            del plain[column.source]
    others = {*columns.dense, columns.label, columns.weight, columns.time, columns.split_by}
    stored = [file.metadata.row_group(group) for group in groups]
    if any(group.num_rows < _CODED_INPUTS for group in stored):
        return []
    # Fields of structs have their names joined by dots, which a column may have too.
    leaves = [file.schema.column(index).path for index in range(len(file.schema))]
    counts = Counter(leaves)
    return [
        name
        for index, name in enumerate(leaves)
        if plain[name] == 1 and name in columns.names and name not in others and counts[name] == 1
        and pa.types.is_string(file.schema_arrow.field(name).type)
        and all(_is_small(group.column(index)) for group in stored)
    ]  # fmt: skip


def _is_small(chunk: pq.ColumnChunkMetaData) -> bool:
    if not chunk.has_dictionary_page or chunk.total_uncompressed_size > _CODED_BYTES * chunk.num_values:
        return False
    begin = chunk.dictionary_page_offset
    return begin is not None and chunk.data_page_offset - begin <= _DICTIONARY_BYTES


def _batches(file: Any, names: list[str], groups: range, *, apart: bool) -> Iterator[Any]:
    """Record batches of the columns `names` of some row groups, `apart`: none has inputs of two."""
    # The reader cannot join the dictionaries of lists of two row groups.
    joined = not apart and not any(is_list(field.type) and _has_dictionary(field.type) for field in file.schema_arrow)
    for together in [[*groups]] if joined else [[group] for group in groups]:
        yield from file.iter_batches(
            batch_size=_BATCH_INPUTS, row_groups=together, columns=names, use_threads=False
        )  # fmt: skip


def _has_dictionary(kind: Any) -> bool:
    return bool(pa.types.is_dictionary(kind)) or (is_list(kind) and _has_dictionary(kind.value_type))


def check_parquet_header(config: LogConfig, path: Path, *, labelled: bool = True) -> None:
    """Look at the schema alone. Raises `LogError`; see `fae.ingest.readers.dispatch.check_header`."""
    try:
        with open_raw(path) as raw:
            find_columns(config, pq.read_schema(raw).names, path, labelled=labelled)
    except _FAULTS as error:
        raise _cannot_read(path, error) from error


def _cannot_read(path: Path, error: BaseException) -> LogError:
    if isinstance(error, (PermissionError, FileNotFoundError, IsADirectoryError)):
        return cannot_read(path, error)
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    if "ncrypt" in reason or "ecrypt" in reason:
        return LogError(f"{path} is encrypted ({reason}), and keys are not taken; write it without encryption")
    if isinstance(error, MemoryError):
        return LogError(f"{path}: a row group does not fit into memory ({reason}); write it with smaller row groups")
    return LogError(f"{path} cannot be read as Parquet ({reason}); write it again or set [log] format")


def _check_text(array: Any, name: str, locate: Any) -> None:
    """Check that text, also in lists and dictionaries, is UTF-8; the reader takes it as it is."""
    if pa.types.is_primitive(array.type):
        return
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        if pa.types.is_dictionary(array.type) and _is_text(_copied(array)):
            return  # what is wrong is no value of these inputs
        row = first_bad(array, lambda part: _copied(part).validate(full=True))
        raise LogError(
            f"{locate(row)}: the column {name!r} is not UTF-8{_shown_bytes(array, row)}; write its text as UTF-8"
        ) from error


def _is_text(array: Any) -> bool:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _copied(part: Any) -> Any:
    """The values of a slice and of nothing else: a slice alone shares the dictionary and lists of its array."""
    part = part.take(pa.array(range(len(part)), pa.int64()))
    return part.dictionary_decode() if pa.types.is_dictionary(part.type) else part


def _shown_bytes(array: Any, row: int) -> str:
    try:
        return f" ({shown(_copied(array.slice(row, 1)).cast(pa.binary())[0].as_py())})"
    except (pa.ArrowException, TypeError, AttributeError):
        return ""


def _locate(path: Path, first_row: int, row: int) -> str:
    return f"{path}, input {first_row + row + 1}"
