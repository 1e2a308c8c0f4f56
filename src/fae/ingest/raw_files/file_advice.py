"""What to say of a name that is no plain file, of what a pattern passed over, and of files with the same content."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from fae.core.errors import LogError
from fae.ingest.raw_files.digest_kinds import content_in
from fae.ingest.raw_files.name_patterns import HIDDEN, OWN, SIDE, SPECIAL

_MOST_LISTED = 2000
_NAMED = 3
_NOT_PLAIN = {
    stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip
_PASSED = {
    HIDDEN: "whose names begin with _, as clusters name what is no data",
    OWN: "that are artifacts or run folders of fae",
    SIDE: "whose names say that they are no logs",
    SPECIAL: "that are no plain files",
}


def not_plain(path: str, mode: int) -> LogError:
    """The error for a pipe, a socket or a device."""
    what = _NOT_PLAIN.get(stat.S_IFMT(mode), "no plain file")
    return LogError(
        f"{path} is {what}, and a log must be a plain file, because it is read twice (its digest, then its inputs); "
        "write it to a file first and name that"
    )


def parts_of(folder: str) -> str:
    """The pattern, relative to a folder, that the files in it have in common: ``*.csv``, ``**/*.parquet``.

    Empty where there is none: a folder without files.
    """
    names: Counter[str] = Counter()
    is_flat = False
    for place, folders, files in islice(os.walk(folder), _MOST_LISTED):
        folders[:] = [name for name in folders if not name.startswith((".", "_")) or "=" in name]
        shown = [name for name in files if not name.startswith((".", "_"))]
        if shown and place == folder:
            is_flat = True
        names.update("*" + _suffixes(name) for name in shown)
        if is_flat and names:
            break
    if not names:
        return ""
    common = min(names.items(), key=lambda item: (-item[1], item[0]))[0]
    return common if is_flat else f"**/{common}"


def _suffixes(name: str) -> str:
    """The end of a name that says what it is: ``.csv.gz`` of ``day_1.csv.gz``."""
    stem, last = os.path.splitext(name)
    inner = os.path.splitext(stem)[1]
    return inner + last if last.lower() in (".gz", ".zst") and inner else last


def folder_advice(folders: Sequence[str], pattern: str) -> str:
    """What to write instead of a name or pattern that means folders."""
    inside = next((found for found in map(parts_of, folders) if found), "")
    if not inside:
        return "it holds no files; correct the name" if len(folders) == 1 else "they hold no files; correct the pattern"
    # Of one folder its name, which is shorter and matches nothing else.
    start = pattern.rstrip("/")
    if len(folders) == 1:
        head, _, last = start.rpartition("/")
        name = os.path.basename(folders[0].rstrip("/"))
        if last != name and "**" not in head:
            start = f"{head}/{name}" if head else name
    return f"write {f'{start}/{inside}'!r} to read the files in it"


def passed_over(passed: Mapping[str, Sequence[str]], where: str) -> list[str]:
    """One line for each reason why files or folders that a pattern matches are no part of the log."""
    return [
        f"{where} passes over {len(paths)} {_noun(why, len(paths))} {_PASSED[why]}: {shown_names(paths)}"
        for why, paths in passed.items()
    ]


def _noun(why: str, number: int) -> str:
    noun = "folder" if why == OWN else "name" if why == SPECIAL else "file or folder" if why == HIDDEN else "file"
    return noun if number == 1 else noun.replace("file", "files").replace("folder", "folders").replace("name", "names")


def shown_names(names: Sequence[str]) -> str:
    """The first few of some names.

    >>> shown_names(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def content_notes(
    files: Sequence[Mapping[str, Any]], counts: Sequence[int], paths: Sequence[Path] | None = None
) -> list[str]:
    """Lines on files of one content, by their digests, and on parts without inputs.

    Parameters
    ----------
    files
        For each file its ``role``, ``name``, ``bytes`` and digest, and ``folders``, the values that its folders
        give to columns. Equal bytes in folders of other values are other inputs.
    counts
        Inputs of each.
    paths
        Where the files are: those of one name are shown with as many of their folders as tell them apart.
    """
    notes: list[str] = []
    shown = _told_apart([str(file["name"]) for file in files], paths)
    empty = [name for name, count in zip(shown, counts, strict=True) if not count]
    if empty:
        notes.append(
            f"{len(empty)} {'file holds' if len(empty) == 1 else 'files hold'} no inputs and "
            f"{'is' if len(empty) == 1 else 'are'} passed over: {shown_names(empty)}"
        )
    first: dict[tuple[tuple[str, str], str], int] = {}
    again: list[str] = []
    leaked: list[str] = []
    for index, (file, count) in enumerate(zip(files, counts, strict=True)):
        content = (content_in(file), json.dumps(file.get("folders", {}), sort_keys=True))
        known = first.setdefault(content, index) if count else index
        if known != index:
            is_leaked = files[known]["role"] != "test" and file["role"] == "test"
            (leaked if is_leaked else again).append(f"{shown[index]} and {shown[known]}")
    if again:
        notes.append(
            f"{_pairs(again)} the same bytes: their inputs are in the log twice, and may be in training and test both; "
            f"take one of them out: {shown_names(again)}"
        )
    if leaked:
        notes.append(
            f"{_pairs(leaked)} the same bytes, one in [log] test and one not: the test split is what was trained "
            f"on, so its metrics say nothing; correct [log] test: {shown_names(leaked)}"
        )
    twins = _packed_twins(files)
    if twins:
        notes.append(
            f"{_pairs(twins)} one name, packed and unpacked: their inputs are probably in the log twice; take one of "
            f"them out: {shown_names(twins)}"
        )
    return notes


def _told_apart(names: Sequence[str], paths: Sequence[Path] | None) -> list[str]:
    times = Counter(names)
    if paths is None:
        return [
            name if times[name] == 1 else f"{name} (file {number} of {len(names)})"
            for number, name in enumerate(names, 1)
        ]
    parts = [path.parts for path in paths]
    shown, depth = list(names), 2
    while len({*shown}) < len(shown) and depth <= max(map(len, parts)):
        again = Counter(shown)
        shown = ["/".join(own[-depth:]) if again[name] > 1 else name for name, own in zip(shown, parts, strict=True)]
        depth += 1
    return shown


def _pairs(pairs: Sequence[str]) -> str:
    return "two files have" if len(pairs) == 1 else f"{len(pairs)} pairs of files have"


def _packed_twins(files: Sequence[Mapping[str, Any]]) -> list[str]:
    names = Counter(str(file["name"]) for file in files)
    return [
        f"{name} and {name}{end}"
        for name, count in names.items()
        for end in (".gz", ".zst")
        if count == 1 and names[name + end] == 1
    ]
