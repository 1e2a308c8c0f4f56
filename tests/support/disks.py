"""A disk of a few kilobytes: a mounted tmpfs, so that "no space left" comes from the system and not from a stub.

Mounting needs the superuser, or ``sudo`` without a password (hosted CI). Without either, tests are skipped and
`tests/conftest.py` reports it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NO_DISK = "no small disk here (mounting a tmpfs needs the superuser or sudo without a password)"
PAGE = os.sysconf("SC_PAGE_SIZE")
"""A tmpfs allocates space by the page."""


def _mount(*arguments: str) -> bool:
    command = ["mount", *arguments] if os.geteuid() == 0 else ["sudo", "-n", "mount", *arguments]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


class SmallDisk:
    """A mounted tmpfs.

    Attributes
    ----------
    path
        Where the disk is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def used_bytes(self) -> int:
        """Bytes taken by files and folders."""
        facts = os.statvfs(self.path)
        return (facts.f_blocks - facts.f_bfree) * facts.f_frsize

    @property
    def used_names(self) -> int:
        """Number of files and folders."""
        facts = os.statvfs(self.path)
        return facts.f_files - facts.f_ffree

    def resize(self, num_bytes: int, num_names: int = 1 << 16) -> None:
        """Set its size (in whole pages) and its largest number of files and folders; not below what it holds now."""
        # 0 would mean without a limit.
        assert self._set(f"remount,size={max(num_bytes, PAGE)},nr_inodes={num_names}")

    def set_read_only(self, read_only: bool) -> None:
        """Allow or forbid writing, also for the superuser."""
        assert self._set("remount,ro" if read_only else "remount,rw")

    def _set(self, options: str) -> bool:
        return _mount("-o", options, str(self.path))


@contextmanager
def small_disk(path: Path) -> Iterator[SmallDisk]:
    """Mount a disk of 64 MiB at `path` while the block runs; skips the test where that is not possible."""
    path.mkdir()
    owner = f"uid={os.geteuid()},gid={os.getegid()}"
    if not _mount("-t", "tmpfs", "-o", f"size=64m,mode=0755,{owner}", "tmpfs", str(path)):
        pytest.skip(NO_DISK)
    try:
        yield SmallDisk(path)
    finally:
        command = ["umount", "--lazy", str(path)]
        subprocess.run(command if os.geteuid() == 0 else ["sudo", "-n", *command], check=True)
