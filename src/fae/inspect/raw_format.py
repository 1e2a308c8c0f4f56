"""Recognise the format of a raw file from its beginning: Parquet, JSON lines, a public log, or how CSV is written."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fae.core.errors import LogError
from fae.ingest.formats import KNOWN_LOGS
from fae.ingest.readers.chunk import NoInputsError
from fae.ingest.readers.file_kinds import check_kind
from fae.ingest.readers.line_blocks import BOM, COMPRESSIONS, cannot_read, cut_short, open_bytes, open_raw
from fae.ingest.readers.text_faults import is_number

HEAD_BYTES = 1 << 20
"""Bytes of text that decide how it is written."""
_HEAD_RECORDS = 500
SEPARATORS = (",", "\t", ";", "|", "\x01", "||", "::", "^")
_BEHAVIOURS = {"pv", "buy", "cart", "fav"}
_CRITEO_FIELDS = 40
_TAOBAO = ("user", "item", "category", "behaviour", "time")


_SPARSE = (
    ("LIBSVM", re.compile(r"[+-]?[0-9.]+( +(qid:)?[0-9]+:[+-]?[0-9.]+(e[+-]?[0-9]+)?)+ *(#.*)?$")),
    ("Vowpal Wabbit", re.compile(r"[+-]?[0-9.]+( +[0-9.]+)?( +'?[^ |]+)? *\|[A-Za-z_]\w*(:[0-9.]+)? ")),
)


@dataclass(frozen=True, kw_only=True)
class RawFormat:
    """How a raw file is written.

    Attributes
    ----------
    name
        A ``[log] format``.
    columns
        Names of the columns, in the order of the file; of JSON lines, none yet.
    has_header
        Whether line 1 names them.
    separator, quote
        As in ``[log]``; of CSV.
    compression
        ``gz``, ``zst`` or nothing.
    """

    name: str
    columns: tuple[str, ...]
    has_header: bool = False
    separator: str = ","
    quote: str = '"'
    compression: str = ""

    def describe(self) -> str:
        """Format, separator, header and packing, in words."""
        words = [self.name]
        if self.name == "csv":
            shown = {"\t": "tab", ",": "comma", " ": "space"}.get(self.separator, ascii(self.separator))
            words.append(f"separator {shown}")
            words.append("a header line" if self.has_header else "no header line")
            if not self.quote:
                words.append("quotes are text")
        if self.compression:
            words.append(f"packed ({self.compression})")
        return ", ".join(words)


def recognise(path: Path) -> RawFormat:
    """The format of a file.

    Raises
    ------
    LogError
        If it is empty, an archive, a spreadsheet, no UTF-8, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise cannot_read(path, error) from error
    if start == b"PAR1" or (path.suffix.lower() in (".parquet", ".pq") and start):
        check_kind(path, "parquet")
        return RawFormat(name="parquet", columns=_schema_names(path))
    head, whole = _head(path)
    text = _decoded(path, head)
    compression = path.suffix.lower()[1:] if path.suffix.lower() in COMPRESSIONS else ""
    if text.lstrip().startswith(("{", "[")) and _is_json(text):
        check_kind(path, "jsonl")
        return RawFormat(name="jsonl", columns=(), compression=compression)
    check_kind(path, "csv")
    if "\r" in text.rstrip("\r") and "\n" not in text:
        raise LogError(f"{path}: its lines end in CR alone, as of old Macs; convert them (tr '\\r' '\\n' < IN > OUT)")
    _check_sparse(path, text)
    lines = text.splitlines() if whole else text[: text.rfind("\n") + 1].splitlines()
    lines = [line for line in lines if line.strip()]
    if not lines:
        if whole:
            raise NoInputsError(f"{path} holds no lines; copy it again, or name another file")
        raise LogError(f"{path}, line 1: it is longer than 1 MiB, so this is no text of lines; name the log itself")
    return _of_text(text if whole else text[: text.rfind("\n") + 1], lines, compression)


def _check_sparse(path: Path, text: str) -> None:
    """Refuse LIBSVM and Vowpal Wabbit text, whose fields have no columns."""
    lines = [line for line in text[: text.rfind("\n") + 1].splitlines()[:20] if line.strip()]
    for name, pattern in _SPARSE:
        if lines and all(pattern.match(line) for line in lines):
            raise LogError(f"{path} is text of {name}, which has no columns; write CSV, a column for each feature")


def _schema_names(path: Path) -> tuple[str, ...]:
    try:
        with open_raw(path) as raw:
            return tuple(pq.read_schema(raw).names)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise LogError(f"{path} cannot be read as Parquet ({reason}); write it again") from error


def _head(path: Path) -> tuple[bytes, bool]:
    """The first bytes of the text, and whether they are all of it."""
    try:
        stream, raw = open_bytes(path)
        with raw, stream:
            parts, size = [], 0
            while size <= HEAD_BYTES and (part := stream.read(HEAD_BYTES + 1 - size)):
                parts.append(part)
                size += len(part)
    except OSError as error:
        check_kind(path, "csv")  # says it better where the name does not tell the packing
        raise cut_short(path, error) from error
    head = b"".join(parts).removeprefix(BOM)
    return head[:HEAD_BYTES], size <= HEAD_BYTES


