"""Read and write small files as a whole: text and JSON, durably, without following links or waiting for a pipe."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fae.core.files import cannot_write, sync_folder, temporary_path


def write_whole(path: Path, text: str) -> None:
    """Write a text file durably: to a temporary name, flushed to the disk, then renamed.

    Readers see the old text or the new, never a part, also after a power failure. A link in the place of either name is
    replaced, never followed.

    Raises
    ------
    ArtifactError
        If it cannot be written.
    """
    try:
        write_durably(path, text)
    except OSError as error:
        raise cannot_write(path, error) from error


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
    """Write JSON as `write_whole` writes text; NaN and infinity become null. Raises `OSError` where it fails."""
    write_durably(path, json.dumps(json_values(value), indent=1, sort_keys=True, allow_nan=False) + "\n")


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


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises
    ------
    OSError
        If it is not there, cannot be read, or is no plain file: nothing waits for the other end of a pipe.
    ValueError
        If it is no JSON, or nested deeper than can be read.
    """
    return parse_json(read_plain(path))


def read_plain(path: Path) -> bytes:
    """The bytes of a plain file; anything else raises `OSError`."""
    return read_plain_start(path, -1)


def read_plain_start(path: Path, size: int) -> bytes:
    """The first `size` bytes of a plain file, all where it is -1; anything else raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no plain file")
        return file.read(size)


def parse_json(data: bytes) -> Any:
    """The value of a JSON text in UTF-8; whatever is wrong with it raises `ValueError`.

    >>> parse_json(b"[" * 100_000)
    Traceback (most recent call last):
    ValueError: nested too deep
    """
    try:
        return json.loads(data.decode())
    except RecursionError:
        raise ValueError("nested too deep") from None


def write_durably(path: Path, text: str) -> None:
    """As `write_whole`, but what goes wrong is an `OSError`."""
    temporary = temporary_path(path)
    temporary.unlink(missing_ok=True)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
