"""Text as it may be shown on a terminal, and lines for people on stderr and in a log file, which never fail.

Names come with a log, a recipe or a folder. A control character in one of them could set the title of a terminal or
clear it, and a bidirectional one could show another name than the one that is there.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import sys
import time
from typing import IO

from fae.core.waits import await_ready

_WAIT_SECONDS = 1.0
"""How long a line for people waits for a stream that takes nothing at the moment."""


def printable(text: str) -> str:
    r"""One line of text with everything escaped that is not seen as itself.

    Line ends become spaces. Escaped are control characters (C1 as well), formatting ones (bidirectional, of no width),
    separators other than the space, halves of surrogate pairs, private and unassigned ones.

    >>> print(printable("a\x1b[2Jb\u202ec\nd\udcff"))
    a\x1b[2Jb\u202ec d\udcff
    """
    line = text if text.isprintable() else " ".join(text.splitlines())
    return line if line.isprintable() else "".join(map(_escaped, line))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def brief(value: object, *, most: int = 120) -> str:
    """``repr`` of a value from a recipe or a file, cut to `most` characters; also of values that have none.

    >>> brief("x" * 500, most=20)
    "'xxxxxxxx...xxxxxxx'"
    """
    try:
        text = repr(value)
    except RecursionError:
        return "a value that is nested too deeply to show"
    except ValueError:  # Python writes no more than 4,300 digits
        return "a number of thousands of digits"
    if len(text) <= most:
        return text
    end = (most - 3) // 2
    return f"{text[: most - 3 - end]}...{text[-end:]}"


class _Hearing:
    """Who hears lines for people, beside the stream of errors: one log file, or nobody."""

    log: int | None = None
    log_name = ""
    muted: IO[str] | None = None
    """The stream that hears errors alone; None where all is said."""


_hearing = _Hearing()


def open_log_file(path: str | None) -> None:
    """Copy all lines for people to the end of a file, with the time in front of each; None ends that.

    Raises
    ------
    OSError
        If the file cannot be opened.
    """
    if _hearing.log is not None:
        with contextlib.suppress(OSError):
            os.close(_hearing.log)
        _hearing.log = None
    if path is not None:
        # A pipe that nobody reads is refused, not waited for.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        _hearing.log, _hearing.log_name = os.open(path, flags, 0o666), path


def mute(quiet: bool) -> None:
    """Whether the present stream of errors hears errors alone, and not what `fae.core.progress.say` prints."""
    _hearing.muted = sys.stderr if quiet else None


def is_muted() -> bool:
    """Whether the stream of errors hears errors alone; one that was put in its place hears all."""
    return _hearing.muted is not None and sys.stderr is _hearing.muted


def write_log_line(text: str) -> None:
    """Write one line into the log file, where there is one."""
    if _hearing.log is None:
        return
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    try:
        rest = memoryview(f"{now} {printable(text)}\n".encode("utf-8", "backslashreplace"))
        while rest:
            rest = rest[os.write(_hearing.log, rest) :]
    except OSError as error:
        open_log_file(None)
        tell(f"fae: --log-file {_hearing.log_name} can no longer be written ({error.strerror}); nothing else is lost")


def tell(text: str) -> None:
    """Print one line for people, on stderr. A stream that is closed, full or read by nobody is no reason to fail."""
    write_log_line(text)
    with contextlib.suppress(OSError, ValueError):
        write_stream(sys.stderr, printable(text) + "\n", wait_seconds=_WAIT_SECONDS)


def write_stream(stream: IO[str] | None, text: str, *, wait_seconds: float | None = None) -> None:
    """Write text to a stream and flush it, also where it does not block and takes nothing at the moment.

    Parameters
    ----------
    stream
        None, a standard stream of a process that was started without it, takes nothing.
    wait_seconds
        How long to wait for it; None waits as long as it takes.

    Raises
    ------
    OSError
        If it cannot be written.
    ValueError
        If it is closed.
    """
    if stream is None:
        return
    # Others, such as the stream that keeps a progress bar below what is printed, are no files.
    if type(stream) is not io.TextIOWrapper:
        stream.write(text)
        stream.flush()
        return
    stream.flush()
    descriptor, end = stream.fileno(), time.monotonic() + (wait_seconds or 0.0)
    rest = memoryview(text.encode(stream.encoding or "utf-8", "backslashreplace"))
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            if wait_seconds is not None and time.monotonic() >= end:
                raise
            await_ready(descriptor, 0.1, to_write=True)