def _decoded(path: Path, head: bytes) -> str:
    try:
        return head.decode()
    except UnicodeDecodeError as error:
        if error.start >= len(head) - 4:
            return head[: error.start].decode()
        check_kind(path, "csv")
        line = head[: error.start].count(b"\n") + 1
        raise LogError(f"{path}, line {line}: it is not UTF-8; convert the file (iconv does it)") from None


def _is_json(text: str) -> bool:
    line = text.lstrip().split("\n", 1)[0]
    try:
        return isinstance(json.loads(line), (dict, list))
    except (ValueError, RecursionError):
        return line.startswith(('{"', '[{"')) or line.strip() in ("{", "[")


def _of_text(text: str, lines: Sequence[str], compression: str) -> RawFormat:
    if _is_criteo(lines):
        names = ("label", *KNOWN_LOGS["criteo"].dense, *KNOWN_LOGS["criteo"].categorical)
        return RawFormat(name="criteo", columns=names, separator="\t", quote="", compression=compression)
    if _is_taobao(lines):
        return RawFormat(name="taobao", columns=_TAOBAO, compression=compression)
    separator = _separator(text)
    quote = _quote(text, separator)
    records = list(itertools.islice(split_records(text, separator, quote), _HEAD_RECORDS))
    has_header = _has_header(records)
    first = records[0]
    columns = tuple(first) if has_header else tuple(f"c{number}" for number in range(1, len(first) + 1))
    avazu = KNOWN_LOGS["avazu"]
    if separator == "," and has_header and {*columns} >= {*avazu.categorical, str(avazu.label)}:
        return RawFormat(name="avazu", columns=columns, has_header=True, compression=compression)
    return RawFormat(
        name="csv", columns=columns, has_header=has_header, separator=separator, quote=quote, compression=compression
    )


def _is_criteo(lines: Sequence[str]) -> bool:
    fields = [line.split("\t") for line in lines[:20]]
    return all(
        len(each) == _CRITEO_FIELDS and each[0] in ("0", "1")
        and not any(word.strip("0123456789abcdef") for word in each[14:])
        and all(word.removeprefix("-").isdigit() for word in each[1:14] if word)
        for each in fields
    )  # fmt: skip


def _is_taobao(lines: Sequence[str]) -> bool:
    fields = [line.split(",") for line in lines[:20]]
    return all(len(each) == len(_TAOBAO) and each[3] in _BEHAVIOURS and each[4].isdigit() for each in fields)


def split_records(text: str, separator: str, quote: str) -> list[list[str]]:
    """The first records of CSV text as lists of fields, without blank lines."""
    if len(separator) > 1:
        return [line.split(separator) for line in text.splitlines()[:_HEAD_RECORDS] if line]
    options = {"quotechar": quote} if quote else {"quoting": csv.QUOTE_NONE}
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, **options)
    found = []
    try:
        for record in reader:
            if record:
                found.append(record)
            if len(found) >= _HEAD_RECORDS:
                break
    except csv.Error:  # a field of more than 131,072 characters
        pass
    return found


def _separator(text: str) -> str:
    """The text that cuts most records into one number of fields, and into most fields."""
    best, score = ",", (0.0, 0)
    for separator in SEPARATORS:
        records = split_records(text, separator, '"')
        if not records:
            continue
        number, count = Counter(len(record) for record in records).most_common(1)[0]
        if number == 1:
            continue
        share = count / len(records)
        # One line in ten may be odd; beyond that, fields decide.
        if (rank := (1.0 if share > 0.9 else share, number)) > score:
            best, score = separator, rank
    if score == (0.0, 0):  # no other separator cuts anything
        records = split_records(text, " ", '"')
        number, count = Counter(map(len, records)).most_common(1)[0] if records else (1, 0)
        if number > 1 and count == len(records):
            return " "
    return best


def _quote(text: str, separator: str) -> str:
    """The quote around values: ``"`` unless that is text, or values have ``'`` around them."""
    if len(separator) > 1:
        return '"' if '"' not in text else ""
    plain = split_records(text, separator, "")
    quoted = split_records(text, separator, '"')
    if '"' in text and len(_usual(quoted)) < 0.9 * len(quoted) and len(_usual(plain)) > 0.95 * len(plain):
        return ""
    for column in zip(*_usual(plain)[1:], strict=False):
        if len(column) > 1 and all(len(field) > 1 and field[0] == field[-1] == "'" for field in column):
            return "'"
    return '"'


def _usual(records: Sequence[list[str]]) -> list[list[str]]:
    """The records with the most common number of fields."""
    if not records:
        return []
    number = Counter(map(len, records)).most_common(1)[0][0]
    return [record for record in records if len(record) == number]


def _has_header(records: Sequence[list[str]]) -> bool:
    """Whether the first record names columns: it has no number, and is unlike what follows."""
    first, body = records[0], [record for record in records[1:] if len(record) == len(records[0])]
    named = [field for field in first if field]
    if not named or any(is_number(field) for field in named):
        return False
    if not body:
        return True
    for index, name in enumerate(first):
        values = [record[index] for record in body if record[index]]
        if values and sum(map(is_number, values)) > 0.5 * len(values):
            return True
        if name and name in values:
            return False
    if len(set(named)) < len(named):
        return False
    return len(named) >= len(first) - 1
