"""Pieces of a text file, whole lines spread over it: of a plain file by seeking, of a packed one by reading through."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fae.ingest.config import LogConfig
from fae.ingest.readers.line_blocks import COMPRESSIONS, cannot_read, open_bytes
from fae.ingest.readers.record_blocks import TextSyntax

_FEWEST_BYTES = 2**14
"""A piece has a few lines at least."""
_HEAD_BYTES = 2**20
_UNPACKED = 8
"""A packed file is unpacked up to this many times the bytes that are kept of it."""

Trim = Callable[[bytes, bool, bool], bytes]
"""Cuts what belongs to no whole unit from a piece that does not begin (second argument) or end (third) the file."""


@dataclass(kw_only=True)
class TextPieces:
    """What was taken of one file.

    Attributes
    ----------
    total_bytes
        Bytes of its text, unpacked; of a packed file that was not read to its end an estimate.
    sizes
        Bytes and lines of each piece.
    reaches_end
        Whether pieces come from the whole file, not from its beginning alone.
    """

    total_bytes: int
    sizes: list[tuple[int, int]] = field(default_factory=list)
    reaches_end: bool = True

    @property
    def num_bytes(self) -> int:
        """Bytes of all pieces."""
        return sum(size for size, _ in self.sizes)

    def add(self, text: bytes, target: IO[bytes]) -> None:
        """Write a piece and take note of it."""
        if text:
            target.write(text)
            self.sizes.append((len(text), text.count(b"\n")))


def take_pieces(path: Path, target: IO[bytes], quota: int, number: int, trim: Trim, *, from_begin: bool) -> TextPieces:
    """Copy pieces of a file, the first of which begins it, with its header line.

    Parameters
    ----------
    quota
        About how many bytes of text to copy.
    number
        Pieces, at most.
    from_begin
        One piece, from the beginning: where records of several lines forbid to begin in the middle.

    Raises
    ------
    LogError
        If it cannot be read.
    """
    number = 1 if from_begin else max(2, min(number, quota // _FEWEST_BYTES))
    try:
        if path.suffix.lower() in COMPRESSIONS:
            return _packed(path, target, quota, number, trim)
        return _plain(path, target, quota, number, trim)
    except OSError as error:
        raise cannot_read(path, error) from error


def _plain(path: Path, target: IO[bytes], quota: int, number: int, trim: Trim) -> TextPieces:
    size = path.stat().st_size
    found, of_piece, end = TextPieces(total_bytes=size, reaches_end=number > 1), quota // number, 0
    with path.open("rb") as file:
        for piece in range(number):
            start = 0 if number == 1 else piece * (size - of_piece) // (number - 1)
            start = max(start, end)
            file.seek(start)
            text = file.read(of_piece)
            begins, ends = start == 0 or start == end, start + len(text) >= size
            if not ends:
                cut = text.rfind(b"\n") + 1
                text += b"" if cut else file.readline()
                text = text[:cut] if cut else text
            end = start + len(text)
            if not begins:
                text = text[text.find(b"\n") + 1 :] if b"\n" in text else b""
            if ends and text and not text.endswith(b"\n"):
                text += b"\n"
            found.add(trim(text, begins, ends), target)
    return found


def _packed(path: Path, target: IO[bytes], quota: int, number: int, trim: Trim) -> TextPieces:
    """Keep every block at first, every second one once there are too many, and so on: an even spread of any length."""
    of_block, most = max(1, quota // (2 * number)), _UNPACKED * quota
    if number == 1:
        of_block, most = quota, quota
    kept: dict[int, bytes] = {}
    step, read, ended = 1, 0, True
    stream, raw = open_bytes(path)
    with raw, stream:
        blocks = _blocks(stream, of_block)
        for index, (text, is_last) in enumerate(blocks):
            read += len(text)
            if index % step == 0:
                kept[index] = trim(text, index == 0, is_last)
            if len(kept) > 2 * number:
                step *= 2
                kept = {index: text for index, text in kept.items() if index % step == 0}
            if read >= most:
                ended = is_last
                break
        share = raw.tell() / max(1, path.stat().st_size)
    found = TextPieces(total_bytes=read if ended else int(read / max(share, 1e-9)), reaches_end=ended)
    for text in kept.values():
        found.add(text, target)
    return found


def _blocks(stream: IO[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    """Blocks of whole lines, and whether each is the last."""
    held = b""
    while True:
        more = stream.read(size)
        if not more:
            if held:
                yield held if held.endswith(b"\n") else held + b"\n", True
            return
        held += more
        cut = held.rfind(b"\n") + 1
        if cut:
            yield held[:cut], False
            held = held[cut:]


def spans_lines(config: LogConfig, path: Path) -> bool:
    """Whether the beginning of a CSV file has records of several lines, so that a line end may be inside of one."""
    if config.format != "csv":
        return False
    quote, escape = (ord(mark) if mark else -1 for mark in (config.quote, config.escape))
    syntax = TextSyntax(separator=config.separator.encode(), quote=quote, escape=escape)
    try:
        stream, raw = open_bytes(path)
        with raw, stream:
            head = bytes(stream.read(_HEAD_BYTES))
    except OSError as error:
        raise cannot_read(path, error) from error
    if not syntax.has_marks(head):
        return False
    records, end = syntax.scan(head, 0, len(head), ended=False)
    text = head[: int(end[0])].replace(b"\r\n", b"\n")
    return sum(1 for line in text.split(b"\n")[:-1] if line) > records


def trim_users(text: bytes, begins: bool, ends: bool) -> bytes:
    """Cut the lines of users who may have others before or behind a piece of Taobao's log.

    >>> trim_users(b"1,a\\n2,a\\n2,b\\n3,a\\n", False, False), trim_users(b"1,a\\n2,a\\n", True, False)
    (b'2,a\\n2,b\\n', b'1,a\\n')
    """
    lines = text.splitlines(keepends=True)
    first, last = (line.split(b",")[0] for line in (lines[0], lines[-1])) if lines else (b"", b"")
    if not begins:
        lines = list(itertools.dropwhile(lambda line: line.split(b",")[0] == first, lines))
    if not ends:
        while lines and lines[-1].split(b",")[0] == last:
            lines.pop()
    return b"".join(lines)


def keep_lines(text: bytes, begins: bool, ends: bool) -> bytes:
    """Cut nothing: every line is an input."""
    return text
