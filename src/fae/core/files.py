"""Folders that are replaced whole, and what a kill in the middle of that leaves behind.

Place in the flow: beneath `fae.core.artifact` and the run folder. Invariants: only what FAE itself made is ever
replaced or removed; at every moment the old or the new folder is whole, under its own name or the ``.old`` one.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fae.core.errors import ArtifactError

MANIFEST = "manifest.json"


def being_written(path: Path) -> Path:
    """The name that a file or folder has until it is whole."""
    return path.with_name(f".{path.name}.writing")


def put_aside(path: Path) -> Path:
    """The name that a folder has between the moment it is replaced and the moment it is removed."""
    return path.with_name(f".{path.name}.old")


def make_folder(path: Path) -> None:
    """Make a folder and those above it; one that is there already will do.

    Raises
    ------
    ArtifactError
        If it cannot be.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from None


def cannot_write(path: Path, error: OSError) -> ArtifactError:
    """The error that says so."""
    return ArtifactError(f"cannot write to {path}: {error.strerror or error}; choose another folder with --out")


def check_replaceable(path: Path) -> None:
    """Refuse to write over what no stage made: ``--out .`` beside raw files in ``log/`` must not cost anybody those.

    Raises
    ------
    ArtifactError
        If something stands at `path` that is neither an artifact nor an empty folder.
    """
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_dir() or (not (path / MANIFEST).is_file() and any(path.iterdir())):
        raise ArtifactError(
            f"{path} is there and is no artifact of fae (it has no {MANIFEST}); move it away, or choose another folder "
            "with --out"
        )


def replace_folder(temporary: Path, path: Path) -> None:
    """Rename a complete folder to its final name, putting aside and then removing what stood there."""
    old = put_aside(path)
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    temporary.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(path: Path) -> None:
    """Clear what a killed writer of the folder `path` left, taking the old folder back where the new one is not there.

    No other process may be writing it.
    """
    old = put_aside(path)
    if old.is_dir() and not path.exists():
        old.rename(path)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(being_written(path), ignore_errors=True)


def json_values(value: Any) -> Any:
    """The same with every NaN and infinity as None: JSON has neither, and other readers refuse a file that does.

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
