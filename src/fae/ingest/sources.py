"""The raw files of a log: which they are, in which order.

A file is told by the name that the recipe gives it or its pattern matches; links are followed to its bytes alone.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from fae.core.errors import LogError
from fae.core.files import reason
from fae.ingest.config import LogConfig
from fae.ingest.raw_files.file_advice import folder_advice, not_plain, passed_over, shown_names
from fae.ingest.raw_files.missing_files import MissingFilesError as MissingFilesError
from fae.ingest.raw_files.name_patterns import SPECIAL, cannot_look, has_pattern, match_files
from fae.ingest.raw_files.remote_entries import RemoteEntry
from fae.ingest.raw_files.remote_files import RemotePath, source_path
from fae.ingest.raw_files.remote_name import is_remote
from fae.ingest.raw_files.remote_patterns import has_remote_pattern, look_at, match_remote
from fae.ingest.readers.chunk import NoInputsError

Role = Literal["train", "validation", "test"]

_NAMED: Mapping[Role, str] = {
    "train": "[log] train", "validation": "[log] validation", "test": "[log] test",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One raw file as it was when the log was planned.

    Attributes
    ----------
    path
        The file as the recipe names it: its name tells order and compression, links are not followed. Of a remote file
        a `fae.ingest.raw_files.remote_files.RemotePath`, which readers take like a path.
    real
        Where its bytes are: behind all links; of a remote file its name without settings.
    role
        Whether ``[log] train``, ``validation`` or ``test`` named it.
    mtime_ns
        Time of its last change; -1 where its store does not say.
    from_pattern
        Whether a pattern found it: a part without inputs is then passed over.
    """

    path: Path
    real: str
    role: Role
    num_bytes: int
    mtime_ns: int
    from_pattern: bool = False

    @property
    def name(self) -> str:
        """File name without its folder."""
        return self.path.name

    def check_unchanged(self) -> None:
        """Raise `LogError` if the file is no longer what it was when it was planned."""
        try:
            status = self.path.stat()
        except OSError:
            status = None
        if status is None or (status.st_size, status.st_mtime_ns) != (self.num_bytes, self.mtime_ns):
            raise self.changed()

    def changed(self) -> LogError:
        """The error for a file that is no longer what it was when it was planned."""
        return LogError(f"{self.path} changed while it was read; run the command again once it is complete")


@dataclass(frozen=True, kw_only=True)
class AbsentFiles:
    """A name or pattern of the recipe that leads to nothing that can be read.

    Attributes
    ----------
    pattern
        What the recipe says.
    error
        What is wrong with it.
    """

    pattern: str
    role: Role
    error: MissingFilesError


@contextlib.contextmanager
def passing_over_empty(source: SourceFile) -> Iterator[None]:
    """Around the reading of a file: one that a pattern found may hold no inputs, as clusters write empty parts."""
    try:
        yield
    except NoInputsError:
        if not source.from_pattern:
            raise


def find_sources(
    config: LogConfig, base: Path, *, lines: list[str] | None = None, named: Mapping[Role, str] = _NAMED
) -> list[SourceFile]:
    """The files of ``[log] train``, then those of ``validation``, then those of ``test``, in log order.

    Files of one pattern are in the natural order of the names that it matches (``day_2`` before ``day_10``).

    Parameters
    ----------
    lines
        Gets a line for people for each reason why something that a pattern matches is passed over.
    named
        What names the files of each role, for errors.

    Raises
    ------
    MissingFilesError
        If a name or pattern leads to no file.
    LogError
        If a file that is named outright is empty, one file is named twice, or something is no plain file.
    """
    found = look_for_sources(config, base, lines=lines, named=named)
    for each in found:
        if isinstance(each, AbsentFiles):
            raise each.error
    sources = [each for each in found if isinstance(each, SourceFile)]
    check_sources(config, sources, named)
    return sources


def look_for_sources(
    config: LogConfig, base: Path, *, lines: list[str] | None = None, named: Mapping[Role, str] = _NAMED
) -> list[SourceFile | AbsentFiles]:
    """As `find_sources`, but what is missing is in the list, in its place."""
    if config.is_columnar:
        raise LogError("[log] format = columnar is no raw log; open it with fae.artifacts.columnar_log.ColumnarLog")
    found: list[SourceFile | AbsentFiles] = []
    roles: tuple[tuple[Role, str | tuple[str, ...]], ...] = (
        ("train", config.train), ("validation", config.validation), ("test", config.test),
    )  # fmt: skip
    for role, value in roles:
        for pattern in (value,) if isinstance(value, str) else value:
            try:
                found += _expand(pattern, base, role, named[role], [] if lines is None else lines)
            except MissingFilesError as error:
                found.append(AbsentFiles(pattern=pattern, role=role, error=error))
    return found


def check_sources(config: LogConfig, sources: list[SourceFile], named: Mapping[Role, str] = _NAMED) -> None:
    """Refuse a log without files, a file that is named twice, and files that `config` cannot take together."""
    if not any(source.role == "train" for source in sources):
        raise LogError(f"{named['train']} names no file; write the files or globs of the log")
    seen: dict[str, SourceFile] = {}
    for source in sources:
        known = seen.setdefault(source.real, source)
        if known is not source:
            links = "" if known.path == source.path else f" (also as {known.path})"
            raise LogError(
                f"{source.path}{links} is named twice, by {named[known.role]} and by {named[source.role]}; name it once"
            )
    _check_number(config, sources)


