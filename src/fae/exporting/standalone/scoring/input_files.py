"""Read a file of raw inputs as schema.json describes it: CSV, Parquet, JSON lines, or Criteo's text.

The suffix says Parquet (``.parquet``) and JSON lines (``.jsonl``); any other file is of the run's own format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from fae.exporting.standalone.scoring.input_text import InputError

_BLOCK_BYTES = 4 * 2**20
_BATCH_INPUTS = 32_768
Columns = dict[str, Any]
"""Raw columns of some inputs, by name: Arrow arrays ``[n]``."""


def read_columns(path: Path, schema: Mapping[str, Any]) -> Iterator[Columns]:
    """Yield the wanted columns of a file, some inputs at a time, in order.

    Raises
    ------
    InputError
        If it cannot be read, or lacks a column.
    """
    kind = schema["input"]["format"]
    suffix = Path(path.name.removesuffix(".gz").removesuffix(".zst")).suffix
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
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from None


def wanted_names(schema: Mapping[str, Any]) -> list[str]:
    """Names of the raw columns, each once, dense ones first."""
    found = [each["column"] for each in (*schema["dense"], *schema["features"])]
    return list(dict.fromkeys(found))


def columns_of_objects(objects: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]) -> Columns:
    """Raw columns of JSON objects, one an input; a key that is left out is a missing value.

    Raises
    ------
    InputError
        For a value that no column can hold.
    """
    lists = {each["column"] for each in schema["features"] if each["length"] > 1}
    texts = {each["column"] for each in schema["features"]}
    found: Columns = {}
    for name in wanted_names(schema):
        values = [each.get(name) for each in objects]
        convert = _json_list if name in lists else _json_text if name in texts else _json_number
        kind = pa.list_(pa.string()) if name in lists else pa.string() if name in texts else None
        if name in lists and all(isinstance(value, (str, type(None))) for value in values):
            convert, kind = _json_text, pa.string()  # text is split as the schema says
        converted = []
        for row, value in enumerate(values):
            try:
                converted.append(convert(value))
            except (InputError, ValueError, OverflowError) as error:
                raise InputError(f"input {row + 1}: {name!r} is {_brief(value)}, {error}") from None
        if kind is None:
            has_text = any(isinstance(value, str) for value in converted)
            kind = pa.string() if has_text else pa.float64()
            converted = [repr(each) if has_text and isinstance(each, float) else each for each in converted]
        try:
            found[name] = pa.array(converted, kind)
        except (pa.ArrowException, UnicodeEncodeError) as error:
            raise InputError(f"{name!r}: {' '.join(str(error).split())}") from None
    return found


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."


def _json_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and abs(value) <= 2.0**53 and value == int(value):
        return str(int(value))
    raise InputError("expected text or a whole number")


def _json_list(value: Any) -> list[str | None] | None:
    if value is None:
        return None
    if isinstance(value, list):
        return [_json_text(item) for item in value]
    if isinstance(value, str):
        raise InputError("expected a list, as other inputs have")
    return [_json_text(value)]


def _json_number(value: Any) -> float | str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return float(value)
    raise InputError("expected a number")


def _read_json_lines(path: Path, schema: Mapping[str, Any]) -> Iterator[Columns]:
    objects: list[dict[str, Any]] = []
    with pa.input_stream(str(path), compression="detect") as file:
        for number, line in enumerate(_lines(file), 1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except ValueError as error:
                raise InputError(f"{path}, line {number}: {error}") from None
            if not isinstance(found, dict):
                raise InputError(f"{path}, line {number}: expected a JSON object")
            objects.append(found)
            if len(objects) == _BATCH_INPUTS // 4:
                yield columns_of_objects(objects, schema)
                objects = []
    if objects:
        yield columns_of_objects(objects, schema)


def _lines(file: Any) -> Iterator[bytes]:
    left = b""
    while block := file.read(_BLOCK_BYTES):
        *whole, left = (left + block).split(b"\n")
        yield from whole
    if left:
        yield left


def _read_parquet(path: Path, schema: Mapping[str, Any]) -> Iterator[Columns]:
    with pq.ParquetFile(path) as file:
        names, folders = _find(path, file.schema_arrow.names, schema)
        for batch in file.iter_batches(batch_size=_BATCH_INPUTS, columns=names):
            found = {name: batch.column(name) for name in names}
            yield _with_folders(found, folders, batch.num_rows)


def _read_text(path: Path, schema: Mapping[str, Any]) -> Iterator[Columns]:
    settings = schema["input"]
    separator, quote = settings["separator"], settings["quote"]
    header = _first_line(path, separator, quote)
    named = list(settings["columns"])
    if named and len(header) == len(named) - 1:
        named.remove(settings["label"])
    fields = named or header
    names, folders = _find(path, fields, schema)
    numbers = _numbers_alone(schema)
    places = {name: str(fields.index(name)) for name in names}
    with pa.input_stream(str(path), compression="detect") as raw:
        file = raw if len(separator) == 1 else pa.BufferReader(_one_separator(raw.read(), settings))
        reader = pyarrow.csv.open_csv(
            file,
            read_options=pyarrow.csv.ReadOptions(
                column_names=[str(place) for place in range(len(fields))], skip_rows=0 if named else 1,
                block_size=_BLOCK_BYTES,
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=separator if len(separator) == 1 else "\x1f", quote_char=quote or False,
                escape_char=settings["escape"] or False, newlines_in_values=bool(quote),
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={places[n]: pa.float64() if n in numbers else pa.string() for n in names},
                include_columns=[places[name] for name in names], strings_can_be_null=False,
                null_values=["", *settings["missing"]], decimal_point=settings["decimal"],
            ),
        )  # fmt: skip
        for batch in reader:
            found = {name: batch.column(places[name]) for name in names}
            yield _with_folders(found, folders, batch.num_rows)


def _numbers_alone(schema: Mapping[str, Any]) -> set[str]:
    texts = {each["column"] for each in schema["features"]}
    return {each["column"] for each in schema["dense"]} - texts


def _first_line(path: Path, separator: str, quote: str) -> list[str]:
    with pa.input_stream(str(path), compression="detect") as file:
        text = file.read(_BLOCK_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    line = str(text.split(b"\n", 1)[0].rstrip(b"\r").decode())
    if not line:
        raise InputError(f"{path} holds no inputs")
    fields: list[str] = line.split(separator)
    if quote and quote in line:
        mark = re.escape(quote)
        pattern = (
            rf"(?:^|{re.escape(separator)})({mark}(?:[^{mark}]|{mark}{mark})*{mark}|.*?(?={re.escape(separator)}|$))"
        )
        fields = [match[1] for match in re.finditer(pattern, line)]
        fields = [f[1:-1].replace(quote * 2, quote) if f[:1] == quote and len(f) > 1 else f for f in fields]
    return fields


def _one_separator(text: bytes, settings: Mapping[str, Any]) -> bytes:
    """The text with a control character for a separator of several characters, outside quotes."""
    separator, quote = settings["separator"].encode(), re.escape(settings["quote"].encode())
    if b"\x1f" in text:
        raise InputError("a file with a separator of several characters must not hold the character 0x1f")
    any_separator = re.escape(separator)
    if not quote:
        return text.replace(separator, b"\x1f")
    quoted = (
        rb"(^|\n|" + any_separator + rb")(" + quote + rb"(?:[^" + quote + rb"]|" + quote * 2 + rb")*" + quote + rb")"
    )

    def replaced(found: re.Match[bytes]) -> bytes:
        if found[2] is None:
            return b"\x1f"
        return (b"\x1f" if found[1] == separator else found[1]) + found[2]

    return re.sub(quoted + rb"|" + any_separator, replaced, text)


def _find(path: Path, header: Sequence[str], schema: Mapping[str, Any]) -> tuple[list[str], dict[str, str | None]]:
    """Wanted columns of a file, and those that are in the names of its folders alone (``day=1``)."""
    named = dict(part.split("=", 1) for part in path.parts[:-1] if "=" in part)
    names, folders = [], {}
    for name in wanted_names(schema):
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
