"""Read text files as blocks of whole lines, for loops that parse bytes themselves; plain, gz or zst.

Every byte of the text is in one block, in order. A block ends with a line end; one is added behind the last line if it
has none. Memory is two blocks.
"""

from __future__ import annotations

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

PADDING = 16
"""Bytes behind a block that may be read, so that a loop can look ahead of the field it is in."""
BOM = b"\xef\xbb\xbf"
"""The mark that may begin a text in UTF-8, and is no part of it."""


def line_blocks(path: Path, block_bytes: int) -> Iterator[tuple[npt.NDArray[np.uint8], int, int, int]]:
    """Blocks as ``(buffer, begin, stop, raw_bytes)``; the text is ``buffer[begin:stop]``, valid until the next block.

    `raw_bytes` are the bytes of the file, as it is on disk, that were read since the last block.

    Raises
    ------
    LogError
        If the file is damaged, or has a line longer than `block_bytes`.
    """
    bytes_before, first, num_lines = 0, True, 0
    try:
        stream, raw = open_bytes(path)
        with raw, stream:
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
                if stop == 0 and held >= block_bytes:
                    longest = format_bytes(block_bytes)
                    raise LogError(f"{path}, line {num_lines + 1}: it is longer than {longest}; fix the file")
                if stop > begin:
                    bytes_read = raw.tell()
                    yield buffer, begin, stop, bytes_read - bytes_before
                    bytes_before, first = bytes_read, False
                    num_lines += int(np.count_nonzero(buffer[begin:stop] == ord("\n")))
                buffer[: held - stop] = buffer[stop:held].copy()
                held -= stop
    except OSError as error:
        raise cut_short(path, error) from error


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