def _check_number(config: LogConfig, sources: list[SourceFile]) -> None:
    if config.format == "taobao" and len(sources) > 1:
        raise LogError(
            f"[log] format = taobao reads one file, and there are {len(sources)}; name UserBehavior.csv alone"
        )
    if config.known and config.known.split == "last file" and config.has_published_split() and len(sources) == 1:
        raise LogError(
            f"[log] format = {config.format} halves the last of its files for validation and test, and there is only "
            f"{sources[0].name}; name all days, or set [log] test_fraction"
        )


def _expand(pattern: str, base: Path, role: Role, where: str, lines: list[str]) -> list[SourceFile]:
    if is_remote(pattern):
        return _expand_remote(pattern, role, where, lines)
    name = os.path.expanduser(pattern)
    path = os.path.join(os.path.abspath(base), name)
    if not has_pattern(name) or os.path.lexists(path):
        return [_named_file(path, pattern, role, where)]
    matches = match_files(name, Path(os.path.abspath(base)))
    told = f"{where} = {pattern!r}"
    lines += passed_over(matches.passed, told)
    sources = [_source(found, role, from_pattern=True) for found in matches.files]
    if with_bytes := _with_bytes(sources, told, lines):
        return with_bytes
    if matches.folders:
        what = f"the folder {matches.folders[0]}" if len(matches.folders) == 1 else f"{len(matches.folders)} folders"
        raise MissingFilesError(f"{told} matches {what} and no file; {folder_advice(matches.folders, pattern)}")
    if matches.passed.get(SPECIAL):
        special = matches.passed[SPECIAL][0]
        raise not_plain(special, os.stat(special).st_mode)
    others = f" but {'; '.join(lines)}" if lines else ""
    raise MissingFilesError(f"{told} matches no file under {base.absolute()}{others}; correct the pattern")


def _with_bytes(sources: list[SourceFile], told: str, lines: list[str]) -> list[SourceFile]:
    if empty := [source.path.name for source in sources if not source.num_bytes]:
        lines.append(
            f"{told} passes over {len(empty)} {'file' if len(empty) == 1 else 'files'} of 0 bytes: {shown_names(empty)}"
        )
    return [source for source in sources if source.num_bytes]


def _expand_remote(pattern: str, role: Role, where: str, lines: list[str]) -> list[SourceFile]:
    path = cast("RemotePath", source_path(pattern))
    if not has_remote_pattern(path):
        source = _remote_source(path, look_at(path, _advice(where)), role, from_pattern=False)
        if source.num_bytes == 0:
            raise _is_empty(path, where)
        return [source]
    matches = match_remote(path)
    told = f"{where} = {str(path)!r}"
    lines += passed_over(matches.passed, told)
    sources = [_remote_source(path.at(found.place), found, role, from_pattern=True) for found in matches.files]
    if with_bytes := _with_bytes(sources, told, lines):
        return with_bytes
    if matches.folders:
        raise MissingFilesError(
            f"{told} matches {shown_names(matches.folders)}, which is no file; write {str(path).rstrip('/') + '/*'!r} "
            "to read the files in it"
        )
    others = f" but {'; '.join(lines)}" if lines else ""
    raise MissingFilesError(f"{told} matches no file{others}; correct the pattern")


def _remote_source(path: RemotePath, found: RemoteEntry, role: Role, *, from_pattern: bool) -> SourceFile:
    return SourceFile(
        path=cast("Path", path), real=path.identity, role=role, num_bytes=found.num_bytes, mtime_ns=found.mtime_ns,
        from_pattern=from_pattern,
    )  # fmt: skip


def _is_empty(path: object, where: str) -> LogError:
    return LogError(f"{path} is empty (0 bytes); copy it again or take it out of {where}")


def _named_file(path: str, pattern: str, role: Role, where: str) -> SourceFile:
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.islink(path):
            raise MissingFilesError(str(cannot_look(path, error))) from None
        raise MissingFilesError(f"{path} does not exist; {_advice(where)} (now {pattern!r})") from None
    except OSError as error:
        raise MissingFilesError(f"cannot read {path}: {reason(error)}; correct that, or {where}") from None
    if stat.S_ISDIR(mode):
        raise LogError(f"{path} is a folder; {folder_advice([path], pattern)} ({where} is now {pattern!r})")
    if not stat.S_ISREG(mode):
        raise not_plain(path, mode)
    source = _source(path, role, from_pattern=False)
    if source.num_bytes == 0:
        raise _is_empty(path, where)
    return source


def _advice(where: str) -> str:
    return f"set {where} to the files of the log" if where in _NAMED.values() else f"correct the name of {where}"


def _source(path: str, role: Role, *, from_pattern: bool) -> SourceFile:
    try:
        status, real = os.stat(path), os.path.realpath(path)
    except OSError as error:
        raise cannot_look(path, error) from None
    return SourceFile(
        path=Path(path), real=real, role=role, num_bytes=status.st_size, mtime_ns=status.st_mtime_ns,
        from_pattern=from_pattern,
    )  # fmt: skip
