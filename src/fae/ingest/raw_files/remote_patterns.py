"""Find the remote files that a name or a pattern means, by the rules of `fae.ingest.raw_files.name_patterns`.

A store is listed folder by folder, as far as the pattern names them; behind ``**`` all at once. ``?`` is no mark of a
pattern here, because it begins the settings of the store.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field

from fae.core.errors import LogError
from fae.ingest.raw_files.missing_files import MissingFilesError
from fae.ingest.raw_files.name_patterns import natural_order, why_passed
from fae.ingest.raw_files.remote_entries import RemoteEntry, Store
from fae.ingest.raw_files.remote_faults import no_bucket
from fae.ingest.raw_files.remote_name import RemoteName
from fae.ingest.raw_files.remote_stores import store_of


@dataclass
class RemoteMatches:
    """What a pattern matches; as `fae.ingest.raw_files.name_patterns.Matches`.

    Attributes
    ----------
    files, folders
        In natural order of their places.
    """

    files: list[RemoteEntry] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    passed: dict[str, list[str]] = field(default_factory=dict)


def has_remote_pattern(path: RemoteName) -> bool:
    """Whether a name may mean several files."""
    return any(mark in path.place for mark in "*[")


def look_at(path: RemoteName, advice: str) -> RemoteEntry:
    """The file that a name means.

    Parameters
    ----------
    advice
        What to do where there is none.

    Raises
    ------
    MissingFilesError
        If there is none, or it cannot be reached.
    LogError
        If it is a folder.
    """
    if not path.key:
        raise LogError(f"{path} names no file; write what is in it behind a slash, such as {path}/*.csv")
    store = store_of(path)
    found = store.status_of(path)
    if found is None:
        _check_bucket(path)
        raise MissingFilesError(f"{path} does not exist; {advice}")
    if found.is_folder:
        raise LogError(f"{path} is a folder; write '{str(path).rstrip('/')}/*' to read the files in it")
    return found


def match_remote(pattern: RemoteName) -> RemoteMatches:
    """The files that a pattern matches.

    Raises
    ------
    MissingFilesError
        If the store cannot be reached or listed.
    LogError
        If it lists nothing.
    """
    if pattern.is_web:
        raise LogError(f"{pattern}: a web server lists no files, so * and [...] match none; name each file")
    if any(mark in pattern.root for mark in "*["):
        raise LogError(f"{pattern}: the bucket is a name and no pattern; write it in full")
    walk = _Walk(pattern)
    walk.visit(pattern.root, 0)
    found = walk.matches
    if not found.files and not found.folders:
        _check_bucket(pattern)
    found.files = sorted({entry.place: entry for entry in found.files}.values(), key=lambda e: natural_order(e.place))
    for places in (found.folders, *found.passed.values()):
        places[:] = sorted(set(places), key=natural_order)
    return found


def _check_bucket(path: RemoteName) -> None:
    if path.scheme in ("s3", "gs") and store_of(path).status_of(path.at(path.root)) is None:
        raise no_bucket(path)


class _Walk:
    def __init__(self, pattern: RemoteName) -> None:
        self.matches = RemoteMatches()
        self._pattern, self._store = pattern, store_of(pattern)
        self._parts = [part for part in pattern.key.split("/") if part]
        if self._parts[-1] == "**":
            self._parts.append("*")
        self._last = self._parts[-1].lower()

    def visit(self, folder: str, at: int) -> None:
        """Match the parts from `at` on below a folder."""
        part, is_last = self._parts[at], at == len(self._parts) - 1
        if part == "**":
            self._descend(folder, at)
            return
        if not any(mark in part for mark in "*[") and not is_last:
            self.visit(f"{folder}/{part}", at + 1)
            return
        for entry in _list(self._store, self._pattern, folder, recursive=False):
            name = _name(entry)
            if not (name == part or fnmatch.fnmatchcase(name, part)) or not (entry.is_folder or is_last):
                continue
            if self._is_passed(entry, name, part):
                continue
            if not is_last:
                self.visit(entry.place, at + 1)
            elif entry.is_folder:
                self.matches.folders.append(str(self._pattern.at(entry.place)))
            else:
                self.matches.files.append(entry)

    def _descend(self, folder: str, at: int) -> None:
        entries = _list(self._store, self._pattern, folder, recursive=True)
        passed: set[str] = set()
        for entry in sorted(entries, key=lambda entry: entry.place.count("/")):
            names = entry.place.removeprefix(f"{folder}/").split("/")
            if entry.place.rpartition("/")[0] in passed:
                passed.add(entry.place)
            elif entry.is_folder:
                if why_passed(names[-1], "", self._last, is_folder=True) is not None:
                    self._is_passed(entry, names[-1], "")
                    passed.add(entry.place)
            elif _matches(self._parts[at:], names) and not self._is_passed(entry, names[-1], self._parts[-1]):
                self.matches.files.append(entry)

    def _is_passed(self, entry: RemoteEntry, name: str, part: str) -> bool:
        why = why_passed(name, part, self._last, is_folder=entry.is_folder)
        if why:
            self.matches.passed.setdefault(why, []).append(str(self._pattern.at(entry.place)))
        return why is not None


def _list(store: Store, pattern: RemoteName, folder: str, *, recursive: bool) -> list[RemoteEntry]:
    return store.entries(pattern.at(folder), recursive=recursive)


def _name(entry: RemoteEntry) -> str:
    return entry.place.rstrip("/").rpartition("/")[2]


def _matches(parts: Sequence[str], names: Sequence[str]) -> bool:
    """Whether names match the parts of a pattern, in which ``**`` is any number of folders.

    >>> _matches(["**", "*.csv"], ["a", "b", "x.csv"]), _matches(["a", "*.csv"], ["a", "b", "x.csv"])
    (True, False)
    """
    if not parts:
        return not names
    if parts[0] == "**":
        return any(_matches(parts[1:], names[start:]) for start in range(len(names)))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and _matches(parts[1:], names[1:])
