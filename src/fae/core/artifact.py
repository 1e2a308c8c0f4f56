"""Artifacts: one folder per stage, with a ``manifest.json`` beside plain files; written whole or not at all.

Invariants: a folder under its final name is complete; its fingerprint names the stage, the format version, the
parameters and the parents that made it, and nothing else, so equal fingerprints mean equal bytes; no pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fae.core.errors import ArtifactError
from fae.core.threads import run_ranges

MANIFEST = "manifest.json"
_SMALL_FILE_BYTES = 16 * 2**20
"""Files up to this size are checked by content whenever an artifact is opened; larger ones by their size."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an artifact says of itself.

    Attributes
    ----------
    kind
        The stage's artifact, such as ``"log"`` or ``"hot_set"``.
    format_version
        Raised when the bytes on disk change their meaning.
    fingerprint
        Hex digest of kind, format version, parameters and parents.
    parents
        Kind to fingerprint of each artifact it was made from.
    parameters
        The configuration that shaped it.
    summary
        What it found: schema, counts, predictions; JSON values only.
    files
        Relative path to ``{"bytes", "blake2b"}``.
    """

    kind: str
    format_version: int
    fingerprint: str
    parents: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)


def fingerprint(kind: str, format_version: int, parameters: Mapping[str, Any], parents: Mapping[str, str]) -> str:
    """Hex digest that names an artifact by what made it."""
    text = json.dumps([kind, format_version, dict(parameters), dict(parents)], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an artifact will be made from: enough to name it before it is made, and so to skip what is done.

    Attributes
    ----------
    command
        The command that makes it, named in errors.
    """

    kind: str
    format_version: int
    parameters: dict[str, Any]
    parents: dict[str, str]
    command: str

    @property
    def fingerprint(self) -> str:
        """The fingerprint the artifact will have."""
        return fingerprint(self.kind, self.format_version, self.parameters, self.parents)


def file_digest(path: Path) -> str:
    """blake2b of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@contextmanager
def write_artifact(path: Path, plan: Plan, summary: dict[str, Any]) -> Iterator[Path]:
    """Give a temporary folder to fill; on leaving, write its manifest and rename it to `path`.

    If the block raises, the temporary folder is removed and `path` is as it was.

    Parameters
    ----------
    summary
        Filled by the caller inside the block; read when the block ends.
    """
    temporary = path.with_name(f".{path.name}.writing")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        manifest = Manifest(
            kind=plan.kind,
            format_version=plan.format_version,
            fingerprint=plan.fingerprint,
            parents=plan.parents,
            parameters=plan.parameters,
            summary=summary,
            files=_describe_files(temporary),
        )
        write_json(temporary / MANIFEST, vars(manifest))
        replace_folder(temporary, path)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another folder with --out"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    digests = [""] * len(files)

    def digest(start: int, stop: int) -> None:
        for index in range(start, stop):
            digests[index] = file_digest(files[index])

    run_ranges(digest, len(files))
    return {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "blake2b": digests[index]}
        for index, file in enumerate(files)
    }


def replace_folder(temporary: Path, path: Path) -> None:
    """Rename a complete folder to its final name, putting aside and then removing what stood there."""
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    temporary.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON durably: to a temporary name, flushed to the disk, then renamed."""
    temporary = path.with_name(f".{path.name}.writing")
    with temporary.open("w") as file:
        json.dump(value, file, indent=1, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_manifest(path: Path, kind: str, format_version: int, *, command: str) -> Manifest:
    """Open an artifact: check that it is there, of this kind and format, and undamaged.

    Parameters
    ----------
    command
        The command that makes this artifact, named in every error.

    Raises
    ------
    ArtifactError
        If anything is off.
    """
    file = path / MANIFEST
    if not file.is_file():
        raise ArtifactError(f"there is no {kind} in {path}; run `{command}` first")
    try:
        manifest = Manifest(**json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"{file} is not a manifest ({error}); delete {path} and run `{command}`") from error
    if manifest.kind != kind or manifest.format_version != format_version:
        raise ArtifactError(
            f"{path} holds {manifest.kind} format {manifest.format_version}, expected {kind} format "
            f"{format_version}; run `{command}`"
        )
    expected = fingerprint(kind, format_version, manifest.parameters, manifest.parents)
    if manifest.fingerprint != expected:
        raise ArtifactError(f"{file} was edited (its fingerprint does not match); run `{command}`")
    for name, facts in manifest.files.items():
        target = path / name
        size = target.stat().st_size if target.is_file() else -1
        damaged = size != facts["bytes"] or (size <= _SMALL_FILE_BYTES and file_digest(target) != facts["blake2b"])
        if damaged:
            raise ArtifactError(f"{target} is missing or damaged; delete {path} and run `{command}`")
    return manifest


def is_current(path: Path, expected_fingerprint: str) -> bool:
    """Whether a complete artifact with this fingerprint stands at `path`."""
    try:
        return bool(json.loads((path / MANIFEST).read_text())["fingerprint"] == expected_fingerprint)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def require_parent(manifest: Manifest, parent: Manifest, *, command: str) -> None:
    """Refuse an artifact that was made from another parent than the one at hand.

    Raises
    ------
    ArtifactError
        Naming the command that makes it again.
    """
    if manifest.parents.get(parent.kind) != parent.fingerprint:
        raise ArtifactError(
            f"the {manifest.kind} was made from another {parent.kind} "
            f"({manifest.parents.get(parent.kind, 'none')[:8]}, here is {parent.fingerprint[:8]}); run `{command}`"
        )
