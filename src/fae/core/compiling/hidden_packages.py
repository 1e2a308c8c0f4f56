"""Keep a library from importing another one that it can do without."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType


class _Hidden(threading.local):
    """The packages that a thread is not to find."""

    def __init__(self) -> None:
        self.packages: list[str] = []


class _Hider(MetaPathFinder):
    """The first finder, which finds nothing. It stays: a thread that imports walks through the list of finders."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name in _hidden.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


_hidden, _hider = _Hidden(), _Hider()
_own: list[bool] = []


def own_this_process() -> None:
    """Say that this process is a command of FAE's own, in which nobody else relies on what a library looks for."""
    _own.append(True)


def owns_this_process() -> bool:
    """Whether `own_this_process` was called."""
    return bool(_own)


@contextlib.contextmanager
def hidden(package: str) -> Iterator[None]:
    """While the block runs, its thread does not find `package` (a top-level name); one that is loaded already stays."""
    if _hider not in sys.meta_path:
        sys.meta_path = [_hider, *sys.meta_path]
    _hidden.packages.append(package)
    try:
        yield
    finally:
        _hidden.packages.remove(package)
