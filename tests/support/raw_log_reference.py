"""What a raw log means, byte by byte in plain Python, written from docs/guide/ingest.md and not from the readers.

Slow and strict. `Refused` says that a log must be refused; `Unsure` that the documentation leaves it open, and then any
answer but a crash will do.
"""

from __future__ import annotations

import gzip
import io
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
    list_separator: str = "|"
    brackets: bool = False
    padding: str | None = None
    weight_separator: str = ""
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


def split_records(data: bytes, form: Form) -> list[tuple[list[bytes], list[int]]]:
    """Records of a CSV text, and which of their fields are in quotes; blank lines are left out."""
    separator, quote, escape = (text.encode() for text in (form.separator, form.quote, form.escape))
    records: list[tuple[list[bytes], list[int]]] = []
    fields: list[bytes] = []
    quoted: list[int] = []
    value, position, state = bytearray(), 0, "start"

    def end_record() -> None:
        nonlocal fields, quoted
        if fields or value or quoted or state == "closed":
            fields.append(bytes(value))
            records.append((fields, quoted))
        value.clear()
        fields, quoted = [], []

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
            quoted.append(len(fields))
            state, position = "quoted", position + 1
        else:
            value += char
            state, position = "field", position + 1
    if state == "quoted":
        raise Refused("an open quote")
    end_record()
    return records


def read_csv(data: bytes, form: Form) -> list[Input]:
    """Inputs of a CSV text."""
    refuse_other_kinds(data)
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
    for fields, quoted in records:
        if len(fields) != len(names):
            raise Refused(f"{len(fields)} fields")
        for place in quoted:
            _refuse_swallowed(fields, place, names, form)
        row = dict(zip(names, fields, strict=True))
        try:
            texts = {name: row[name].decode() for name in form.wanted}
        except UnicodeDecodeError as error:
            raise Refused("not UTF-8") from error
        inputs.append(text_input(texts, form))
    return inputs


def _refuse_swallowed(fields: list[bytes], place: int, names: list[str], form: Form) -> None:
    """Refuse a value in quotes whose lines read as inputs: a quote that opens nothing has swallowed them."""
    value = fields[place].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\n" not in value:
        return
    if form.quote.encode() in value or (form.escape and form.escape.encode() in value):
        raise Unsure("quotes in quotes around line ends")
    lines = [line.split(form.separator.encode()) for line in value.split(b"\n")]
    if len(lines[0]) != len(names) - place or len(lines[-1]) != place + 1:
        return
    if any(len(line) != len(names) for line in lines[1:-1]):
        return
    found = []
    for line, start in zip(lines, [place, *[0] * (len(lines) - 1)], strict=True):
        # The fields at both ends of the value are cut by the quotes.
        first, last = (start + 1 if line is lines[0] else 0), (place if line is lines[-1] else len(names))
        for at in range(first, last):
            if names[at] in (form.label, *form.dense):
                text = line[at - start].decode("utf-8", "replace")
                try:
                    label_of(text, form) if names[at] == form.label else number_of(text, form)
                    found.append(True)
                except Refused:
                    found.append(False)
    if found and all(found):
        raise Refused("lines in quotes that read as inputs")


def refuse_other_kinds(data: bytes) -> None:
    """Refuse what is no text."""
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
        found[name] = items_of(texts[name], form)
    return found


def items_of(text: str, form: Form) -> list[str]:
    """The items of a list column's text."""
    if text in form.missing or not text:
        return []
    if form.brackets:
        if re.fullmatch(r"\[([A-Za-z0-9:.]+(, [A-Za-z0-9:.]+)*)?\]", text) is None:
            if text[0] not in "[({" and not text[0].isspace():
                raise Refused(f"no list: {text!r}")
            raise Unsure("a list in another form")
        items = text[1:-1].split(", ")
    else:
        items = text.split(form.list_separator)
        if text[0] in "[({" and text[-1] in "])}":
            raise Unsure("brackets in a list")
    items = [item for item in items if item and item not in form.missing]
    if form.weight_separator:
        items = [without_weight(item, form) for item in items]
    return [item for item in items if item and item not in form.missing and item != form.padding]


def without_weight(item: str, form: Form) -> str:
    """The item without the weight behind its last separator."""
    name, separator, weight = item.rpartition(form.weight_separator)
    if not separator:
        return item
    if weight and (weight.strip() != weight or _NUMBER.fullmatch(weight) is None):
        if re.fullmatch(r"[+-]?(nan|inf|infinity)|\+[0-9.]+", weight.strip().lower()) or weight.strip() != weight:
            raise Unsure("a weight that is not finite, or has a sign or spaces")
        raise Refused(f"weight {weight!r}")
    return name


def list_text(items: list[str], form: Form) -> str:
    """A list as `items_of` reads it."""
    return f"[{', '.join(items)}]" if form.brackets else form.list_separator.join(items)


def label_of(text: str, form: Form) -> int:
    """0 or 1."""
    text = "" if text in form.missing else text
    if form.label_map:
        if text not in form.label_map:
            if text.strip(" \t") in form.label_map:
                raise Unsure("spaces around a label")
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
    refuse_other_kinds(data)
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


AVAZU = (
    "hour", "C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category",
    "device_id", "device_ip", "device_model", "device_type", "device_conn_type",
    "C14", "C15", "C16", "C17", "C18", "C19", "C20", "C21",
)  # fmt: skip


def read_avazu(data: bytes) -> list[Input]:
    """Inputs of Avazu's format: a CSV whose `hour` (YYMMDDHH) is the hour of the day."""
    inputs = read_csv(data, Form(label="click", plain=AVAZU, encoded=(), lists=(), dense=()))
    for found in inputs:
        if re.fullmatch("[0-9]{6}([01][0-9]|2[0-3])", found["hour"]) is None:
            raise Refused(f"hour {found['hour']!r}")
        found["hour"] = found["hour"][6:]
    return inputs


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
            text = list_text(value, form) if isinstance(value, list) else "" if value is None else str(value)
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
