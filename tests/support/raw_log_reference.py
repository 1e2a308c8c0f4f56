"""What a raw log means, byte by byte in plain Python, written from docs/guide/ingest.md and not from the readers.

Slow and strict. `Refused` says that a log must be refused; `Unsure` that the documentation leaves it open, and then any
answer but a crash will do.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa


class Refused(Exception):
    """The log must be refused."""


class Unsure(Exception):
    """The documentation does not say what comes out."""


@dataclass(frozen=True)
class Form:
    """How a text log is written, and its columns.

    Attributes
    ----------
    columns
        Names of the fields where there is no header line.
    """

    separator: str = ","
    quote: str = '"'
    escape: str = ""
    decimal: str = "."
    columns: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    label: str = "y"
    label_map: dict[str, int] = field(default_factory=dict)
    label_threshold: float | None = None
    plain: tuple[str, ...] = ("user", "item")
    encoded: tuple[str, ...] = ("code",)
    lists: tuple[str, ...] = ("tags",)
    dense: tuple[str, ...] = ("x",)

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of all columns that are read."""
        return (self.label, *self.dense, *self.plain, *self.encoded, *self.lists)


Input = dict[str, Any]
"""label: 0 or 1; dense: float or None; plain: text; encoded: whole number or None; lists: list of texts."""


