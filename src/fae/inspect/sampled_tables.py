"""Read a bounded sample of a raw file as tables of text: its begin, middle and end where it can seek, else its begin.

Text that is no input (another number of fields, no JSON object) is counted and left out. Missing values are nulls.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from fae.core.errors import LogError
from fae.ingest.readers.line_blocks import BOM, cut_short, line_blocks, open_raw
from fae.ingest.value_types.type_classes import is_bytes, is_list
from fae.ingest.value_types.value_texts import nested_fault, plain_array, texts
from fae.inspect.raw_format import RawFormat

ITEM_MARK = "\x1f"
"""Between the items of a list that is no text in the file."""
BLOCK_BYTES = 4 * 2**20
"""Bytes of text parsed at a time, and the longest possible line; as in ingest."""
MOST_BYTES = 64 * 2**20
"""Bytes of text that are read unless all lines are wanted."""
_PIECES = 3
_FRACTIONS = "lists of numbers with fractions; columns of their own can be dense ones"
_PARQUET_ROWS = 32_768


@dataclass(kw_only=True)
class Sample:
    """What was read of one file.

    Attributes
    ----------
    lines_read
        Inputs.
    bytes_read
        Bytes of text, or of the file.
    total_lines
        Inputs of the file: exact if all were read or the file says it, else estimated from its size.
    whole
        Whether every input was read.
    pieces
        ``all``, ``begin``, or ``begin, middle and end``.
    odd_lines
        Lines that are no inputs.
    stored
        From a column to its type in the file; of Parquet.
    refused
        From a column to why its values are not read.
    lists
        Columns with lists that are no text.
    """

    lines_read: int = 0
    bytes_read: int = 0
    total_lines: int = 0
    whole: bool = True
    pieces: str = "all"
    odd_lines: int = 0
    stored: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    lists: set[str] = field(default_factory=set)


Table = tuple[dict[str, Any], int, float]
"""Columns as Arrow string arrays ``[n]``, n, and how far into the file the table begins, from 0 to 1."""


def read_sample(path: Path, shape: RawFormat, most_lines: int | None, sample: Sample) -> Iterator[Table]:
    """Tables of a sample of a file, in the order of the file; fills `sample` meanwhile.

    Parameters
    ----------
    most_lines
        Inputs to read; None reads all.

    Raises
    ------
    LogError
        If the file is damaged, not UTF-8, or has a line longer than 4 MiB.
    """
    if shape.name == "parquet":
        yield from _parquet_tables(path, most_lines, sample)
        return
    parse = _parse_json if shape.name == "jsonl" else _parse_csv
    for text, at, first in _text_pieces(path, shape, most_lines, sample):
        columns, count = parse(path, shape, text, sample, first)
        sample.lines_read += count
        sample.bytes_read += len(text)
        if count:
            yield columns, count, at
    _estimate_lines(path, shape, sample)


def _estimate_lines(path: Path, shape: RawFormat, sample: Sample) -> None:
    if sample.whole or not sample.lines_read:
        sample.total_lines = sample.lines_read
    elif not shape.compression:
        sample.total_lines = round(path.stat().st_size / sample.bytes_read * sample.lines_read)
    # That of a packed file was set by what its bytes became so far.


def _text_pieces(
    path: Path, shape: RawFormat, most_lines: int | None, sample: Sample
) -> Iterator[tuple[bytes, float, bool]]:
    """Whole lines: text, where it begins as a share of the file, whether it is the begin of the file."""
    size = path.stat().st_size
    if most_lines is None:
        yield from _from_begin(path, shape, None, None, sample)
        return
    if shape.compression:
        yield from _from_begin(path, shape, most_lines, 4 * MOST_BYTES, sample)
        return
    if size <= MOST_BYTES:
        every = list(_from_begin(path, shape, most_lines, MOST_BYTES, sample))
        if sample.whole:
            yield from every
            return
        del every
    # Too large to be read as a whole: a third from each of three places.
    sample.whole, sample.pieces = False, "begin, middle and end"
    quota, most_bytes = max(1, most_lines // _PIECES), MOST_BYTES // _PIECES
    begin = list(_from_begin(path, shape, quota, most_bytes, Sample()))
    yield from begin
    length = sum(len(text) for text, _, _ in begin)
    middle, last = size // 2 - length // 2, size - 2 * length
    for start, num_bytes, is_last in ((middle, min(most_bytes, size // 4), False), (last, most_bytes, True)):
        if text := _from_middle(path, max(length, start), num_bytes, quota, is_last=is_last):
            yield text, start / size, False


def _from_begin(
    path: Path, shape: RawFormat, most_lines: int | None, most_bytes: int | None, sample: Sample
) -> Iterator[tuple[bytes, float, bool]]:
    size, lines, num_bytes, packed = max(1, path.stat().st_size), 0, 0, 0
    for buffer, begin, stop, raw_bytes in line_blocks(path, BLOCK_BYTES):
        text = bytes(buffer[begin:stop])
        count = text.count(b"\n")
        is_first = packed == 0
        if most_lines is not None and lines + count > most_lines + shape.has_header:
            wanted = most_lines + shape.has_header - lines
            text = _first_lines(text, wanted)
            sample.whole, sample.pieces = False, "begin"
        lines += text.count(b"\n")
        num_bytes += len(text)
        yield text, packed / size, is_first
        packed += raw_bytes
        if not sample.whole or (most_bytes is not None and num_bytes >= most_bytes and packed < size):
            if sample.whole:
                sample.whole, sample.pieces = False, "begin"
            share = packed / size * len(text) / max(1, stop - begin) if is_first else packed / size
            sample.total_lines = round(lines / max(share, 1e-9))
            return


def _first_lines(text: bytes, count: int) -> bytes:
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
    return text[: int(ends[count - 1]) + 1] if 0 < count <= len(ends) else b"" if count <= 0 else text


def _from_middle(path: Path, start: int, num_bytes: int, most_lines: int, *, is_last: bool) -> bytes:
    """Whole lines behind a place of a file; of its end the last ones."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            text = file.read(num_bytes)
            is_end = not file.read(1)  # its last line may lack an end
    except OSError as error:
        raise cut_short(path, error) from error
    text = text[text.find(b"\n") + 1 :]
    if is_end and text and not text.endswith(b"\n"):
        text += b"\n"
    text = text[: text.rfind(b"\n") + 1]
    if is_last:
        ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
        return text[int(ends[-most_lines - 1]) + 1 :] if len(ends) > most_lines else text
    return _first_lines(text, most_lines) if text.count(b"\n") > most_lines else text


