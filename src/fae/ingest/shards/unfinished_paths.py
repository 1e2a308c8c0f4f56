"""Where an unfinished log is, beside the place of the log: its folder, the file that records it, and its parts."""

from __future__ import annotations

import contextlib
from pathlib import Path

from fae.core.files import remove_folder, temporary_path


def unfinished_folder(path: Path) -> Path:
    """The folder in which the log `path` grows."""
    return path.with_name(f".{path.name}.partial")


def progress_file(path: Path) -> Path:
    """The file that records how far the log `path` is."""
    return path.with_name(f".{path.name}.partial.json")


def parts_folder(path: Path) -> Path:
    """The folder of parts while the log `path` is read."""
    return unfinished_folder(path) / "work" / "parts"


def progress_paths(path: Path) -> tuple[Path, ...]:
    """Where an interrupted ingest of the log `path` keeps what it has done."""
    return unfinished_folder(path), progress_file(path), temporary_path(progress_file(path))


def discard_progress(path: Path) -> None:
    """Remove what an interrupted ingest of the log `path` has kept; of a link, the link alone."""
    with contextlib.suppress(OSError):
        progress_file(path).unlink(missing_ok=True)
        temporary_path(progress_file(path)).unlink(missing_ok=True)
    remove_folder(unfinished_folder(path))
