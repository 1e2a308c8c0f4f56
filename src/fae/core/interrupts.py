"""Signals that stop a command: work that must end at a safe place puts them off until it is there.

Only the command line handles signals (`fae.cli.process.signals`). In a program of your own nothing here does anything:
Ctrl-C raises `KeyboardInterrupt` wherever Python is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_pending: list[Interrupted] = []
_depth = [0]


class Interrupted(KeyboardInterrupt):
    """The signal that ended a command.

    Attributes
    ----------
    number
        The number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


def receive(number: int) -> None:
    """Take a signal, in the main thread: raise it, or keep it where it is put off.

    Raises
    ------
    Interrupted
        Outside of `put_off` blocks.
    """
    if not _depth[0]:
        raise Interrupted(number)
    _pending.append(Interrupted(number))


def raise_interrupt() -> None:
    """Raise the signal that has arrived since it is put off, if one has; cheap enough for every batch.

    Raises
    ------
    Interrupted
        That signal.
    """
    if _pending:
        raise _pending.pop()


def is_interrupted() -> bool:
    """Whether a signal has arrived and waits for `raise_interrupt`."""
    return bool(_pending)


def take_interrupt() -> int:
    """The number of the signal that has arrived since it is put off, which is then forgotten; 0 where none has."""
    return _pending.pop().number if _pending else 0


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """Keep signals while the block runs, which must look for them with `is_interrupted` or `raise_interrupt`.

    Raises
    ------
    Interrupted
        At the end of the block, for a signal that nothing in it has raised.
    """
    _depth[0] += 1
    try:
        yield
    finally:
        _depth[0] -= 1
        if not _depth[0] and _pending:
            interrupt = _pending.pop()
            _pending.clear()
            raise interrupt
