"""SIGINT, SIGTERM and SIGHUP end a command at a safe place, with one line and the status of the signal.

The first one is raised in the main thread as `fae.core.interrupts.Interrupted`, or waits there for the end of a
training step. A second one ends the process at once, by the system's own hand: what is on the disk is as after a
``kill -9``, and the same command continues from there. Where the main thread is inside a long call of a library, Python
hears of a signal when that call returns; a thread watches over that, and ends the process after `_PATIENCE_SECONDS`.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence

from fae.core.signal_watch import SignalWatch

_PATIENCE_SECONDS = 8.0
"""Less than the ten seconds that container runtimes wait before they kill."""
_CONTINUES = "fae: interrupted; the same command continues from here"
_BEGINS_ANEW = "fae: interrupted; nothing was written, and the same command begins anew"
_LOOKING_VERBS = frozenset({"inspect", "init", "plan"})
"""Verbs that only look: they leave nothing that could be continued."""


def interrupted_line(arguments: Sequence[str]) -> str:
    """The line that an interrupted command ends with.

    Parameters
    ----------
    arguments
        The arguments of the command line, the verb first.

    Examples
    --------
    >>> interrupted_line(["plan", "my.toml"])
    'fae: interrupted; nothing was written, and the same command begins anew'
    """
    return _BEGINS_ANEW if arguments and arguments[0] in _LOOKING_VERBS else _CONTINUES


@contextlib.contextmanager
def handled_signals(line: str, *, ends_process: bool = False, second_ends: bool = True) -> Iterator[None]:
    """Handle signals while the block runs: those that the system would let end the process, in the main thread only.

    Parameters
    ----------
    line
        What is said where a signal ends the process in a long call of a library.
    ends_process
        Whether the process ends behind the block: then a signal ends it there by the system's own hand, and not by a
        traceback of Python's.
    second_ends
        Whether a second signal ends the process at once. Not that of a rank with a launcher, which hands on what may
        have reached the rank too; a second signal ends the launcher, and ranks with it.
    """
    wanted = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    previous: dict[int, object] = {int(number): signal.getsignal(number) for number in wanted}
    # What is ignored stays ignored: nohup, and jobs in the background of a script.
    usual = {number: old for number, old in previous.items() if old in (signal.SIG_DFL, signal.default_int_handler)}
    if threading.current_thread() is not threading.main_thread() or not usual:
        yield
        return
    if ends_process:
        usual = dict.fromkeys(usual, signal.SIG_DFL)
    try:
        watch = SignalWatch(usual, line, _PATIENCE_SECONDS, second_ends=second_ends)
        watch.start()
    except (OSError, RuntimeError):  # no descriptor or thread is left: the system's own handling is what remains
        yield
        return
    try:
        yield
    finally:
        watch.stop()
