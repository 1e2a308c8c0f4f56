"""Which code a worker runs: workers that share work must run the same."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("numpy", "numba", "pyarrow")
"""What tasks compute and read with."""


def code_version() -> str:
    """FAE's version with eight hex digits of the digest of its source files; or what ``FAE_CODE_VERSION`` says."""
    return os.environ.get("FAE_CODE_VERSION") or _version_of_files()


@functools.cache
def _version_of_files() -> str:
    folder = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{_version_of('fae')} ({digest.hexdigest()[:8]})"


def versions(*others: str) -> dict[str, str]:
    """Versions of FAE, Python and the libraries in this process, and of other libraries that are named."""
    found = {"fae": code_version(), "python": ".".join(platform.python_version_tuple()[:2])}
    return found | {name: _version_of(name) for name in (*LIBRARIES, *others)}


def _version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
