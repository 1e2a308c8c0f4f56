"""The digests that identify the content of raw files, and the cache of those that did not change.

A source is identified by its file name, its size and a digest of its bytes: touching or moving a file does not make a
new log, changing one byte does. Digests of unchanged files (same place, size and modification time) are cached beside
the artifact, in ``<artifact>.sources.json``, which may have several kinds (`fae.ingest.raw_files.digest_kinds`).
That file may be deleted; it is part of neither the artifact nor its fingerprint.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fae.artifacts.block_digests import ShortFileError, digest_files
from fae.core.errors import LogError
from fae.core.files import read_advice
from fae.core.progress import task
from fae.core.threads import run_ranges
from fae.core.whole_files import read_json, write_json
from fae.ingest.config import LogConfig
from fae.ingest.raw_files.digest_kinds import (
    BLOCKS,
    FORMER_BLOCKS,
    WHOLE,
    digest_by_kind,
    digest_in,
    function_of_blocks,
    kind_in,
)
from fae.ingest.raw_files.digests_ahead import TRUST_AFTER_NS, FileState, take_digests
from fae.ingest.raw_files.former_logs import find_kind, is_named_by, remember_log
from fae.ingest.raw_files.remote_files import open_blocks, workers_for
from fae.ingest.readers.file_columns import folder_values
from fae.ingest.sources import MissingFilesError, SourceFile

Digests = dict[str, dict[str, Any]]

_known_digests: Digests = {}
"""Digests that this process computed: `plan_ingest` and `ingest` of one run hash a log once, not twice."""


def sidecar(artifact: Path) -> Path:
    """File in which the digests of the sources of `artifact` are cached."""
    return artifact.with_name(f"{artifact.name}.sources.json")


class SourceDigests:
    """The digests of some raw files, computed when they are wanted.

    Parameters
    ----------
    artifact
        Path of the log, made or not; its sidecar is read if it exists.

    Attributes
    ----------
    former
        The log that is at `artifact`; None where there is none that was made from raw files.
    """

    def __init__(self, sources: Sequence[SourceFile], artifact: Path | None) -> None:
        self._sources, self._artifact = list(sources), artifact
        self._cached = _read_sidecar(artifact)
        for path, facts in _known_digests.items():
            self._cached[path] = _joined(self._cached.get(path, {}), facts)
        for source in self._sources:
            if _is_of(facts := self._cached.get(source.real, {}), source):
                _known_digests[source.real] = facts
        self._found: dict[str, list[str]] = {}
        self.former = None if artifact is None else remember_log(artifact)

    def of(self, kind: str = BLOCKS) -> list[str]:
        """Hex digest of each file's bytes; files that did not change since they were last hashed are not read.

        Raises
        ------
        MissingFilesError
            If a file cannot be read.
        LogError
            If one changes while it is read.
        """
        if kind not in self._found:
            digests = [_cached_digest(self._cached, source, kind) for source in self._sources]
            missing = [source for source, digest in zip(self._sources, digests, strict=True) if not digest]
            if missing:
                found = dict(zip((source.real for source in missing), _compute(missing, kind), strict=True))
                digests = [digest or found[source.real] for source, digest in zip(self._sources, digests, strict=True)]
                if self._artifact is not None and self._artifact.is_dir():
                    cache_digests(self._sources, self._artifact)
            self._found[kind] = digests
        return self._found[kind]


def digest_sources(sources: Sequence[SourceFile], artifact: Path | None) -> SourceDigests:
    """The digests of raw files; see `SourceDigests`."""
    return SourceDigests(sources, artifact)


def remember_digests(artifacts: Iterable[Path]) -> None:
    """Take over the names of several logs and the digests in their sidecars; of a file in more than one, the newest."""
    for artifact in artifacts:
        remember_log(artifact)
        for path, facts in _read_sidecar(artifact).items():
            known = _known_digests.get(path, {})
            times = [each.get("mtime_ns") for each in (facts, known)]
            if isinstance(times[0], int) and (not isinstance(times[1], int) or times[1] <= times[0]):
                _known_digests[path] = _joined(known, facts)


def describe_sources(config: LogConfig, sources: Sequence[SourceFile], digests: SourceDigests) -> list[dict[str, Any]]:
    """What a log's fingerprint says of each file: ``name``, ``bytes`` and its digest; beside these its ``role``.

    The names of folders count as far as the recipe wants a column from them.
    """
    files = _without_digests(config, sources)
    kind = find_kind(config, files, digests.of, digests.former)
    return [{**facts, kind: digest} for facts, digest in zip(files, digests.of(kind), strict=True)]


def are_digests_known(config: LogConfig, sources: Sequence[SourceFile]) -> bool:
    """Whether `describe_sources` reads no file: this process hashed all, or was told of logs that know them."""
    if all(_cached_digest(_known_digests, source, BLOCKS) for source in sources):
        return True
    for kind in (FORMER_BLOCKS, WHOLE):
        found = [_cached_digest(_known_digests, source, kind) for source in sources]
        if all(found) and is_named_by(kind, config, _without_digests(config, sources), found):
            return True
    return False


def cache_digests(sources: Sequence[SourceFile], artifact: Path) -> None:
    """Write the sidecar of `artifact`; if the folder cannot be written to, the files are hashed again next time."""
    known = {source.real: _known_digests.get(source.real) for source in sources}
    with contextlib.suppress(OSError):
        write_json(sidecar(artifact), {path: facts for path, facts in known.items() if facts})


def has_content(path: Path, source: Mapping[str, Any], cached: Any) -> bool:
    """Whether a file is the raw file of a manifest; one that did not change since it was hashed is not read.

    Parameters
    ----------
    source
        Its facts in the manifest.
    cached
        Its facts in the sidecar; anything where there are none.
    """
    kind = kind_in(source)
    try:
        status = path.stat()
        if path.name != source.get("name") or status.st_size != source.get("bytes"):
            return False
        if isinstance(cached, dict) and cached.get("mtime_ns") == status.st_mtime_ns and digest_in(cached, kind):
            return digest_in(cached, kind) == digest_in(source, kind)
        return digest_by_kind(path, kind) == digest_in(source, kind)
    except (OSError, LogError):
        return False


def _without_digests(config: LogConfig, sources: Sequence[SourceFile]) -> list[dict[str, Any]]:
    # The columns of a public log are fixed, and in its files.
    names = () if config.known else config.wanted_columns()
    described = []
    for source in sources:
        values = folder_values(source.path)
        facts: dict[str, Any] = {"role": source.role, "name": source.name, "bytes": source.num_bytes}
        if wanted := {name: values[name] for name in names if name in values}:
            facts["folders"] = wanted
        described.append(facts)
    return described


def _compute(sources: Sequence[SourceFile], kind: str) -> list[str]:
    """Digests of files that are read for it; what may not change any more is cached in this process."""
    before_ns = time.time_ns()
    num_bytes = sum(source.num_bytes for source in sources)
    try:
        with task("ingest: naming the sources", num_bytes, "bytes") as progress:
            if kind != WHOLE:
                digests = _block_digests(sources, kind, progress.advance)
            else:
                digests = _whole_digests(sources, progress.advance)
    except OSError as error:
        raise MissingFilesError(f"cannot read {error.filename}: {error.strerror}; {read_advice(error)}") from error
    for source, digest in zip(sources, digests, strict=True):
        if source.mtime_ns >= 0 and before_ns - source.mtime_ns >= TRUST_AFTER_NS:
            facts = {"bytes": source.num_bytes, "mtime_ns": source.mtime_ns, kind: digest}
            _known_digests[source.real] = _joined(_known_digests.get(source.real, {}), facts)
    return digests


def _block_digests(sources: Sequence[SourceFile], kind: str, advance: Callable[[float], None]) -> list[str]:
    states = [FileState(source.real, source.num_bytes, source.mtime_ns) for source in sources]
    found = take_digests(states, advance) if kind == BLOCKS else {}
    missing = [index for index, state in enumerate(states) if state not in found]
    try:
        others = digest_files(
            [partial(open_blocks, sources[index].path) for index in missing],
            [sources[index].num_bytes for index in missing],
            advance=advance,
            workers=workers_for([sources[index].path for index in missing]),
            kind=function_of_blocks(kind),
        )
    except ShortFileError as error:
        raise sources[missing[error.args[0]]].changed() from error
    digests = dict(zip(missing, others, strict=True))
    return [digests[index] if index in digests else found[state] for index, state in enumerate(states)]


def _whole_digests(sources: Sequence[SourceFile], advance: Callable[[float], None]) -> list[str]:
    digests = [""] * len(sources)

    def work(start: int, stop: int) -> None:
        for index in range(start, stop):
            digests[index] = digest_by_kind(sources[index].path, WHOLE)
            advance(sources[index].num_bytes)

    run_ranges(work, len(sources))
    return digests


def _cached_digest(cached: Digests, source: SourceFile, kind: str) -> str:
    facts = cached.get(source.real, {})
    return digest_in(facts, kind) if _is_of(facts, source) else ""


def _is_of(facts: Mapping[str, Any], source: SourceFile) -> bool:
    """Whether what is cached of a file is of the file as it is now."""
    return (facts.get("bytes"), facts.get("mtime_ns")) == (source.num_bytes, source.mtime_ns)


def _joined(facts: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """What is known of a file: digests of all kinds where it did not change in between, else what was found later."""
    is_same = all(facts.get(key) == later.get(key) for key in ("bytes", "mtime_ns"))
    return {**facts, **later} if is_same else later


def _read_sidecar(artifact: Path | None) -> Digests:
    if artifact is None:
        return {}
    try:
        found = read_json(sidecar(artifact))
    except (OSError, ValueError):
        return {}
    return {path: facts for path, facts in found.items() if isinstance(facts, dict)} if isinstance(found, dict) else {}
