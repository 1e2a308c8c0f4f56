"""Waits for descriptors of any number: ``select`` knows the first 1,024 alone, and each mapped file keeps one."""

from __future__ import annotations

import selectors

_Selector = getattr(selectors, "PollSelector", selectors.DefaultSelector)  # Windows has no poll


def await_ready(descriptor: int, seconds: float, *, to_write: bool = False) -> bool:
    """Whether a pipe or socket can be read, or written, or has ended, after this many seconds at most.

    Raises
    ------
    ValueError
        If the descriptor is closed, and its number below 0.
    OSError
        If the system has no such descriptor.
    """
    with _Selector() as selector:
        selector.register(descriptor, selectors.EVENT_WRITE if to_write else selectors.EVENT_READ)
        return bool(selector.select(seconds))
