"""Standard streams of the command line that are closed, full or read by nobody: they cost no result."""

from __future__ import annotations

import contextlib
import errno
import os
import sys

from fae.core.printable import tell, write_stream


def reserve_descriptors() -> None:
    """Give 0, 1 and 2 to the null device where they are closed: else a file of the log or the run would become one.

    What a library prints on its own goes to these numbers, into whatever file has them.
    """
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):
            try:
                os.fstat(descriptor)
            except OSError:
                os.open(os.devnull, os.O_RDWR)


def write_stdout(text: str, what: str) -> int:
    """Write a result to stdout and return the exit status: 0, or 2 after a line that says why it is not there.

    A reader that has left, such as ``head``, has what it wanted.

    Parameters
    ----------
    what
        Its name, in words: "the result".
    """
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "it is closed")
        write_stream(sys.stdout, text)
    except BrokenPipeError:
        _discard_stdout()
        return 0
    except (OSError, ValueError) as error:
        _discard_stdout()
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        again = "what was made is kept, and the same command prints it" if what == "the result" else "run it again"
        tell(f"fae: cannot write {what} to standard output: {why}; make it writable: {again}")
        return 2
    return 0


def _discard_stdout() -> None:
    """Let what is still in the stream's buffer go to the null device, for Python would complain at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, sys.stdout.fileno())
        finally:
            os.close(null)
