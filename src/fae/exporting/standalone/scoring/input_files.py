"""Read a file of raw inputs as schema.json describes it: CSV, Parquet, JSON lines, or Criteo's text.

The suffix says Parquet (``.parquet``) and JSON lines (``.jsonl``); any other file is of the run's own format.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from fae.exporting.standalone.scoring.input_objects import Columns, columns_of_objects, wanted_names
from fae.exporting.standalone.scoring.input_records import BLOCK_BYTES, RecordText, open_unpacked
from fae.exporting.standalone.scoring.input_text import InputError

_BATCH_INPUTS = 32_768
_PACKED = (".gz", ".zst", ".bz2")


def read_columns(path: Path, schema: Mapping[str, Any]) -> Iterator[Columns]:
    """Yield the wanted columns of a file, some inputs at a time, in order.

    Raises
    ------
    InputError
        If it cannot be read, or lacks a column.
    """
    kind = schema["input"]["format"]
    suffix = next((each for each in reversed(path.suffixes) if each.lower() not in _PACKED), "").lower()
    try:
        if suffix == ".parquet" or kind == "parquet":
            yield from _read_parquet(path, schema)
        elif suffix == ".jsonl" or kind == "jsonl":
            yield from _read_json_lines(path, schema)
        elif kind == "taobao":
            raise InputError(
                f"{path}: inputs of this model are sampled from behaviour; give them as .parquet or .jsonl"
            )
        else:
            yield from _read_text(path, schema)
    except (pa.ArrowException, OSError, UnicodeError, OverflowError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from None


def _read_json_lines(path: Path, schema: Mapping[str, Any]) -> Iterator[Columns]:
    objects: list[dict[str, Any]] = []
    unseen: set[str] | None = None
    with open_unpacked(path) as file:
        for number, line in enumerate(_lines(file), 1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {number}: {error}") from None
            if not isinstance(found, dict):
                raise InputError(f"{path}, line {number}: expected a JSON object")
            unseen = (set(wanted_names(schema)) if unseen is None else unseen).difference(found)
            objects.append(found)
            if len(objects) == _BATCH_INPUTS // 4:
                yield columns_of_objects(objects, schema)
                objects = []
    if unseen:
        raise InputError(f"{path} has no column {min(unseen)!r} in any line")
    if objects:
        yield columns_of_objects(objects, schema)


def _lines(file: Any) -> Iterator[bytes]:
    left = file.read(BLOCK_BYTES).removeprefix(b"\xef\xbb\xbf")
    block = left
    while block:
        *whole, left = left.split(b"\n")
        yield from whole
        block = file.read(BLOCK_BYTES)
        left += block
    if left:
        yield left


def _read_parquet(path: Path, schema: Mapping[str, Any]) -> Iterator[Columns]:
    with pa.OSFile(os.fsencode(path)) as raw, pq.ParquetFile(raw) as file:
        names, folders = _find(path, file.schema_arrow.names, schema)
        # The reader cannot join the dictionaries of lists of two row groups.
        joined = not any("list" in str(field.type) and "dictionary" in str(field.type) for field in file.schema_arrow)
        for groups in [None] if joined else [[group] for group in range(file.num_row_groups)]:
            for batch in file.iter_batches(batch_size=_BATCH_INPUTS, row_groups=groups, columns=names):
                found = {name: batch.column(name) for name in names}
                yield _with_folders(found, folders, batch.num_rows)


def _read_text(path: Path, schema: Mapping[str, Any]) -> Iterator[Columns]:
    settings = schema["input"]
    with open_unpacked(path) as raw:
        text = RecordText(raw, settings)
        try:
            header, size = text.first_record()
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        if not header:
            raise InputError(f"{path} holds no inputs")
        named = list(settings["columns"])
        if named and header in (named, [name for name in named if name != settings["label"]]):
            raise InputError(f"{path}: its first line is a header, and files of this format have none; remove the line")
        if named and len(header) == len(named) - 1:
            named.remove(settings["label"])
        if not named:
            text.skip(size)
        fields = named or header
        names, folders = _find(path, fields, schema)
        places = {name: str(fields.index(name)) for name in names}
        options = _parser_options(schema, len(fields), places)
        for batch in _batches(text, settings, options):
            found = {name: batch.column(places[name]) for name in names}
            yield _with_folders(found, folders, batch.num_rows)


def _batches(text: RecordText, settings: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[Any]:
    def marks(separator: str) -> Any:
        return pyarrow.csv.ParseOptions(
            delimiter=separator, quote_char=settings["quote"] or False, escape_char=settings["escape"] or False,
            newlines_in_values=bool(settings["quote"] or settings["escape"]),
        )  # fmt: skip

    if text.is_plain:
        yield from pyarrow.csv.open_csv(text.as_file(), parse_options=marks(settings["separator"]), **options)
        return
    for block, separator in text.plain_blocks():
        reading = pyarrow.csv.ReadOptions(
            column_names=options["read_options"].column_names, block_size=len(block) + 1, use_threads=False
        )
        table = pyarrow.csv.read_csv(
            pa.BufferReader(block), parse_options=marks(separator), **{**options, "read_options": reading}
        )
        yield from table.to_batches()


def _parser_options(schema: Mapping[str, Any], num_fields: int, places: Mapping[str, str]) -> dict[str, Any]:
    settings, numbers = schema["input"], _numbers_alone(schema)
    return {
        "read_options": pyarrow.csv.ReadOptions(
            column_names=[str(place) for place in range(num_fields)], block_size=BLOCK_BYTES
        ),
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types={place: pa.float64() if name in numbers else pa.string() for name, place in places.items()},
            include_columns=list(places.values()), strings_can_be_null=False,
            null_values=["", *settings["missing"]], decimal_point=settings["decimal"],
        ),
    }  # fmt: skip


def _numbers_alone(schema: Mapping[str, Any]) -> set[str]:
    texts = {each["column"] for each in schema["features"]}
    return {each["column"] for each in schema["dense"]} - texts


def _find(path: Path, header: Sequence[str], schema: Mapping[str, Any]) -> tuple[list[str], dict[str, str | None]]:
    """Wanted columns of a file, and those that are in the names of its folders alone (``day=1``)."""
    named = dict(part.split("=", 1) for part in path.parts[:-1] if "=" in part)
    names, folders = [], {}
    for name in wanted_names(schema):
        if header.count(name) > 1:
            raise InputError(f"{path} has the column {name!r} {header.count(name)} times; give each its own name")
        if name in header:
            names.append(name)
        elif name in named:
            value = unquote(named[name])
            folders[name] = None if value == "__HIVE_DEFAULT_PARTITION__" else value
        else:
            raise InputError(f"{path} has no column {name!r}; it has {', '.join(map(repr, header[:30]))}")
    return names, folders


def _with_folders(found: Columns, folders: Mapping[str, str | None], count: int) -> Columns:
    return {**found, **{name: pa.repeat(pa.scalar(value, pa.string()), count) for name, value in folders.items()}}