def decompressed(data: bytes, suffix: str) -> bytes:
    """The text of a file."""
    try:
        if suffix == ".gz":
            return gzip.decompress(data)
        if suffix == ".zst":
            result: bytes = pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()
            return result
    except (OSError, EOFError, pa.ArrowException, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise Refused(f"compression: {error}") from error
    if data[:2] == b"\x1f\x8b" or data[:4] == b"\x28\xb5\x2f\xfd":
        raise Refused("compressed, and not named so")
    return data


def split_records(data: bytes, form: Form) -> list[tuple[list[bytes], bool]]:
    """Records of a CSV text, and whether one has quotes; blank lines are left out."""
    separator, quote, escape = (text.encode() for text in (form.separator, form.quote, form.escape))
    records: list[tuple[list[bytes], bool]] = []
    fields: list[bytes] = []
    value, quoted, position, state = bytearray(), False, 0, "start"

    def end_record() -> None:
        nonlocal fields, quoted
        if fields or value or quoted or state == "closed":
            fields.append(bytes(value))
            records.append((fields, quoted))
        value.clear()
        fields, quoted = [], False

    while position < len(data):
        char = data[position : position + 1]
        if state == "quoted":
            if escape and char == escape:
                value += data[position + 1 : position + 2]
                position += 2
                continue
            if char == quote:
                if data[position + 1 : position + 2] == quote:
                    value += quote
                    position += 2
                    continue
                state = "closed"
            else:
                value += char
            position += 1
            continue
        if data.startswith(separator, position):
            fields.append(bytes(value))
            value.clear()
            state, position = "start", position + len(separator)
        elif char in (b"\n", b"\r"):
            end_record()
            state = "start"
            position += 2 if data[position : position + 2] == b"\r\n" else 1
        elif state == "closed":
            raise Refused("text behind a closing quote")
        elif escape and char == escape:
            value += data[position + 1 : position + 2]
            state, position = "field", position + 2
        elif quote and char == quote and state == "start":
            state, quoted, position = "quoted", True, position + 1
        else:
            value += char
            state, position = "field", position + 1
    if state == "quoted":
        raise Refused("an open quote")
    end_record()
    return records


def read_csv(data: bytes, form: Form) -> list[Input]:
    """Inputs of a CSV text."""
    _refuse_other_kinds(data)
    records = split_records(data.removeprefix(b"\xef\xbb\xbf"), form)
    if form.columns:
        names = list(form.columns)
    else:
        if not records:
            raise Refused("no text")
        try:
            names = [name.decode() for name in records.pop(0)[0]]
        except UnicodeDecodeError as error:
            raise Unsure("a header that is not UTF-8") from error
    for name in form.wanted:
        if names.count(name) != 1:
            raise Refused(f"column {name} is {names.count(name)} times there")
    if not records:
        raise Refused("no inputs")
    inputs = []
    for fields, _ in records:
        if len(fields) != len(names):
            raise Refused(f"{len(fields)} fields")
        row = dict(zip(names, fields, strict=True))
        try:
            texts = {name: row[name].decode() for name in form.wanted}
        except UnicodeDecodeError as error:
            raise Refused("not UTF-8") from error
        inputs.append(text_input(texts, form))
    return inputs


def _refuse_other_kinds(data: bytes) -> None:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff", b"PK", b"BZ") or data[:4] == b"PAR1" or data[:6] == b"\xfd7zXZ\x00":
        raise Refused("another kind of file")


def text_input(texts: dict[str, str], form: Form) -> Input:
    """One input of texts."""
    found: Input = {form.label: label_of(texts[form.label], form)}
    for name in form.dense:
        found[name] = number_of(texts[name], form)
    for name in form.plain:
        found[name] = "" if texts[name] in form.missing else texts[name]
    for name in form.encoded:
        text = "" if texts[name] in form.missing else texts[name]
        found[name] = whole_of(text)
    for name in form.lists:
        items = [] if texts[name] in form.missing else texts[name].split("|")
        found[name] = [item for item in items if item and item not in form.missing]
        if any(item.startswith("[") and texts[name].endswith("]") for item in items):
            raise Unsure("brackets in a list")
    return found


def label_of(text: str, form: Form) -> int:
    """0 or 1."""
    if form.label_map:
        if text not in form.label_map:
            raise Refused(f"label {text!r}")
        return form.label_map[text]
    if form.label_threshold is not None:
        number = number_of(text, form)
        if number is None:
            raise Refused("no label")
        return int(number >= form.label_threshold)
    if text in ("0", "1", "0.0", "1.0"):
        return int(text[0])
    if text.lower() in ("true", "false"):
        return int(text.lower() == "true")
    if text.strip() != text or text.strip().lower() in ("0", "1", "0.0", "1.0", "true", "false"):
        raise Unsure("spaces around a label")
    raise Refused(f"label {text!r}")


_NUMBER = re.compile(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def number_of(text: str, form: Form) -> float | None:
    """A dense value, None where it is missing."""
    if text == "" or text in form.missing:
        return None
    if text.strip(" \t") != text:
        raise Unsure("spaces around a number")
    if form.decimal == ",":
        if "." in text:
            raise Refused("a point where the decimal point is a comma")
        text = text.replace(",", ".")
    if _NUMBER.fullmatch(text) is None:
        if text.lower().lstrip("+-") in ("inf", "infinity", "nan"):
            raise Refused("not finite")
        if re.fullmatch(r"\+[0-9.]+", text):
            raise Unsure("a plus sign")
        raise Refused(f"number {text!r}")
    value = float(text)
    if not math.isfinite(value):
        raise Refused("not finite")
    if abs(value) > 3e38:
        raise Unsure("at the end of float32")
    return value


def whole_of(text: str) -> int | None:
    """An encoded id, None where it is missing."""
    if text == "":
        return None
    if re.fullmatch("[0-9]+", text) is None or not text.isascii():
        raise Refused(f"encoded {text!r}")
    if int(text) > 2**31 - 8 or len(text) > 18:
        raise Refused(f"encoded {text!r} is too large")
    if int(text) > 100_000:
        raise Unsure("a table of that many rows")
    if len(text) > 1 and text[0] == "0":
        raise Unsure("leading zeros")
    return int(text)


COUNTS, IDS = 13, 26


def read_criteo(data: bytes) -> list[Input]:
    """Inputs of Criteo's format: tab-separated, a label, 13 counts, 26 hex ids."""
    _refuse_other_kinds(data)
    inputs = []
    for raw in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        line = raw.removesuffix(b"\r")
        if not line:
            continue
        fields = line.split(b"\t")
        if len(fields) != 1 + COUNTS + IDS:
            raise Refused("fields")
        if fields[0] not in (b"0", b"1"):
            raise Refused("label")
        found: Input = {"label": int(fields[0])}
        for index, count in enumerate(fields[1 : 1 + COUNTS]):
            if count and re.fullmatch(rb"-?[0-9]{1,18}", count) is None:
                raise Refused(f"count {count!r}")
            found[f"I{index + 1}"] = float(count) if count else None
        for index, identity in enumerate(fields[1 + COUNTS :]):
            if re.fullmatch(rb"[0-9a-f]{0,8}", identity) is None:
                raise Refused(f"id {identity!r}")
            found[f"C{index + 1}"] = identity.decode()
        inputs.append(found)
    if not inputs:
        raise Refused("no inputs")
    return inputs


def read_jsonl(data: bytes, form: Form) -> list[Input]:
    """Inputs of one JSON object a line."""
    _refuse_other_kinds(data)
    inputs = []
    for raw in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        if not raw.strip(b" \t\r"):
            continue
        try:
            row = json.loads(raw.decode(), parse_float=_Decimal, parse_int=_Whole, parse_constant=_refuse)
        except UnicodeDecodeError as error:
            raise Refused("not UTF-8") from error
        except (ValueError, RecursionError) as error:
            raise Refused(f"not JSON: {error}") from error
        if not isinstance(row, dict):
            raise Refused("no object")
        inputs.append(_json_input(row, form))
    if not inputs:
        raise Refused("no inputs")
    return inputs


class _Decimal(str):
    """A JSON number with a point or an exponent, as written."""


class _Whole(str):
    """A JSON whole number, as written."""


def _refuse(name: str) -> None:
    raise Refused(name)


def _json_input(row: dict[str, Any], form: Form) -> Input:
    found: Input = {form.label: _json_label(row.get(form.label), form)}
    for name in form.dense:
        value = row.get(name)
        if isinstance(value, bool):
            raise Unsure("a boolean number")
        if isinstance(value, (dict, list)):
            raise Refused("nested number")
        found[name] = None if value is None else number_of(str(value), form)
    for name in form.plain:
        text = _json_text(row.get(name))
        found[name] = "" if text in form.missing else text
    for name in form.encoded:
        found[name] = whole_of(_json_text(row.get(name)))
    for name in form.lists:
        value = row.get(name)
        if isinstance(value, list):
            items = [_json_text(item) for item in value]
        else:
            items = _json_text(value).split("|")
        found[name] = [item for item in items if item and item not in form.missing]
    return found


def _json_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (dict, list)):
        raise Refused("nested value")
    if isinstance(value, (_Decimal, _Whole)):
        number = float(value)
        if isinstance(value, _Whole):
            if str(value) == "-0" or abs(int(value)) >= 2**63:
                raise Unsure("a whole number that JSON readers differ in")
            return str(int(value))
        if not math.isfinite(number) or number != math.floor(number) or abs(number) > 2**53:
            raise Refused(f"a fraction as an id: {value}")
        return str(int(number))
    text: str = value
    if re.search("[\ud800-\udfff]", text):
        raise Refused("a lone surrogate")
    return text


def _json_label(value: Any, form: Form) -> int:
    if isinstance(value, (dict, list)):
        raise Refused("nested label")
    if value is None:
        if form.label_map and "" in form.label_map:
            return form.label_map[""]
        raise Refused("no label")
    if isinstance(value, bool):
        return label_of(str(value).lower(), form)
    if isinstance(value, (_Decimal, _Whole)) and not form.label_map and form.label_threshold is None:
        if float(value) in (0.0, 1.0):
            if str(value) not in ("0", "1", "0.0", "1.0"):
                raise Unsure("a label of another form")
            return int(float(value))
        raise Refused(f"label {value}")
    return label_of(str(value), form)


def as_text_log(inputs: list[Input], form: Form, *, header: bool = True) -> bytes:
    """The inputs as CSV text; quotes only where they are needed."""
    out = io.StringIO()
    names = form.wanted
    if header:
        out.write(form.separator.join(names) + "\n")
    for found in inputs:
        fields = []
        for name in names:
            value = found[name]
            text = "|".join(value) if isinstance(value, list) else "" if value is None else str(value)
            if form.quote and any(mark in text for mark in (form.separator, form.quote, "\n", "\r")):
                text = form.quote + text.replace(form.quote, 2 * form.quote) + form.quote
            fields.append(text)
        out.write(form.separator.join(fields) + "\n")
    return out.getvalue().encode()


def transformed(values: list[float | None]) -> np.ndarray:
    """log1p of counts as float32."""
    wide = np.log1p(np.maximum(np.array([value or 0.0 for value in values], np.float64), 0.0))
    result: np.ndarray = wide.astype(np.float32)
    return result
