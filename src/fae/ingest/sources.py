"""The raw files of a log: which they are, in which order, and the digests that identify their content.

A source is identified by its file name, its size and the blake2b of its bytes: touching or moving a file does not make
a new log, changing one byte does. Digests of unchanged files (same absolute path, size and modification time) are
cached beside the artifact, in ``<artifact>.sources.json``. That file may be deleted; it is part of neither the artifact
nor its fingerprint.
"""

from __future__ import annotations

import contextlib
import glob
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fae.artifacts.checksums import file_digest
from fae.core.errors import LogError
from fae.core.progress import task
from fae.core.threads import run_ranges
from fae.core.whole_files import read_json, write_json
from fae.ingest.config import LogConfig

_TRUST_AFTER_NS = 2 * 10**9
"""A file that changed less than this before it was hashed may change again without a new time: it is not cached."""

Role = Literal["train", "test"]
Digests = dict[str, dict[str, Any]]

_known_digests: Digests = {}
"""Digests that this process computed: `plan_ingest` and `ingest` of one run hash a log once, not twice."""


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One raw file as it was when the log was planned.

    Attributes
    ----------
    role
        Whether ``[log] train`` or ``[log] test`` named it.
    """

    path: Path
    role: Role
    num_bytes: int
    mtime_ns: int

    @property
    def name(self) -> str:
        """File name without its folder."""
        return self.path.name

    def check_unchanged(self) -> None:
        """Raise `LogError` if the file is no longer what it was when it was planned."""
        status = self.path.stat() if self.path.is_file() else None
        if status is None or (status.st_size, status.st_mtime_ns) != (self.num_bytes, self.mtime_ns):
            raise LogError(f"{self.path} changed while it was read; run the command again once it is complete")


def find_sources(config: LogConfig, base: Path) -> list[SourceFile]:
    """The files of ``[log] train`` and then those of ``[log] test``, in log order.

    Files of one glob are in natural order (``day_2`` before ``day_10``).

    Raises
    ------
    LogError
        If a name or glob matches no file, a file is empty, or one file is named twice.
    """
    if config.is_columnar:
        raise LogError("[log] format = columnar is no raw log; open it with fae.artifacts.columnar_log.ColumnarLog")
    sources: list[SourceFile] = []
    roles: tuple[tuple[Role, str | tuple[str, ...]], ...] = (("train", config.train), ("test", config.test))
    for role, value in roles:
        for pattern in (value,) if isinstance(value, str) else value:
            for path in _expand(pattern, base, role):
                status = path.stat()
                if status.st_size == 0:
                    raise LogError(f"{path} is empty (0 bytes); copy it again or take it out of [log] {role}")
                sources.append(SourceFile(path=path, role=role, num_bytes=status.st_size, mtime_ns=status.st_mtime_ns))
    if not any(source.role == "train" for source in sources):
        raise LogError("[log] train names no file; write the files or globs of the log")
    seen: dict[Path, Role] = {}
    for source in sources:
        if source.path in seen:
            raise LogError(
                f"{source.path} is named twice, by [log] {seen[source.path]} and by [log] {source.role}; name it once"
            )
        seen[source.path] = source.role
    _check_number(config, sources)
    return sources


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


def _expand(pattern: str, base: Path, role: Role) -> list[Path]:
    path = (base / Path(pattern).expanduser()).absolute()
    if path.is_file():
        return [path.resolve()]
    if not glob.has_magic(pattern):
        found = "is a folder" if path.is_dir() else "does not exist"
        raise LogError(f"{path} {found}; set [log] {role} to the files of the log (now {pattern!r})")
    paths = [Path(match).resolve() for match in glob.glob(str(path), recursive=True) if Path(match).is_file()]
    if not paths:
        raise LogError(f"[log] {role} = {pattern!r} matches no file under {base.absolute()}; correct the pattern")
    return sorted(paths, key=_natural_order)


def _natural_order(path: Path) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", str(path))]


def sidecar(artifact: Path) -> Path:
    """File in which the digests of the sources of `artifact` are cached."""
    return artifact.with_name(f"{artifact.name}.sources.json")


def digest_sources(sources: list[SourceFile], artifact: Path | None) -> list[str]:
    """Hex blake2b of each file's bytes; files that did not change since they were last hashed are not read.

    Parameters
    ----------
    artifact
        Path of the log, made or not; its sidecar is read if it exists.
    """
    cached = {**_read_sidecar(artifact), **_known_digests}
    digests = [_cached_digest(cached, source) for source in sources]
    missing = [index for index, digest in enumerate(digests) if not digest]
    if not missing:
        return digests
    with task("ingest: naming the sources", sum(sources[index].num_bytes for index in missing), "bytes") as progress:

        def work(start: int, stop: int) -> None:
            for index in missing[start:stop]:
                source = sources[index]
                before_ns = time.time_ns()
                digests[index] = file_digest(source.path)
                if before_ns - source.mtime_ns >= _TRUST_AFTER_NS:
                    _known_digests[str(source.path)] = {
                        "bytes": source.num_bytes,
                        "mtime_ns": source.mtime_ns,
                        "blake2b": digests[index],
                    }
                progress.advance(source.num_bytes)

        try:
            run_ranges(work, len(missing))
        except OSError as error:
            raise LogError(f"cannot read {error.filename}: {error.strerror}; check its permissions") from error
    if artifact is not None and artifact.is_dir():
        cache_digests(sources, artifact)
    return digests


def cache_digests(sources: list[SourceFile], artifact: Path) -> None:
    """Write the sidecar of `artifact`; if the folder cannot be written to, the files are hashed again next time."""
    known = {str(source.path): _known_digests.get(str(source.path)) for source in sources}
    with contextlib.suppress(OSError):
        write_json(sidecar(artifact), {path: facts for path, facts in known.items() if facts})


def _cached_digest(cached: Digests, source: SourceFile) -> str:
    facts = cached.get(str(source.path), {})
    if (facts.get("bytes"), facts.get("mtime_ns")) != (source.num_bytes, source.mtime_ns):
        return ""
    digest = facts.get("blake2b")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{32}", digest):
        return ""
    _known_digests[str(source.path)] = facts
    return digest


def _read_sidecar(artifact: Path | None) -> Digests:
    if artifact is None:
        return {}
    try:
        found = read_json(sidecar(artifact))
    except (OSError, ValueError):
        return {}
    return {path: facts for path, facts in found.items() if isinstance(facts, dict)} if isinstance(found, dict) else {}
