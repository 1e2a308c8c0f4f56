"""Faults of the machine that no stage has named: memory, open files, threads, a disk. One line each, no traceback."""

from __future__ import annotations

import errno
import os

from fae.core.files import MACHINE_FAULTS, PROCESS_FAULTS, reason
from fae.core.host_memory import available_bytes
from fae.core.units import format_bytes

_OTHER_FAULTS = {
    errno.ELOOP: "its links lead in a circle; correct them",
    errno.ENOTDIR: "correct the name: a part of it is a file and no folder",
    errno.EISDIR: "correct the name: it is a folder",
    errno.ESTALE: "check the network disk",
    errno.ETIMEDOUT: "check the network disk",
    errno.ENXIO: "check the device",
    errno.ENODEV: "check the device",
    errno.EAGAIN: "raise the limit on processes and threads (ulimit -u)",
}
_ADVICE = MACHINE_FAULTS | PROCESS_FAULTS | _OTHER_FAULTS
"""What the user can do about each error of the system."""
_NO_MEMORY = ("allocate memory", "out of memory", "not enough memory", "failed to map segment", "std::bad_alloc")
"""What libraries say in errors of other kinds where they get no memory."""


def machine_fault(error: BaseException) -> str | None:
    """The line for an error that the machine caused, without ``fae:``; None for any other error, a defect."""
    if _is_current_folder_gone():  # libraries fail in many ways
        return "the current folder is no longer there; change to a folder that exists, and run the command again"
    cause: BaseException | None = error
    while cause is not None:
        line = _line_of(cause)
        if line:
            return line
        cause = cause.__cause__
    return None


def _line_of(error: BaseException) -> str | None:
    words = str(error)
    if isinstance(error, MemoryError) or any(mark in words for mark in _NO_MEMORY):
        return _memory_line(error)
    if "can't start new thread" in words:
        return f"cannot start a thread: {_ADVICE[errno.EAGAIN]}, or set FAE_NUM_THREADS to fewer"
    if isinstance(error, ImportError) and os.strerror(errno.EMFILE) in words:
        return f"cannot load a library: {os.strerror(errno.EMFILE)}; {_ADVICE[errno.EMFILE]}"
    if not isinstance(error, OSError):
        return None
    if error.errno not in _ADVICE:
        return None
    where = f" {error.filename}" if error.filename else ""
    return f"cannot read or write{where}: {reason(error)}; {_ADVICE[error.errno]}"


def _memory_line(error: BaseException) -> str:
    what = str(error).strip().splitlines()
    told = f" ({what[0][:200]})" if what else ""
    if type(error).__name__ == "OutOfMemoryError":
        return f"the GPU has not enough memory{told}; choose a smaller [hot] budget, [train] batch_size or [model]"
    free = available_bytes()
    available = f"; {format_bytes(free)} are available" if free else ""
    return (
        f"there is not enough memory{told}{available}; raise the limit of this process (ulimit -v, a container's), "
        "make [model], batch_size or max_length smaller, or run it on a machine with more"
    )


def _is_current_folder_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False
