"""Replace files and folders as a whole, clean up after a killed writer, and lock a folder.

At every moment the old or the new folder is complete, under its own name or under the ``.old`` one. Only what FAE
itself made is ever replaced or removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fae.core.errors import ArtifactError

MANIFEST = "manifest.json"
LOCK = ".lock"

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


def cannot_write(path: Path, error: OSError) -> ArtifactError:
    """The `ArtifactError` for a failed write to `path`: the reason, and what to do about it."""
    first = MACHINE_FAULTS.get(error.errno or 0)
    advice = f"{first} or choose another folder with --out" if first else "choose another folder with --out"
    return ArtifactError(f"cannot write to {path}: {reason(error)}; {advice}")


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make a folder and lock it against other processes while the block runs.

    The lock ends with the process, also when that is killed.

    Raises
    ------
    ArtifactError
        If another one holds it, or the folder cannot be written to.
    """
    make_folder(folder)
    try:
        file = (folder / LOCK).open("w")
    except OSError as error:
        raise cannot_write(folder, error) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(f"another run is writing to {folder}; wait for it or choose another --out") from None
        except OSError as error:
            raise ArtifactError(
                f"cannot lock {folder}: {reason(error)}; choose a folder with --out on a disk that knows file locks"
            ) from None
        yield


def write_whole(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it: readers see the old text or the new, never a part.

    Raises
    ------
    ArtifactError
        If it cannot be written.
    """
    temporary = temporary_path(path)
    try:
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from None


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

    If the second rename fails, the first is undone.
    """
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
    remove_folder(old)


def remove_folder(path: Path) -> None:
    """Remove a folder, its manifest first, so that a partly removed folder is never taken for an artifact."""
    with contextlib.suppress(OSError):
        if path.is_symlink():
            path.unlink()
        else:
            (path / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def recover_folder(path: Path) -> None:
    """Clean up after a killed writer of `path`; if the new folder is missing, restore the old one.

    No other process may be writing it.

    Raises
    ------
    ArtifactError
        If the old folder cannot be restored.
    """
    old = replaced_path(path)
    if (old / MANIFEST).is_file() and not path.exists():
        try:
            old.rename(path)
        except OSError as error:
            raise cannot_write(path, error) from None
    remove_folder(old)
    remove_folder(temporary_path(path))


def json_values(value: Any) -> Any:
    """The value with every NaN and infinity as None: JSON has neither, and other readers would refuse the file.

    >>> json_values({"loss": [0.5, float("nan")]})
    {'loss': [0.5, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: json_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_values(item) for item in value]
    return value


def write_json(path: Path, value: Any) -> None:
    """Write JSON durably: to a temporary name, flushed to the disk, then renamed. NaN and infinity become null."""
    temporary = temporary_path(path)
    try:
        with temporary.open("w") as file:
            json.dump(json_values(value), file, indent=1, sort_keys=True, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_record(path: Path, value: Any) -> None:
    """`write_json` for a file of the run folder outside its artifacts.

    Raises
    ------
    ArtifactError
        If it cannot be written.
    """
    try:
        write_json(path, value)
    except OSError as error:
        raise cannot_write(path, error) from error
