"""Artifacts: one folder per stage, with a ``manifest.json`` beside plain files; written whole or not at all.

Invariants: a folder under its final name is complete; its fingerprint names the stage, the format version, the
parameters and the parents that made it, and nothing else, so equal fingerprints mean equal bytes; no pickle. Folders
and names on the disk are `fae.core.files`'.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fae.artifacts.checksums import check_files, describe_files
from fae.core.errors import ArtifactError
from fae.core.files import (
    MANIFEST,
    being_written,
    cannot_write,
    check_replaceable,
    json_values,
    reason,
    remove_folder,
    replace_folder,
    write_json,
)


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
        Relative path to ``{"bytes", "crc32"}``.
    digest
        Of all the above, so that a manifest edited by hand is not believed.
    """

    kind: str
    format_version: int
    fingerprint: str
    parents: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    digest: str = ""

    @property
    def is_authentic(self) -> bool:
        """Whether fingerprint and digest are those of what it says."""
        made_from = fingerprint(self.kind, self.format_version, self.parameters, self.parents)
        return self.fingerprint == made_from and self.digest == _digest(vars(self))


def _digest(facts: Mapping[str, Any]) -> str:
    # Through JSON and back: what is signed is what a reader of the file will see.
    text = json.dumps({key: value for key, value in facts.items() if key != "digest"})
    return hashlib.blake2b(json.dumps(json.loads(text), sort_keys=True).encode(), digest_size=16).hexdigest()


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


@contextmanager
def write_artifact(
    path: Path, plan: Plan, summary: dict[str, Any], *, unfinished: Path | None = None
) -> Iterator[Path]:
    """Give a temporary folder to fill; on leaving, write its manifest and rename it to `path`.

    If the block raises, the temporary folder is removed and `path` is as it was.

    Parameters
    ----------
    summary
        Filled by the caller inside the block; read when the block ends.
    unfinished
        A folder beside `path` that the caller has begun to fill and keeps if the block raises, in the place of a fresh
        temporary one.

    Raises
    ------
    ArtifactError
        If `path` cannot be written, or something stands there that is not an artifact.
    """
    temporary = unfinished or being_written(path)
    try:
        check_replaceable(path)
        if unfinished is None:
            remove_folder(temporary)
        temporary.mkdir(parents=True, exist_ok=unfinished is not None)
        yield temporary
        manifest = Manifest(
            kind=plan.kind,
            format_version=plan.format_version,
            fingerprint=plan.fingerprint,
            parents=plan.parents,
            parameters=plan.parameters,
            summary=json_values(summary),
            files=describe_files(temporary),
        )
        write_json(temporary / MANIFEST, {**vars(manifest), "digest": _digest(vars(manifest))})
        replace_folder(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if unfinished is None:
            remove_folder(temporary)


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
    if not (path / MANIFEST).is_file():
        raise ArtifactError(f"there is no {kind} in {path}; run `{command}` first")
    manifest = _believable(path, kind, format_version, command)
    check_files(path, manifest.files, command)
    return manifest


def _believable(path: Path, kind: str, format_version: int, command: str) -> Manifest:
    """The manifest at `path`, if it is of this kind and format and says what was written."""
    file, mend = path / MANIFEST, f"delete {path} and run `{command}`"
    try:
        manifest = _parse(file)
    except OSError as error:
        raise ArtifactError(f"cannot read {file}: {reason(error)}; mend that, or {mend}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{file} is not a manifest ({error}); {mend}") from error
    if manifest.kind != kind or manifest.format_version != format_version:
        raise ArtifactError(
            f"{path} holds {manifest.kind} format {manifest.format_version}, expected {kind} format {format_version}; "
            f"{mend}, or choose another folder with --out"
        )
    if not manifest.is_authentic:
        raise ArtifactError(f"{file} was edited (its fingerprint does not match); {mend}")
    return manifest


def _parse(file: Path) -> Manifest:
    manifest = Manifest(**json.loads(file.read_text()))
    for name in ("parents", "parameters", "summary", "files"):
        if not isinstance(getattr(manifest, name), dict):
            raise TypeError(f"its {name} is no object")
    return manifest


def is_current(path: Path, plan: Plan) -> bool:
    """Whether the artifact at `path` is the one that `plan` would make, by its manifest; its files are not looked at.

    An artifact of other parameters or parents is not current: it is what a changed recipe leaves, and is replaced.

    Raises
    ------
    ArtifactError
        If it is none of those: of another format version or kind, or its manifest is damaged or was edited. Nobody's
        work is written over for that.
    """
    if not (path / MANIFEST).is_file():
        return False
    return _believable(path, plan.kind, plan.format_version, plan.command).fingerprint == plan.fingerprint


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
