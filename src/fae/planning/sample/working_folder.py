"""The temporary folder of a plan: removed at its end, after a signal, and after a kill by the next plan."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fae.core.errors import RecipeError
from fae.core.files import reason
from fae.core.units import format_bytes

_PREFIX = "fae-plan-"


@contextlib.contextmanager
def working_folder() -> Iterator[Path]:
    """A folder under the system's one for temporary files (``TMPDIR``), for as long as the block runs.

    Raises
    ------
    RecipeError
        If it cannot be made.
    """
    place = Path(tempfile.gettempdir())
    _remove_left_over(place)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    except OSError as error:
        raise RecipeError(
            f"cannot make a temporary folder in {place}: {reason(error)}; set TMPDIR to a folder with room"
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def require_room(folder: Path, num_bytes: int) -> None:
    """Refuse a plan whose temporary files the disk cannot hold.

    Raises
    ------
    RecipeError
        With what is needed and what is free.
    """
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise RecipeError(
            f"a plan needs about {format_bytes(num_bytes)} of temporary files, and {format_bytes(free)} are free in "
            f"{folder.parent}; set TMPDIR to a folder with room, or lower --read"
        )


def _remove_left_over(place: Path) -> None:
    """Remove the folders of plans that were killed: those of processes that are no more."""
    for folder in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):
            number = int(folder.name.removeprefix(_PREFIX).split("-")[0])
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            try:
                os.kill(number, 0)
            except ProcessLookupError:
                shutil.rmtree(folder, ignore_errors=True)
