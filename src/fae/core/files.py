"""Replace folders as a whole, clean up after a killed writer, and lock a folder.

At every moment the old or the new folder is complete, under its own name or under the ``.old`` one. Only what FAE
itself made is ever replaced or removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fae.core.errors import ArtifactError
from fae.core.threads import run_ranges

MANIFEST = "manifest.json"
LOCK = ".lock"
_TRIES = 10

MACHINE_FAULTS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "make it writable",
    errno.EACCES: "fix its permissions",
    errno.EPERM: "fix its permissions",
    errno.EIO: "check the disk",
}
"""Errors by which the machine can refuse a write or a read, and what the user can do about each."""
PROCESS_FAULTS = {
    errno.EMFILE: f"raise the limit on open files (ulimit -n, now {resource.getrlimit(resource.RLIMIT_NOFILE)[0]})",
    errno.ENFILE: "close other programs: the machine has no open files left",
    errno.ENOMEM: "free some memory, or run it on a machine with more",
    errno.ENAMETOOLONG: "choose a shorter name",
}
"""The same for errors that any other folder would have, too."""


def temporary_path(path: Path) -> Path:
    """Temporary name of a file or folder while it is being written."""
    return path.with_name(f".{path.name}.writing")


def replaced_path(path: Path) -> Path:
    """Name of a replaced folder until it is removed."""
    return path.with_name(f".{path.name}.old")


def make_folder(path: Path) -> None:
    """Make a folder and its parents, if they do not exist.

    Raises
    ------
    ArtifactError
        If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from None


def reason(error: OSError) -> str:
    """The system's own message of an error, without the text that a library put around it.

    >>> reason(OSError(28, "Error writing bytes to file. Detail: [errno 28] No space left on device"))
    'No space left on device'
    """
    return os.strerror(error.errno) if error.errno else str(error)


def read_advice(error: OSError) -> str:
    """What to do about a file that cannot be read."""
    if error.errno == errno.EIO:
        return MACHINE_FAULTS[errno.EIO]
    return PROCESS_FAULTS.get(error.errno or 0, "check its permissions")


def cannot_write(path: Path, error: OSError) -> ArtifactError:
    """The `ArtifactError` for a failed write to `path`: the reason, and what to do about it."""
    if error.errno in PROCESS_FAULTS:  # another folder would not help
        return ArtifactError(f"cannot write to {path}: {reason(error)}; {PROCESS_FAULTS[error.errno]}")
    first = MACHINE_FAULTS.get(error.errno or 0)
    advice = f"{first} or choose another folder with --out" if first else "choose another folder with --out"
    return ArtifactError(f"cannot write to {path}: {reason(error)}; {advice}")


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make a folder and lock it against other processes while the block runs.

    The lock ends with the process, also when that is killed. A link in the place of the lock is not followed, and what
    is in that file stays.

    Raises
    ------
    ArtifactError
        If another one holds it, or the folder cannot be written to.
    """
    make_folder(folder)
    path = folder / LOCK
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666), "rb", 0)
    except OSError as error:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise _no_lock_file(path) from None
        raise cannot_write(folder, error) from None
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _no_lock_file(path)
        try:
            _lock(file)
        except BlockingIOError:
            raise ArtifactError(f"another run is writing to {folder}; wait for it or choose another --out") from None
        except OSError as error:
            raise ArtifactError(
                f"cannot lock {folder}: {reason(error)}; choose a folder with --out on a disk that knows file locks"
            ) from None
        yield


def _lock(file: IO[bytes]) -> None:
    """Lock a file. Who looks whether it is locked, as `fae runs` does, holds it for a moment; that is waited for."""
    for _ in range(_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(0.02)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _no_lock_file(path: Path) -> ArtifactError:
    return ArtifactError(
        f"{path} is a link or no plain file, so the folder cannot be locked; take it away, or choose another --out"
    )


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some network disks cannot
            raise
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Wait until all files and folders below a folder, and itself, are on the disk."""
    files, folders = [], [path]
    for place, names, leaves in os.walk(path):
        folders += [Path(place) / name for name in names]
        files += [Path(place) / name for name in leaves]

    def sync(start: int, stop: int) -> None:
        for file in files[start:stop]:
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    run_ranges(sync, len(files))
    for folder in reversed(folders):
        sync_folder(folder)


def check_replaceable(path: Path) -> None:
    """Refuse to replace what no stage made: ``--out .`` beside raw files in ``log/`` must not delete them.

    Raises
    ------
    ArtifactError
        If `path` exists and is neither an artifact nor an empty folder.
    """
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_dir() or (not (path / MANIFEST).is_file() and any(path.iterdir())):
        raise ArtifactError(
            f"{path} is there and is no artifact of fae (it has no {MANIFEST}); move it away, or choose another folder "
            "with --out"
        )


def replace_folder(temporary: Path, path: Path) -> None:
    """Rename a complete folder to its final name; a folder of that name is first renamed, then removed.

    Everything in the new folder is on the disk before the old one goes. If the second rename fails, the first is
    undone.
    """
    sync_tree(temporary)
    old = replaced_path(path)
    remove_folder(old)
    if path.exists() or path.is_symlink():
        path.rename(old)
    try:
        temporary.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    sync_folder(path.parent)
    remove_folder(old)


def remove_folder(path: Path) -> None:
    """Remove a folder, its manifest first, so that a partly removed folder is never taken for an artifact.

    A link is removed, and not what it leads to. A plain file stays: nothing here made it.
    """
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            (path / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)
        elif not stat.S_ISREG(path.lstat().st_mode):
            path.unlink()  # not with rmtree, which waits for the other end of a pipe


def drop_folder(path: Path) -> None:
    """Remove an artifact under its final name: at every moment it is there whole, or not there.

    A killed `remove_folder` would leave a folder without a manifest, which is nobody's to replace. Here it leaves one
    under the temporary name, which `recover_folder` clears.

    Raises
    ------
    OSError
        If it cannot be renamed.
    """
    if path.is_dir() and not path.is_symlink():
        remove_folder(temporary_path(path))
        path = path.rename(temporary_path(path))
    remove_folder(path)


def broken_link(path: Path) -> Path | None:
    """Where the link at `path` leads, if nothing is there; None where it is no link or leads to something."""
    if not path.is_symlink() or path.exists():
        return None
    return Path(os.path.normpath(path.parent / os.readlink(path)))


def recover_folder(path: Path) -> None:
    """Clean up after a killed writer of `path`; if the new folder is missing, restore the old one.

    No other process may be writing it.

    Raises
    ------
    ArtifactError
        If the old folder cannot be restored.
    """
    old = replaced_path(path)
    if not old.is_symlink() and (old / MANIFEST).is_file() and not path.exists() and not path.is_symlink():
        try:
            old.rename(path)
        except OSError as error:
            raise cannot_write(path, error) from None
    remove_folder(old)
    remove_folder(temporary_path(path))
