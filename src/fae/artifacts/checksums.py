"""Checksums of an artifact's files: compute them for the manifest, and compare files with it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import stat
import time
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fae.core.errors import ArtifactError
from fae.core.files import MANIFEST, reason
from fae.core.threads import run_jobs, run_ranges

Files = Mapping[str, Mapping[str, Any]]
"""Relative path to ``{"bytes", "crc32"}``, as a manifest has it."""

_BLOCK_BYTES = 4 * 2**20
_EVERYTHING = 1 << 62
_SMALL_FILE_BYTES = 16 * 2**20
"""Files up to this size are checked by content when a process opens the artifact, once each. Larger files are only
checked if they are newer than the manifest (it is written last, so a file that was edited later has a later time), and
by stages that read all of them (`check_contents`)."""

_verified: set[tuple[object, ...]] = set()
"""Large files whose checksum this process has computed, as `_identity`: they are not read for it again."""
_settled: set[tuple[object, ...]] = set()
"""Small files, if they were left alone for `_SETTLED_NS` before they were read: a stage opens its log four times."""
_SETTLED_NS = 2 * 10**9
"""Clocks of file systems may be this coarse: two changes within it may look the same."""


def _identity(status: os.stat_result, checksum: str) -> tuple[object, ...]:
    # A user can set the time of modification back, but not that of the last change of the inode.
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, checksum)


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


def join_checksums(checksums: Sequence[int], sizes: Sequence[int]) -> int:
    """The crc32 of parts one behind the other, from the crc32 and the number of bytes of each.

    >>> join_checksums([zlib.crc32(b"click"), zlib.crc32(b" "), zlib.crc32(b"log")], [5, 1, 3])
    2856529996
    >>> zlib.crc32(b"click log")
    2856529996
    """
    values, lengths = np.array(checksums, np.uint32), np.array(sizes, np.int64)
    behind = lengths.sum() - np.cumsum(lengths)
    for power in range(int(behind.max(initial=0)).bit_length()):
        moved = (behind >> power) & 1 == 1
        values[moved] = _moved(values[moved], _zeros_table(power))
    return int(np.bitwise_xor.reduce(values, initial=0))


@functools.cache
def _zeros_table(power: int) -> npt.NDArray[np.uint32]:
    """uint32 ``[4, 256]``: what ``2**power`` bytes of zeros behind the data make of each byte of its crc32.

    The crc32 of zeros behind the data is linear in the crc32 of the data, so its four bytes are looked up one by one.
    """
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    if power == 0:
        for _ in range(8):
            bits = np.where(bits & 1 == 1, (bits >> 1) ^ np.uint32(0xEDB88320), bits >> 1)
    else:
        half = _zeros_table(power - 1)
        bits = _moved(_moved(bits, half), half)
    values, table = np.arange(256), np.zeros((4, 256), np.uint32)
    for bit in range(32):
        table[bit // 8] ^= np.where((values >> bit % 8) & 1 == 1, bits[bit], np.uint32(0))
    return table


def _moved(values: npt.NDArray[np.uint32], table: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    parts = [table[place][(values >> np.uint32(8 * place)) & np.uint32(255)] for place in range(4)]
    moved: npt.NDArray[np.uint32] = parts[0] ^ parts[1] ^ parts[2] ^ parts[3]
    return moved


def describe_written(folder: Path, checksums: Mapping[Path, int]) -> dict[str, dict[str, Any]]:
    """What `describe_files` finds in a folder of these files, without reading them.

    Parameters
    ----------
    checksums
        crc32 of every file, taken from the bytes that were written.
    """
    facts = {}
    for file in sorted(checksums):
        status, checksum = file.stat(), f"{checksums[file]:08x}"
        _verified.add(_identity(status, checksum))
        facts[str(file.relative_to(folder))] = {"bytes": status.st_size, "crc32": checksum}
    return facts


def remember_written(folder: Path, files: Files) -> None:
    """Take files as checked that this process has written, with checksums of the bytes that it wrote."""
    _verified.update(_identity((folder / name).stat(), facts["crc32"]) for name, facts in files.items())


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Sizes and checksums of all files below a folder, by relative path."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    checksums = [""] * len(files)

    def check(start: int, stop: int) -> None:
        for index in range(start, stop):
            checksums[index] = file_checksum(files[index])

    run_ranges(check, len(files))
    _verified.update(_identity(file.stat(), checksum) for file, checksum in zip(files, checksums, strict=True))
    return {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "crc32": checksums[index]}
        for index, file in enumerate(files)
    }


def check_contents(path: Path, files: Files, prefix: str, *, command: str) -> None:
    """Compare files with their checksums, including the large ones that opening an artifact does not read.

    A large file is read once in a process, unless it changes.

    Parameters
    ----------
    prefix
        Only files whose relative name begins with it are checked.

    Raises
    ------
    ArtifactError
        If a file is missing or damaged.
    """
    # Largest first: the threads end at about the same time.
    names = sorted((name for name in files if name.startswith(prefix)), key=lambda name: -files[name]["bytes"])
    waiting = iter(names)

    def check(start: int, stop: int) -> None:
        del start, stop
        for name in waiting:
            _check_content(path, name, files[name], command)

    run_ranges(check, len(names))


def is_verified(file: Path, checksum: str) -> bool:
    """Whether this process has computed this checksum of the file as it is now."""
    try:
        return _identity(file.stat(), checksum) in _verified
    except OSError:
        return False


def check_files(path: Path, files: Files, command: str) -> None:
    """Compare the files of an artifact with its manifest: sizes, and the content of small and of newer files.

    Raises
    ------
    ArtifactError
        If a file is missing, damaged or cannot be read.
    """
    written_ns = (path / MANIFEST).stat().st_mtime_ns
    read, has_newer = [], False
    for name, facts in files.items():
        try:
            status = (path / name).stat()
        except (OSError, ValueError):
            raise damaged(path, name, command) from None
        if status.st_size != facts["bytes"] or not stat.S_ISREG(status.st_mode):
            raise damaged(path, name, command)
        is_newer = status.st_size > _SMALL_FILE_BYTES and status.st_mtime_ns > written_ns
        has_newer |= is_newer
        if is_newer or status.st_size <= _SMALL_FILE_BYTES:
            read.append(name)
    run_jobs([partial(_check_content, path, name, files[name], command) for name in read])
    if has_newer and not path.is_symlink():  # probably a copy that did not keep times: make the manifest the newest
        with contextlib.suppress(OSError):
            os.utime(path / MANIFEST)


def _check_content(path: Path, name: str, facts: Mapping[str, Any], command: str) -> None:
    try:
        status = (path / name).stat()
        if not stat.S_ISREG(status.st_mode):
            raise damaged(path, name, command)
        identity = _identity(status, facts["crc32"])
        if identity in (_verified if status.st_size > _SMALL_FILE_BYTES else _settled):
            return
        is_settled = time.time_ns() - status.st_ctime_ns > _SETTLED_NS
        checksum = file_checksum(path / name)
    except OSError as error:
        raise ArtifactError(
            f"cannot read {path / name}: {reason(error)}; fix that, or {make_again(path, command)}"
        ) from error
    if checksum != facts["crc32"]:
        raise damaged(path, name, command)
    _verified.add(identity)
    if is_settled:
        _settled.add(identity)


def make_again(path: Path, command: str) -> str:
    """The advice for an artifact that cannot be used. What is moved away is not lost, whatever it was made from."""
    return f"move {path} away and run `{command}`"


def damaged(path: Path, name: str, command: str, what: str = "") -> ArtifactError:
    """The error for a file of the artifact at `path` that is missing or not what was written.

    Parameters
    ----------
    what
        What is wrong with it, where more is known than that its checksum differs.
    """
    found = f"is damaged: {what}" if what else "is missing or damaged"
    return ArtifactError(f"{path / name} {found}; {make_again(path, command)}")
