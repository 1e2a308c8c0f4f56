"""A handler of signals that also works while the main thread is inside a long call of a library.

Python runs a handler between two steps of the main thread. A call that does not return for a minute holds it up for
that minute; a thread of its own hears of the signal at once. Two steps may also lie between the taking and the giving
back of one of the locks that imports have: an exception there leaves it locked for ever, and every thread that imports
waits. So within the machinery of imports the handler puts the signal off, and the thread has it look again soon.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

from fae.core.interrupts import receive
from fae.core.printable import tell
from fae.core.waits import await_ready

_IMPORTS = "<frozen importlib"
"""Begins the file name of code that imports."""
_AGAIN = signal.SIGURG
"""Says "look again": the system does nothing with it, and no library here uses it."""
_AGAIN_SECONDS = 0.01


def status_of(number: int) -> int:
    """Exit status of a command that a signal ended, as shells give it.

    >>> status_of(2), status_of(15), status_of(1)
    (130, 143, 129)
    """
    return 128 + number


def end_process(status: int) -> NoReturn:
    """End this process at once, when all that was open is closed: threads that still import would be waited for."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)


class SignalWatch:
    """The handler of the signals, and the thread that ends the process where Python cannot run the handler.

    Parameters
    ----------
    previous
        The signals, with what handled them before.
    line
        What the thread says when it ends the process.
    patience
        Seconds that it waits for the handler.
    second_ends
        Whether a second signal ends the process at once; else it is ignored.
    """

    def __init__(self, previous: dict[int, object], line: str, patience: float, *, second_ends: bool = True) -> None:
        self._previous, self._line, self._patience = previous, line, patience
        self._then = signal.SIG_DFL if second_ends else signal.SIG_IGN
        self._put_off: int | None = None
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._thread = threading.Thread(target=self._watch, daemon=True, name="fae-signals")

    def start(self) -> None:
        """Handle the signals from now on."""
        self._thread.start()
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._before_again = signal.signal(_AGAIN, self._look_again)
        for number in self._previous:
            signal.signal(number, self._handle)

    def stop(self) -> None:
        """Handle them as before; where one has arrived, the next one still ends the process."""
        signal.set_wakeup_fd(self._before)
        for number, previous in self._previous.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, previous)  # type: ignore[arg-type]
        if signal.getsignal(_AGAIN) == self._look_again:
            signal.signal(_AGAIN, self._before_again)
        os.write(self._writer, b"\0")
        self._thread.join()
        os.close(self._writer)
        os.close(self._reader)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        for other in self._previous:
            signal.signal(other, self._then)
        self._put_off = number
        self._look_again(_AGAIN, frame)

    def _look_again(self, _: int, frame: FrameType | None) -> None:
        """Raise the signal that is put off, unless the main thread is within the machinery of imports."""
        number = self._put_off
        if number is None or (frame is not None and frame.f_code.co_filename.startswith(_IMPORTS)):
            return
        self._put_off = None
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"\0")
        receive(number)

    def _watch(self) -> None:
        """Wait for a signal, then for the handler or the end (0), for as long as there is patience."""
        number = 0
        while number not in self._previous:
            number = os.read(self._reader, 1)[0]
            if number == 0:
                return
        end = time.monotonic() + self._patience
        while time.monotonic() < end:
            if await_ready(self._reader, _AGAIN_SECONDS):
                found = os.read(self._reader, 1)[0]
                if found == 0:
                    return
                if found in self._previous:
                    break
            elif self._put_off is not None:
                signal.pthread_kill(threading.main_thread().ident or 0, _AGAIN)
        tell(self._line)
        os._exit(status_of(number))
