"""Find the files that a pattern of names matches, and what lies beside the data and is passed over.

Patterns have ``*``, ``?``, ``[...]`` and, as a whole part between slashes, ``**``: any number of folders. A part that
exists as it is written is that name, whatever it would match. Links are followed, but never in a circle.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fae.core.errors import LogError
from fae.core.files import LOCK, MANIFEST, reason
from fae.core.whole_files import read_json

_RUN_FILES = frozenset(
    {
        "run.json", "timings.json", "log.sources.json", "metrics.jsonl", "wandb.json", ".log.partial",
        ".log.partial.json",
    }
)  # fmt: skip
_SIDE_SUFFIXES = (
    "~", "#", ".bak", ".orig", ".swp", ".tmp", ".crc", ".md5", ".sha1", ".sha256", ".toml", ".md", ".html", ".py",
    ".sh",
)  # fmt: skip
"""Ends of names that are no logs: backups of editors, checksums, recipes and what people write beside data."""

HIDDEN, OWN, SIDE, SPECIAL = "hidden", "own", "side", "special"


@dataclass
class Matches:
    """What a pattern matches.

    Attributes
    ----------
    files
        Plain files, as the pattern names them, in natural order.
    folders
        Folders that the whole pattern matches, in natural order.
    passed
        Why something was passed over (`HIDDEN`, `OWN`, `SIDE`, `SPECIAL`), to the paths.
    """

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    passed: dict[str, list[str]] = field(default_factory=dict)


def has_pattern(name: str) -> bool:
    """Whether a name may mean several files."""
    return any(mark in name for mark in "*?[")


def match_files(pattern: str, base: Path) -> Matches:
    """The files that `pattern` matches; a relative one begins at `base`.

    Raises
    ------
    LogError
        If a folder cannot be listed, or what matches is a link to nothing.
    """
    start = "/" if pattern.startswith("/") else str(base)
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if parts and parts[-1] == "**":
        parts.append("*")
    found = _Walk(parts)
    try:
        found.visit(start, 0, ())
    except RecursionError:
        raise LogError(f"the folders below {start} are nested too deep for {pattern!r}; name one of them") from None
    for paths in (found.matches.files, found.matches.folders, *found.matches.passed.values()):
        paths[:] = sorted(set(paths), key=natural_order)
    return found.matches


def natural_order(name: str) -> tuple[list[str | int], str]:
    """Key that sorts the numbers in names by size, and equal ones by their text.

    >>> sorted(["day_10", "day_02", "day_2"], key=natural_order)
    ['day_02', 'day_2', 'day_10']
    """
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)], name


class _Walk:
    def __init__(self, parts: Sequence[str]) -> None:
        self.matches = Matches()
        self._parts = parts
        self._seen: set[tuple[str, int]] = set()
        self._suffix = parts[-1].lower() if parts else ""

    def visit(self, folder: str, at: int, above: tuple[tuple[int, int], ...]) -> None:
        """Match the parts from `at` on below a folder; `above` are the folders that ``**`` came through."""
        if (folder, at) in self._seen:
            return
        self._seen.add((folder, at))
        part = self._parts[at]
        if part == "**":
            self._descend(folder, at, above)
            return
        name = os.path.join(folder, part)
        if not has_pattern(part) or os.path.lexists(name):
            self._reach(name, at, above, _is_folder(name))
            return
        is_match = _matcher(part)
        for entry in _entries(folder):
            if is_match(entry.name):
                self._found(entry, at, above, part)

    def _descend(self, folder: str, at: int, above: tuple[tuple[int, int], ...]) -> None:
        identity = _identity(folder)
        if identity is None or identity in above:
            return
        above = (*above, identity)
        self.visit(folder, at + 1, above)
        for entry in _entries(folder):
            if _entry_is_folder(entry) and not self._is_passed(entry.path, entry.name, "", is_folder=True):
                self.visit(entry.path, at, above)

    def _found(self, entry: os.DirEntry[str], at: int, above: tuple[tuple[int, int], ...], part: str) -> None:
        is_folder = _entry_is_folder(entry)
        may_match = is_folder or at == len(self._parts) - 1
        if may_match and not self._is_passed(entry.path, entry.name, part, is_folder=is_folder):
            self._reach(entry.path, at, above, is_folder)

    def _reach(self, path: str, at: int, above: tuple[tuple[int, int], ...], is_folder: bool) -> None:
        if at < len(self._parts) - 1:
            if is_folder:
                self.visit(path, at + 1, above)
        elif is_folder:
            self.matches.folders.append(path)
        elif os.path.lexists(path):
            self._take(path)

    def _take(self, path: str) -> None:
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            raise cannot_look(path, error) from None
        if stat.S_ISREG(mode):
            self.matches.files.append(path)
        else:
            self._pass(SPECIAL, path)

    def _is_passed(self, path: str, name: str, part: str, *, is_folder: bool) -> bool:
        why = why_passed(name, part, self._suffix, is_folder=is_folder)
        if why is None and is_folder and is_own_folder(path):
            why = OWN
        if why:
            self._pass(why, path)
        return why is not None

    def _pass(self, why: str, path: str) -> None:
        self.matches.passed.setdefault(why, []).append(path)


def why_passed(name: str, part: str, last: str, *, is_folder: bool) -> str | None:
    """Why a name that a part of a pattern matches is no part of the log: `HIDDEN`, `SIDE`; None where it is.

    Empty for names with a dot: every folder has some, and no pattern of a shell matches them, so they are not worth a
    line.

    Parameters
    ----------
    last
        The last part of the pattern, in small letters: it may name what is passed over otherwise.
    """
    if name.startswith(".") and not part.startswith("."):
        return ""
    if name.startswith("_") and not part.startswith("_") and not (is_folder and "=" in name):
        return HIDDEN
    suffix = next((end for end in _SIDE_SUFFIXES if name.lower().endswith(end)), None)
    return SIDE if suffix and not is_folder and not last.endswith(suffix) else None


def cannot_look(path: str, error: OSError) -> LogError:
    """The error for a name that is there and leads to nothing that can be read."""
    if os.path.islink(path) and isinstance(error, FileNotFoundError):
        return LogError(f"{path} is a link to {os.readlink(path)}, which does not exist; copy the file there again")
    return LogError(f"cannot read {path}: {reason(error)}; correct that, or take it out of the recipe")


def is_own_folder(path: str) -> bool:
    """Whether a folder is an artifact or a run folder of this program."""
    if os.path.lexists(os.path.join(path, LOCK)) and any(
        os.path.lexists(os.path.join(path, name)) for name in _RUN_FILES
    ):
        return True
    try:
        found = read_json(Path(path, MANIFEST))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"kind", "format_version", "fingerprint"} <= found.keys()


def _matcher(part: str) -> Callable[[str], object]:
    return re.compile(fnmatch.translate(part), re.DOTALL).match


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise LogError(f"cannot list the folder {folder}: {reason(error)}; correct that, or the recipe") from None


def _entry_is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to nothing, or in a circle
        return False


def _is_folder(path: str) -> bool:
    try:
        return os.path.isdir(path)
    except (OSError, ValueError):
        return False


def _identity(folder: str) -> tuple[int, int] | None:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino
