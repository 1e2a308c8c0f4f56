"""The plan of a log whose raw files are gone, taken from the log that was made from them."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fae.artifacts.columnar_log import FORMAT_VERSION, KIND
from fae.artifacts.manifest import Manifest, Plan, read_manifest
from fae.core.errors import ArtifactError
from fae.ingest.raw_files.digest_kinds import content_in, kind_in
from fae.ingest.raw_files.name_patterns import has_pattern
from fae.ingest.raw_files.remote_files import RemotePath, source_path
from fae.ingest.raw_files.source_digests import digest_sources
from fae.ingest.sources import AbsentFiles, MissingFilesError, SourceFile

Found = Sequence[SourceFile | AbsentFiles]


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """A raw file as the manifest of the log describes it."""

    role: str
    facts: dict[str, Any]


def plan_of_absent(
    found: Found, previous: Path | None, command: str, make_plan: Callable[[list[dict[str, Any]]], Plan]
) -> tuple[Plan, str] | None:
    """The plan of the log at `previous`, where it is the one that the recipe would make if its files were there.

    Files that are there must be those of the log; only what leads to no file is taken from its manifest.

    Parameters
    ----------
    found
        The files of the recipe and what is missing.
    make_plan
        From the ``sources`` of a log, with the ``role`` of each, to its plan.

    Returns
    -------
    The plan, and a line for people that says what was not looked at; None where there is no such log.
    """
    try:
        if previous is None:
            return None
        manifest = read_manifest(previous, KIND, FORMAT_VERSION, command=command)
    except ArtifactError:
        return None
    kept = _kept_files(manifest)
    missing = _match(found, kept)
    if not missing:
        return None
    there = [each for each in found if isinstance(each, SourceFile)]
    kinds, known = {kind_in(each.facts) for each in kept}, {content_in(each.facts)[1] for each in kept}
    try:
        digests = digest_sources(there, previous)
        if len(kinds) != 1 or not known.issuperset(digests.of(*kinds)):
            return None
    except MissingFilesError:
        return None
    plan = make_plan([{"role": each.role, **each.facts} for each in kept])
    if plan.fingerprint != manifest.fingerprint:
        return None
    more = f" (and {missing - 1} more)" if missing > 1 else ""
    first = next(each.error for each in found if isinstance(each, AbsentFiles))
    reason = str(first).split("; ")[0]
    return plan, f"{reason}{more}: the raw files are not looked at, and {previous} is used as it was made from them"


def without_unreadable(sources: Sequence[SourceFile], error: MissingFilesError) -> list[SourceFile | AbsentFiles]:
    """The files, those that may not be read, or are elsewhere, as missing ones."""
    return [
        source
        if not isinstance(source.path, RemotePath) and os.access(source.path, os.R_OK)
        else AbsentFiles(pattern=glob.escape(source.name), role=source.role, error=error)
        for source in sources
    ]


def _kept_files(manifest: Manifest) -> list[_Kept]:
    parameters = manifest.parameters
    files = parameters.get("sources", [])
    roles = [role for role in ("train", "validation", "test") for _ in parameters.get(role, [])]
    return [_Kept(role=role, facts=dict(facts)) for role, facts in zip(roles, files, strict=False)]


def _match(found: Found, kept: Sequence[_Kept]) -> int | None:
    """Number of missing files, where what is found is exactly a part of what was kept; None where it is not."""
    at = missing = 0
    for each in found:
        if isinstance(each, SourceFile):
            facts = kept[at].facts if at < len(kept) else {}
            if (facts.get("name"), facts.get("bytes")) != (each.name, each.num_bytes) or kept[at].role != each.role:
                return None
            at += 1
            continue
        name = source_path(each.pattern).name
        many = has_pattern(str(source_path(each.pattern)))
        start = at
        while at < len(kept) and kept[at].role == each.role and (many or at == start):
            if not (fnmatch.fnmatchcase(kept[at].facts["name"], name) or kept[at].facts["name"] == name):
                break
            at += 1
        if at == start:
            return None
        missing += at - start
    return missing if at == len(kept) else None
