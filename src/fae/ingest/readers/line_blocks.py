"""Read text files as blocks of whole lines, for loops that parse bytes themselves; plain, gz or zst.

Every byte of the text is in one block, in order. A block ends with a line end; one is added behind the last line if it
has none. Memory is two blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fae.core.errors import LogError
from fae.core.files import PROCESS_FAULTS, read_advice
from fae.core.units import format_bytes
from fae.ingest.raw_files.remote_files import open_source
from fae.ingest.readers.span import WHOLE_FILE, Span, SpanEnds

PADDING = 16
"""Bytes behind a block that may be read, so that a loop can look ahead of the field it is in."""
_LOOK_BYTES = 1 << 16
LINE_END = re.compile(rb"\n")
"""What ends a line of the formats that are lines of text."""
BOM = b"\xef\xbb\xbf"
"""The mark that may begin a text in UTF-8, and is no part of it."""


def line_blocks(
    path: Path, block_bytes: int, span: Span = WHOLE_FILE, ends: SpanEnds | None = None
) -> Iterator[tuple[npt.NDArray[np.uint8], int, int, int]]:
    """Blocks as ``(buffer, begin, stop, raw_bytes)``; the text is ``buffer[begin:stop]``, valid until the next block.

    `raw_bytes` are the bytes of the file, as it is on disk, that were read since the last block.

    Parameters
    ----------
    span
        Which lines; of a packed file, all.
    ends
        Is told where the lines of the span begin and end.

    Raises
    ------
    LogError
        If the file is damaged, or has a line longer than `block_bytes`, its end included.
    """
    num_lines = span.first_line - 1
    ends = SpanEnds() if ends is None else ends
    try:
        stream, raw = open_bytes(path)
        with raw, stream:
            position = first_line_begin(raw, span, LINE_END)
            ends.begin = ends.stop = position
            if span.end is not None and position >= span.end:
                return
            raw.seek(position)
            bytes_before, first = position, position == 0
            buffer = np.empty(2 * block_bytes + PADDING, np.uint8)
            view, held, ended = memoryview(buffer.data), 0, False
            while not ended:
                num_read = _fill(stream, view[held : held + block_bytes])
                ended = num_read < block_bytes
                held += num_read
                begin = len(BOM) if first and bytes(view[: len(BOM)]) == BOM else 0
                if ended and held > begin and buffer[held - 1] != ord("\n"):
                    buffer[held] = ord("\n")
                    held += 1
                stop = _last_line_end(buffer[:held])
                # Whether a line is too long may not depend on where a block begins.
                is_long = held > block_bytes and _last_line_end(buffer[:block_bytes]) == 0
                if is_long or (stop == 0 and held >= block_bytes):
                    longest = format_bytes(block_bytes)
                    raise LogError(f"{path}, line {num_lines + 1}: it is longer than {longest}; fix the file")
                is_last = span.end is not None and position + stop >= span.end
                if span.end is not None and position + stop > span.end:
                    inside = max(span.end - position - 1, 0)
                    stop = inside + int(np.argmax(buffer[inside:stop] == ord("\n"))) + 1
                if stop > begin:
                    bytes_read = raw.tell() if span.end is None else position + stop
                    yield buffer, begin, stop, bytes_read - bytes_before
                    bytes_before, first = bytes_read, False
                    num_lines += int(np.count_nonzero(buffer[begin:stop] == ord("\n")))
                buffer[: held - stop] = buffer[stop:held].copy()
                held -= stop
                position += stop
                ends.stop = position
                if is_last:
                    return
    except OSError as error:
        raise cut_short(path, error) from error


def first_line_begin(raw: Any, span: Span, line_end: re.Pattern[bytes]) -> int:
    """Where the first record of a span begins: behind the first line end from the byte before it on.

    At the end of the span, or behind it, where none does.
    """
    if span.is_exact:
        return span.begin
    at, end = span.begin - 1, 1 << 62 if span.end is None else span.end
    raw.seek(at)
    while at < end:
        text = bytes(raw.read(_LOOK_BYTES))
        if not text:
            break
        if text.endswith(b"\r"):
            text += bytes(raw.read(1))
        if found := line_end.search(text):
            return at + found.end()
        at += len(text)
    return max(at, span.begin)


def _fill(stream: Any, view: memoryview) -> int:
    """Read until `view` is full or the file ends; return the bytes read."""
    filled = 0
    while filled < len(view):
        count = stream.readinto(view[filled:])
        if not count:
            break
        filled += count
    return filled


def _last_line_end(data: npt.NDArray[np.uint8]) -> int:
    """Position behind the last line end, 0 if there is none."""
    for stop in range(len(data), 0, -4096):
        places = np.flatnonzero(data[max(stop - 4096, 0) : stop] == ord("\n"))
        if len(places):
            return max(stop - 4096, 0) + int(places[-1]) + 1
    return 0


def faulty_line(buffer: npt.NDArray[np.uint8], begin: int, stop: int) -> bytes:
    """The line that begins at `begin`, without its end."""
    return bytes(buffer[begin:stop]).split(b"\n", 1)[0].removesuffix(b"\r")


def shown(field: bytes, longest: int = 40) -> str:
    """A field in quotes for a message, shortened if it is long; what is not ASCII is escaped, so that it is seen."""
    text = field.decode("utf-8", "surrogateescape")
    # Bytes that are not UTF-8 are halves of surrogate pairs then.
    return ascii(text if len(text) <= longest else text[:longest] + "...").replace("\\udc", "\\x")


COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""From the suffix of a file's name to what its bytes are unpacked with."""


def cut_short(path: Path, error: OSError) -> LogError:
    """The error for a file that ends too early or cannot be read."""
    if isinstance(error, (PermissionError, FileNotFoundError, IsADirectoryError)) or error.errno in PROCESS_FAULTS:
        return cannot_read(path, error)
    return LogError(
        f"{path} cannot be read to its end ({error.strerror or error}): it is cut short or damaged; copy it again"
    )


def cannot_read(path: Path, error: OSError) -> LogError:
    """The error for a file that cannot be opened."""
    return LogError(f"cannot read {path}: {error.strerror or error}; {read_advice(error)}")


def open_raw(path: Path) -> Any:
    """Open a file as it is, wherever it is."""
    return open_source(path)[0]


def open_bytes(path: Path) -> tuple[Any, Any]:
    """Open a file: the stream of decompressed bytes, and the raw file whose ``tell()`` is how far it was read."""
    raw = open_raw(path)
    compression = COMPRESSIONS.get(path.suffix.lower())
    return (pa.CompressedInputStream(raw, compression) if compression else raw), raw
