"""A handler of signals that also works while the main thread is inside a long call of a library.

Python runs a handler between two steps of the main thread. A call that does not return for a minute holds it up for
that minute; a thread of its own hears of the signal at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from types import FrameType

from fae.core.interrupts import receive
from fae.core.printable import tell


def status_of(number: int) -> int:
    """Exit status of a command that a signal ended, as shells give it.

    >>> status_of(2), status_of(15), status_of(1)
    (130, 143, 129)
    """
    return 128 + number


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
    """

    def __init__(self, previous: dict[int, object], line: str, patience: float) -> None:
        self._previous, self._line, self._patience = previous, line, patience
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._thread = threading.Thread(target=self._watch, daemon=True, name="fae-signals")

    def start(self) -> None:
        """Handle the signals from now on."""
        self._thread.start()
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self._previous:
            signal.signal(number, self._handle)

    def stop(self) -> None:
        """Handle them as before; where one has arrived, the next one still ends the process."""
        signal.set_wakeup_fd(self._before)
        for number, previous in self._previous.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, previous)  # type: ignore[arg-type]
        os.write(self._writer, b"\0")
        self._thread.join()
        os.close(self._writer)
        os.close(self._reader)

    def _handle(self, number: int, _: FrameType | None) -> None:
        for other in self._previous:
            signal.signal(other, signal.SIG_DFL)
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
        ready, _, _ = select.select([self._reader], [], [], self._patience)
        if not ready or os.read(self._reader, 1)[0] in self._previous:
            tell(self._line)
            os._exit(status_of(number))