def _parse_csv(path: Path, shape: RawFormat, text: bytes, sample: Sample, is_first: bool) -> tuple[dict[str, Any], int]:
    if is_first:
        text = text.removeprefix(BOM)
    if is_first and shape.has_header:
        text = _without_header(text, shape)
    if not text.strip():
        return {}, 0
    if len(shape.separator) > 1:
        return _split_csv(shape, text, sample)
    names = [str(place) for place in range(len(shape.columns))]
    odd = [0]

    def skip(row: Any) -> str:
        odd[0] += 1
        return "skip"

    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(text),
            read_options=pyarrow.csv.ReadOptions(column_names=names, block_size=len(text) + 1, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=shape.separator, quote_char=shape.quote or False, newlines_in_values=bool(shape.quote),
                invalid_row_handler=skip,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True,
            ),
        )  # fmt: skip
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise LogError(f"{path} holds text that is not UTF-8; convert the file (iconv does it)") from error
        sample.odd_lines += text.count(b"\n")  # a piece that begins inside quotes
        return {}, 0
    sample.odd_lines += odd[0]
    arrays = [column.combine_chunks() if column.num_chunks != 1 else column.chunk(0) for column in table.columns]
    return _by_name(shape, arrays, sample), table.num_rows


def _by_name(shape: RawFormat, arrays: Sequence[Any], sample: Sample) -> dict[str, Any]:
    """Columns by their names; those that share a name cannot be named by a recipe."""
    shared = {name for name in shape.columns if shape.columns.count(name) > 1}
    sample.refused.update(dict.fromkeys(shared, "several columns have this name"))
    return {name: array for name, array in zip(shape.columns, arrays, strict=True) if name not in shared}


def _without_header(text: bytes, shape: RawFormat) -> bytes:
    """Text behind the header, whose names may hold line ends in quotes."""
    mark = shape.quote.encode()
    at = text.find(b"\n") + 1
    while mark and text[:at].count(mark) % 2 and (end := text.find(b"\n", at)) >= 0:
        at = end + 1
    return text[at:]


def _split_csv(shape: RawFormat, text: bytes, sample: Sample) -> tuple[dict[str, Any], int]:
    lines = [line for line in text.decode(errors="replace").splitlines() if line]
    records = [line.split(shape.separator) for line in lines]
    good = [record for record in records if len(record) == len(shape.columns)]
    sample.odd_lines += len(records) - len(good)
    if not good:
        return {}, 0
    arrays = [pa.array([value or None for value in values], pa.string()) for values in zip(*good, strict=True)]
    return _by_name(shape, arrays, sample), len(good)


def _parse_json(
    path: Path, shape: RawFormat, text: bytes, sample: Sample, is_first: bool
) -> tuple[dict[str, Any], int]:
    rows: list[dict[str, Any]] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            sample.odd_lines += 1
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: pa.array([_json_text(name, row.get(name), sample) for row in rows], pa.string()) for name in names}
    return columns, len(rows)


