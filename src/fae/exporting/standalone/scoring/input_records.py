"""Records of CSV text as schema.json says: the first one, and text that the parser does not take as it is.

A quote counts where a field begins, two of them inside a quoted value are one, the character behind an escape is meant
as it is, and records end in LF, CR LF or CR outside quotes; blank lines are none.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from fae.exporting.standalone.scoring.input_text import InputError

BLOCK_BYTES = 4 * 2**20
_BOM = b"\xef\xbb\xbf"
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_FREE = tuple(bytes([byte]) for byte in (31, 30, 29, 28, *range(1, 28), 127) if byte not in b"\t\n\r")
"""Bytes that may take the place of a separator, where a text does not have them."""


def open_unpacked(path: Path) -> Any:
    """The bytes of a file, unpacked as its suffix says; a name may hold bytes that are no UTF-8."""
    raw = pa.OSFile(os.fsencode(path))
    compression = _COMPRESSIONS.get(path.suffix.lower())
    return pa.CompressedInputStream(raw, compression) if compression else raw


class RecordText:
    """Text of one file, read from its beginning.

    Parameters
    ----------
    file
        Gives bytes.
    settings
        `schema.input`.
    """

    def __init__(self, file: Any, settings: Mapping[str, Any]) -> None:
        self._file, self._separator = file, settings["separator"].encode()
        marks = {name: re.escape(settings[name].encode()) for name in ("quote", "escape")}
        self._quote, self._escape = settings["quote"].encode(), settings["escape"].encode()
        self._words = {
            word.encode() for word in settings["missing"] if settings["escape"] and settings["escape"] in word
        }
        separator, quote, escape = re.escape(self._separator), marks["quote"], marks["escape"]
        escaped, other = (escape + rb".|", escape) if escape else (b"", b"")
        doubled = rb"|" + quote * 2 if quote else b""
        quoted = rb"(" + quote + rb"(?:" + escaped + rb"[^" + quote + other + rb"]" + doubled + rb")*" + quote + rb")?"
        bare = rb"((?:" + escaped + rb"(?!" + separator + rb")[^\r\n" + other + rb"])*)"
        end = rb"(" + separator + rb"|\r\n|\r|\n)"
        self._field = re.compile(rb"(?s)" + (quoted if quote else rb"()") + bare + end)
        self._text = file.read(BLOCK_BYTES).removeprefix(_BOM).lstrip(b"\r\n")

    @property
    def is_plain(self) -> bool:
        """Whether the parser takes the text as it is: it knows separators of one byte and no escapes in words."""
        return len(self._separator) == 1 and not self._words

    def first_record(self) -> tuple[list[str], int]:
        """Fields of the first record, and the byte behind it; both are empty where there is none."""
        if not self._text:
            return [], 0
        fields, at, text = [], 0, self._text if self._text.endswith((b"\n", b"\r")) else self._text + b"\n"
        while match := self._field.match(text, at):
            fields.append(self._value(match[1], match[2]).decode("utf-8", "surrogateescape"))
            at = match.end()
            if match[3] in (b"\n", b"\r", b"\r\n"):
                return fields, min(at, len(self._text))
        raise InputError("its first line has a quote that nothing closes, or is longer than 4 MiB")

    def _value(self, quoted: bytes | None, bare: bytes) -> bytes:
        inner = (quoted or b"")[1:-1].replace(self._quote * 2, self._quote) if quoted else b""
        found = inner + bare
        return re.sub(rb"(?s)" + re.escape(self._escape) + rb"(.)", rb"\1", found) if self._escape else found

    def skip(self, size: int) -> None:
        """Leave out the first bytes."""
        self._text = self._text[size:]

    def as_file(self) -> Any:
        """What is left, as a file."""
        return pa.PythonFile(_Rest(self._text, self._file), mode="r")

    def plain_blocks(self) -> Iterator[tuple[bytes, str]]:
        """What is left, in blocks of whole records, each with a separator of one byte and that separator.

        Words for missing values that hold an escape become empty fields, where they are all of an unquoted one.
        """
        text, ended = self._text, False
        while text or not ended:
            free = self._free_byte(text)
            plain, left = self._rewritten(text, free, ended=ended)
            if plain.strip(b"\r\n"):
                yield plain, free.decode()
            if ended:
                return
            block = self._file.read(BLOCK_BYTES)
            text, ended = left + block, not block

    def _free_byte(self, text: bytes) -> bytes:
        marks = (self._quote, self._escape)
        free: bytes | None = next((byte for byte in _FREE if byte not in text and byte not in marks), None)
        if len(self._separator) == 1:
            found: bytes = self._separator
            return found
        if free is None:
            raise InputError("it holds every control character, and a separator of several needs one that is free")
        return free

    def _rewritten(self, text: bytes, free: bytes, *, ended: bool) -> tuple[bytes, bytes]:
        """Whole records with other separators, and what is left of the text; all of it at the end."""
        has_marks = any(mark and mark in text for mark in (self._quote, self._escape))
        if not has_marks:
            stop = len(text) if ended else max(text.rfind(b"\n"), text.rfind(b"\r", 0, len(text) - 1)) + 1
            return text[:stop].replace(self._separator, free), text[stop:]
        found, at, whole, records = [], 0, 0, 0
        text = text + b"\n" if ended and not text.endswith((b"\n", b"\r")) else text
        while match := self._field.match(text, at):
            if match.end() == len(text) and match[3] == b"\r" and not ended:
                break
            is_word = not match[1] and match[2] in self._words
            found.append(b"" if is_word else (match[1] or b"") + match[2])
            at = match.end()
            found.append(free if match[3] == self._separator else match[3])
            if match[3] != self._separator:
                whole, records = at, len(found)
        if ended:
            return b"".join(found) + text[at:], b""
        return b"".join(found[:records]), text[whole:]


class _Rest(io.RawIOBase):
    """Some bytes, and then those of a file."""

    def __init__(self, first: bytes, file: Any) -> None:
        self._first, self._file = memoryview(first), file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not len(self._first):
            found: bytes = self._file.read(size if size >= 0 else None)
            return found
        size = len(self._first) if size < 0 else size
        head, self._first = bytes(self._first[:size]), self._first[size:]
        return head
