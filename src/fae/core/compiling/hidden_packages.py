"""Keep a library from importing another one that it can do without."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType


class _Hider(MetaPathFinder):
    """The first finder of a thread that is not to find a package. Other threads find it."""

    def __init__(self, package: str) -> None:
        self._package, self._thread = package, threading.get_ident()

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name == self._package and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


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
    hider = _Hider(package)
    sys.meta_path.insert(0, hider)
    try:
        yield
    finally:
        sys.meta_path.remove(hider)
