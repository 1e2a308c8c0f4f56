"""Checksums of an artifact's files: compute them for the manifest, and compare files with it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fae.core.errors import ArtifactError
from fae.core.files import MANIFEST, reason
from fae.core.threads import run_ranges

Files = Mapping[str, Mapping[str, Any]]
"""Relative path to ``{"bytes", "crc32"}``, as a manifest has it."""

_BLOCK_BYTES = 4 * 2**20
_EVERYTHING = 1 << 62
_SMALL_FILE_BYTES = 16 * 2**20
"""Files up to this size are checked by content whenever an artifact is opened. Larger files are only checked if they
are newer than the manifest: it is written last, so a file that was edited later has a later time."""


def file_digest(path: Path) -> str:
    """Hex blake2b of a file's bytes, which names a source file by its content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def file_checksum(path: Path, first: int = 0, stop: int | None = None) -> str:
    """Hex crc32 of a file's bytes, or of the bytes ``[first, stop)``.

    It detects damage and mistakes, not malice; a cryptographic digest took as long as packing itself (docs/journal/).
    """
    checksum, left = 0, stop - first if stop is not None else _EVERYTHING
    with path.open("rb", buffering=0) as file:
        file.seek(first)
        while block := file.read(min(left, _BLOCK_BYTES)):
            checksum = zlib.crc32(block, checksum)
            left -= len(block)
    return f"{checksum:08x}"


def describe_files(folder: Path, *, leave_out: str = "") -> dict[str, dict[str, Any]]:
    """Sizes and checksums of all files below a folder, by relative path.

    Parameters
    ----------
    leave_out
        Name of a folder inside it whose files do not belong to it.
    """
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not (leave_out and file.is_relative_to(folder / leave_out))
    ]
    checksums = [""] * len(files)

    def check(start: int, stop: int) -> None:
        for index in range(start, stop):
            checksums[index] = file_checksum(files[index])

    run_ranges(check, len(files))
    return {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "crc32": checksums[index]}
        for index, file in enumerate(files)
    }


def check_contents(path: Path, files: Files, prefix: str, *, command: str) -> None:
    """Compare files with their checksums, including the large ones that opening an artifact does not read.

    Parameters
    ----------
    prefix
        Only files whose relative name begins with it are checked.

    Raises
    ------
    ArtifactError
        If a file is missing or damaged.
    """
    names = [name for name in files if name.startswith(prefix)]

    def check(start: int, stop: int) -> None:
        for name in names[start:stop]:
            _check_content(path, name, files[name], command)

    run_ranges(check, len(names))


def check_files(path: Path, files: Files, command: str) -> None:
    """Compare the files of an artifact with its manifest: sizes, and the content of small and of newer files.

    Raises
    ------
    ArtifactError
        If a file is missing, damaged or cannot be read.
    """
    written_ns = (path / MANIFEST).stat().st_mtime_ns
    read_large = []
    for name, facts in files.items():
        try:
            status = (path / name).stat()
        except OSError:
            raise _damaged(path, name, command) from None
        if status.st_size != facts["bytes"]:
            raise _damaged(path, name, command)
        if status.st_size <= _SMALL_FILE_BYTES:
            _check_content(path, name, facts, command)
        elif status.st_mtime_ns > written_ns:
            read_large.append(name)

    def check(start: int, stop: int) -> None:
        for name in read_large[start:stop]:
            _check_content(path, name, files[name], command)

    run_ranges(check, len(read_large))
    if read_large:  # probably a copy that did not keep times: make the manifest the newest file again
        with contextlib.suppress(OSError):
            os.utime(path / MANIFEST)


def _check_content(path: Path, name: str, facts: Mapping[str, Any], command: str) -> None:
    try:
        checksum = file_checksum(path / name)
    except OSError as error:
        raise ArtifactError(
            f"cannot read {path / name}: {reason(error)}; fix that, or delete {path} and run `{command}`"
        ) from error
    if checksum != facts["crc32"]:
        raise _damaged(path, name, command)


def _damaged(path: Path, name: str, command: str) -> ArtifactError:
    return ArtifactError(f"{path / name} is missing or damaged; delete {path} and run `{command}`")
