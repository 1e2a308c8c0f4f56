"""SIGINT, SIGTERM and SIGHUP end a command at a safe place, with one line and the status of the signal.

The first one is raised in the main thread as `fae.core.interrupts.Interrupted`, or waits there for the end of a
training step. A second one ends the process at once, by the system's own hand: what is on the disk is as after a
``kill -9``, and the same command continues from there. Where the main thread is inside a long call of a library, Python
hears of a signal when that call returns; a thread watches over that, and ends the process after `_PATIENCE_SECONDS`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from fae.core.interrupts import receive
from fae.core.printable import tell

_PATIENCE_SECONDS = 8.0
"""Less than the ten seconds that container runtimes wait before they kill."""
_LINE = "fae: interrupted; the same command continues from here"


def tell_interrupted() -> None:
    """Print the line that every interrupted command ends with."""
    tell(_LINE)


def status_of(number: int) -> int:
    """Exit status of a command that a signal ended, as shells give it: 130, 143, 129."""
    return 128 + number


class _Watch:
    """The handler of the signals, and the thread that ends the process where Python cannot run the handler."""

    def __init__(self, previous: dict[int, object]) -> None:
        self._previous = previous
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
        ready, _, _ = select.select([self._reader], [], [], _PATIENCE_SECONDS)
        if not ready or os.read(self._reader, 1)[0] in self._previous:
            tell_interrupted()
            os._exit(status_of(number))


@contextlib.contextmanager
def handled_signals() -> Iterator[None]:
    """Handle signals while the block runs: those that the system would let end the process, in the main thread only."""
    wanted = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    previous: dict[int, object] = {int(number): signal.getsignal(number) for number in wanted}
    # What is ignored stays ignored: nohup, and jobs in the background of a script.
    usual = {number: old for number, old in previous.items() if old in (signal.SIG_DFL, signal.default_int_handler)}
    if threading.current_thread() is not threading.main_thread() or not usual:
        yield
        return
    try:
        watch = _Watch(usual)
        watch.start()
    except (OSError, RuntimeError):  # no descriptor or thread is left: the system's own handling is what remains
        yield
        return
    try:
        yield
    finally:
        watch.stop()
