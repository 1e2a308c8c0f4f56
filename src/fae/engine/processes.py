"""Other processes of this machine: whether one still runs, and that this one ends with the one that started it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LOOK_SECONDS = 0.5


def process_start(pid: int) -> str | None:
    """When a process of this machine was started, in ticks; None where it has ended, or the system does not say.

    Together with its number it tells a process from a later one of the same number.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def machine_facts() -> dict[str, str]:
    """What is the same for processes that see one another's numbers: host, start of the machine, space of numbers."""
    facts = {"host": socket.gethostname()}
    with contextlib.suppress(OSError):
        facts["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        facts["processes"] = os.readlink("/proc/self/ns/pid")
    return facts


def end_with_parent(parent: int, *, by_system: bool) -> None:
    """Kill this process when the one that started it ends; at once where that has happened already.

    Parameters
    ----------
    parent
        Number of the process that started this one.
    by_system
        Whether the thread that started it is there as long as its process: then the system does it, whatever this
        process is doing. Else a thread looks twice a second.
    """
    if by_system and sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True, name="fae-parent").start()
    if os.getppid() != parent:  # it ended before this one was ready
        os.kill(os.getpid(), signal.SIGKILL)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
