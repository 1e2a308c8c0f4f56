"""Read a small text file, a recipe or a record, whatever the locale and whatever the name leads to."""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path

from fae.core.waits import await_ready

_MOST_BYTES = 64 * 2**20
"""More is no such text: the log itself, or a device without an end."""
_PIPE_SECONDS = 10.0
"""How long to wait for the first byte of a pipe, which a shell may make of a command: ``<(command)``."""
_MARKS = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16",
          codecs.BOM_UTF16_BE: "UTF-16"}  # fmt: skip


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without its byte-order mark; a pipe is read to its end.

    Raises
    ------
    FileNotFoundError
        If it does not exist.
    OSError
        If it cannot be read.
    ValueError
        If it is not UTF-8, a folder, a device, a pipe that nobody writes to, or too large.
    """
    data = _read_bytes(path)
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            raise ValueError(f"it is {name} and must be UTF-8; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8 (byte 0x{data[error.start]:02x}); save it as UTF-8") from None


def reason_of(error: OSError | ValueError) -> str:
    """What an error of `read_text` says, without the name of the file."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _read_bytes(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe without a writer would not be opened at all
    with open(descriptor, "rb") as file:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise ValueError("it is a folder")
        if stat.S_ISFIFO(kind):
            if not await_ready(descriptor, _PIPE_SECONDS):
                raise ValueError("it is a pipe that nobody writes to")
            os.set_blocking(descriptor, True)
        elif not stat.S_ISREG(kind) and not os.isatty(descriptor):
            raise ValueError("it is no file")
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES // 2**20} MiB, which none has; is it the right file?")
    return data