def _json_text(name: str, value: Any, sample: Sample) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) < 2**512 else "too large"
    if isinstance(value, float):
        return str(int(value)) if abs(value) < 2**53 and value == int(value) else repr(value)
    if isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value):
        sample.lists.add(name)
        if any(isinstance(item, float) and item != int(item) for item in value if _is_finite(item)):
            sample.refused[name] = _FRACTIONS
        return ITEM_MARK.join(_json_text(name, item, Sample()) or "" for item in value)
    sample.refused[name] = "objects" if isinstance(value, dict) else "lists of lists or objects"
    return None


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) < 2.0**53


def _parquet_tables(path: Path, most_lines: int | None, sample: Sample) -> Iterator[Table]:
    faults = (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError, MemoryError)
    try:
        with open_raw(path) as raw, pq.ParquetFile(raw) as file:
            total = file.metadata.num_rows
            sample.total_lines = total
            schema = file.schema_arrow
            names = [name for name in schema.names if schema.names.count(name) == 1]
            sample.stored = {name: str(schema.field(name).type) for name in names}
            for name in names:
                fault = nested_fault(plain_type(schema.field(name).type))
                if fault and fault != "a list":
                    sample.refused[name] = f"{schema.field(name).type} values"
            names = [name for name in names if name not in sample.refused]
            groups = _row_groups(file, most_lines, sample)
            quota = total if most_lines is None else -(-most_lines // max(1, len(groups)))
            for group, first_row in groups:
                left = quota
                for batch in file.iter_batches(
                    batch_size=_PARQUET_ROWS, row_groups=[group], columns=names, use_threads=False
                ):
                    part = batch.slice(0, left)
                    columns = {name: _stored_texts(part.column(name), name, sample) for name in names}
                    sample.lines_read += part.num_rows
                    sample.bytes_read += part.nbytes
                    yield columns, part.num_rows, first_row / max(1, total)
                    left, first_row = left - part.num_rows, first_row + part.num_rows
                    if left <= 0 or (most_lines is not None and sample.bytes_read > 4 * MOST_BYTES):
                        break
            sample.whole = sample.lines_read == total
            if sample.whole:
                sample.pieces = "all"
    except faults as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise LogError(f"{path} cannot be read as Parquet ({reason}); write it again") from error


def plain_type(kind: Any) -> Any:
    """The type of the values of a dictionary, else the type itself."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _row_groups(file: Any, most_lines: int | None, sample: Sample) -> list[tuple[int, int]]:
    """The row groups to read, each with its first row."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    firsts = [0, *np.cumsum(sizes).tolist()][: len(sizes)]
    every = list(zip(range(len(sizes)), firsts, strict=True))
    if most_lines is None or sum(sizes) <= most_lines:
        return every
    if len(every) <= _PIECES:
        sample.pieces = "begin of each row group" if len(every) > 1 else "begin"
        return every
    sample.pieces = "begin, middle and end"
    return [every[0], every[len(every) // 2], every[-1]]


def _stored_texts(array: Any, name: str, sample: Sample) -> Any:
    """The text of each value of a Parquet column; a number with a fraction is as it is printed."""
    array = plain_array(array)
    if pa.types.is_dictionary(array.type):
        array = plain_array(array.dictionary_decode())
    if is_list(array.type):
        sample.lists.add(name)
        flat = array.flatten()
        if (pa.types.is_floating(flat.type) or pa.types.is_decimal(flat.type)) and _has_fractions(flat):
            sample.refused[name] = _FRACTIONS
        inner = Sample()
        items = _stored_texts(flat, name, inner).fill_null("")
        sample.refused.update(inner.refused)
        lengths = pc.list_value_length(array).fill_null(0).cast(pa.int32())
        ends = np.concatenate([[0], np.cumsum(lengths.to_numpy(zero_copy_only=False))]).astype(np.int32)
        joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), items), ITEM_MARK)
        return pc.if_else(array.is_valid(), joined, pa.scalar(None, pa.string()))
    if pa.types.is_floating(array.type) or pa.types.is_decimal(array.type):
        return _number_texts(array)
    if is_bytes(array.type):
        try:
            array = array.cast(pa.binary()).cast(pa.string())
        except pa.ArrowInvalid:
            sample.refused[name] = "bytes that are no UTF-8 text"
            return pa.nulls(len(array), pa.string())
    valid = array.is_valid()
    found = texts(array, name, lambda row: name, ())
    return pc.if_else(pc.and_(valid, pc.not_equal(found, "")), found, pa.scalar(None, pa.string()))


def _has_fractions(array: Any) -> bool:
    values = array.cast(pa.float64(), safe=False).drop_null().to_numpy()
    values = values[np.isfinite(values)]
    return bool((values != np.floor(values)).any())


def _number_texts(array: Any) -> Any:
    floats = array.cast(pa.float64(), safe=False)
    values = floats.fill_null(np.nan).to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        is_whole = np.isfinite(values) & (np.abs(values) < 2.0**53) & (values == np.floor(values))
    whole = pa.array(np.where(is_whole, values, 0.0).astype(np.int64)).cast(pa.string())
    return pc.if_else(pa.array(is_whole), whole, floats.cast(pa.string()))
