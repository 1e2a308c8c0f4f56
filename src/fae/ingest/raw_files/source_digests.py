"""The digests that identify the content of raw files, and the cache of those that did not change.

A source is identified by its file name, its size and the blake2b of its bytes: touching or moving a file does not make
a new log, changing one byte does. Digests of unchanged files (same place, size and modification time) are cached beside
the artifact, in ``<artifact>.sources.json``. That file may be deleted; it is part of neither the artifact nor its
fingerprint.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fae.artifacts.checksums import file_digest
from fae.core.files import read_advice
from fae.core.progress import task
from fae.core.threads import run_ranges
from fae.core.whole_files import read_json, write_json
from fae.ingest.config import LogConfig
from fae.ingest.readers.file_columns import folder_values
from fae.ingest.sources import MissingFilesError, SourceFile

_TRUST_AFTER_NS = 2 * 10**9
"""A file that changed less than this before it was hashed may change again without a new time: it is not cached."""

Digests = dict[str, dict[str, Any]]

_known_digests: Digests = {}
"""Digests that this process computed: `plan_ingest` and `ingest` of one run hash a log once, not twice."""


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
                    _known_digests[source.real] = {
                        "bytes": source.num_bytes,
                        "mtime_ns": source.mtime_ns,
                        "blake2b": digests[index],
                    }
                progress.advance(source.num_bytes)

        try:
            run_ranges(work, len(missing))
        except OSError as error:
            raise MissingFilesError(f"cannot read {error.filename}: {error.strerror}; {read_advice(error)}") from error
    if artifact is not None and artifact.is_dir():
        cache_digests(sources, artifact)
    return digests


def remember_digests(artifacts: Iterable[Path]) -> None:
    """Take over the digests in the sidecars of several logs; of a file in more than one, the newest."""
    for artifact in artifacts:
        for path, facts in _read_sidecar(artifact).items():
            times = [each.get("mtime_ns") for each in (facts, _known_digests.get(path, {}))]
            if isinstance(times[0], int) and (not isinstance(times[1], int) or times[1] < times[0]):
                _known_digests[path] = facts


def describe_sources(config: LogConfig, sources: Sequence[SourceFile], digests: Sequence[str]) -> list[dict[str, Any]]:
    """What a log's fingerprint says of each file: ``name``, ``bytes``, ``blake2b``; beside these its ``role``.

    The names of folders count as far as the recipe wants a column from them.
    """
    described = []
    for source, digest in zip(sources, digests, strict=True):
        facts: dict[str, Any] = {
            "role": source.role, "name": source.name, "bytes": source.num_bytes, "blake2b": digest,
        }  # fmt: skip
        values = folder_values(source.path)
        # The columns of a public log are fixed, and in its files.
        names = () if config.known else config.wanted_columns()
        if wanted := {name: values[name] for name in names if name in values}:
            facts["folders"] = wanted
        described.append(facts)
    return described


def are_digests_known(sources: Iterable[SourceFile]) -> bool:
    """Whether every file was hashed by this process, or in a log that `remember_digests` was told of."""
    return all(_cached_digest(_known_digests, source) for source in sources)


def cache_digests(sources: list[SourceFile], artifact: Path) -> None:
    """Write the sidecar of `artifact`; if the folder cannot be written to, the files are hashed again next time."""
    known = {source.real: _known_digests.get(source.real) for source in sources}
    with contextlib.suppress(OSError):
        write_json(sidecar(artifact), {path: facts for path, facts in known.items() if facts})


def _cached_digest(cached: Digests, source: SourceFile) -> str:
    facts = cached.get(source.real, {})
    if (facts.get("bytes"), facts.get("mtime_ns")) != (source.num_bytes, source.mtime_ns):
        return ""
    digest = facts.get("blake2b")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{32}", digest):
        return ""
    _known_digests[source.real] = facts
    return digest


def _read_sidecar(artifact: Path | None) -> Digests:
    if artifact is None:
        return {}
    try:
        found = read_json(sidecar(artifact))
    except (OSError, ValueError):
        return {}
    return {path: facts for path, facts in found.items() if isinstance(facts, dict)} if isinstance(found, dict) else {}
