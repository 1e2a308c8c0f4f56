"""Artifacts: one folder per stage, with a ``manifest.json`` beside plain files; written as a whole or not at all.

A folder under its final name is complete. Its fingerprint names the stage, the format version, the parameters and the
parents that made it, and nothing else: equal fingerprints mean equal bytes. There is no pickle in an artifact.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fae.artifacts.checksums import check_files, describe_files, make_again
from fae.core.errors import ArtifactError
from fae.core.files import (
    MANIFEST,
    cannot_write,
    check_replaceable,
    reason,
    remove_folder,
    replace_folder,
    temporary_path,
)
from fae.core.whole_files import json_values, read_json, write_json


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Content of ``manifest.json``.

    Attributes
    ----------
    kind
        Kind of artifact, such as ``"log"`` or ``"hot_set"``.
    format_version
        Increased when the bytes on disk change their meaning.
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
        Hex digest of all the above, so that a manifest edited by hand is recognised.
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
        """Whether fingerprint and digest match the other fields."""
        made_from = fingerprint(self.kind, self.format_version, self.parameters, self.parents)
        return self.fingerprint == made_from and self.digest == _digest(vars(self))


def _digest(facts: Mapping[str, Any]) -> str:
    # Through JSON and back, so that the digest covers exactly what a reader of the file will see.
    text = json.dumps({key: value for key, value in facts.items() if key != "digest"})
    return hashlib.blake2b(json.dumps(json.loads(text), sort_keys=True).encode(), digest_size=16).hexdigest()


def fingerprint(kind: str, format_version: int, parameters: Mapping[str, Any], parents: Mapping[str, str]) -> str:
    """Hex digest that names an artifact by what made it."""
    text = json.dumps([kind, format_version, dict(parameters), dict(parents)], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an artifact will be made from: enough to know its fingerprint before it is made, and to skip it.

    Attributes
    ----------
    command
        The command that makes the artifact, named in errors.
    older_versions
        Older format versions in which the same artifact serves as well, and is kept where it is there.
    """

    kind: str
    format_version: int
    parameters: dict[str, Any]
    parents: dict[str, str]
    command: str
    older_versions: tuple[int, ...] = ()

    @property
    def fingerprint(self) -> str:
        """The fingerprint the artifact will have."""
        return fingerprint(self.kind, self.format_version, self.parameters, self.parents)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """The fingerprint, and those that the artifact has in an older format that serves as well."""
        versions = (self.format_version, *self.older_versions)
        return tuple(fingerprint(self.kind, version, self.parameters, self.parents) for version in versions)


@contextmanager
def write_artifact(
    path: Path,
    plan: Plan,
    summary: dict[str, Any],
    *,
    unfinished: Path | None = None,
    files: Mapping[str, dict[str, Any]] | None = None,
    before_replacing: Callable[[], None] | None = None,
) -> Iterator[Path]:
    """Yield a temporary folder to fill; when the block ends, write its manifest and rename it to `path`.

    If the block raises, the temporary folder is removed and `path` is unchanged.

    Parameters
    ----------
    summary
        Filled by the caller inside the block; read when the block ends.
    unfinished
        A folder beside `path` that the caller has begun to fill, used instead of a new temporary one; it is kept if the
        block raises.
    files
        Filled by the caller inside the block: its files as `describe_files` describes them. None or empty: they are
        read when the block ends.
    before_replacing
        Called when the new artifact is whole, right before it takes the place of one that is there.

    Raises
    ------
    ArtifactError
        If `path` cannot be written, or something that is not an artifact is there.
    """
    temporary = unfinished or temporary_path(path)
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
            files=dict(files) if files else describe_files(temporary),
        )
        write_json(temporary / MANIFEST, {**vars(manifest), "digest": _digest(vars(manifest))})
        if before_replacing is not None:
            before_replacing()
        replace_folder(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if unfinished is None:
            remove_folder(temporary)


def rename_parents(path: Path, manifest: Manifest, parents: Mapping[str, str]) -> None:
    """Write the manifest of an artifact again with other fingerprints of its parents; its files stay as they are.

    Raises
    ------
    ArtifactError
        If it cannot be written.
    """
    name = fingerprint(manifest.kind, manifest.format_version, manifest.parameters, parents)
    facts = {**vars(manifest), "fingerprint": name, "parents": dict(parents)}
    try:
        write_json(path / MANIFEST, {**facts, "digest": _digest(facts)})
    except OSError as error:
        raise cannot_write(path, error) from error


def read_manifest(
    path: Path, kind: str, format_version: int, *, command: str, older_versions: tuple[int, ...] = ()
) -> Manifest:
    """Read the manifest of an artifact, after checking its kind, format and files.

    Parameters
    ----------
    command
        The command that makes this artifact, named in every error.
    older_versions
        Older format versions that the caller reads too.

    Raises
    ------
    ArtifactError
        If the artifact is missing, of another kind or format, damaged or edited.
    """
    if not (path / MANIFEST).is_file():
        raise ArtifactError(f"there is no {kind} in {path}; run `{command}` first")
    manifest = _read_authentic(path, kind, (format_version, *older_versions), command)
    check_files(path, manifest.files, command)
    return manifest


def _read_authentic(path: Path, kind: str, versions: tuple[int, ...], command: str) -> Manifest:
    """The manifest at `path`, if it is of this kind and one of these formats and was not edited; else raises."""
    file, advice = path / MANIFEST, make_again(path, command)
    try:
        manifest = _parse(file)
    except OSError as error:
        raise ArtifactError(f"cannot read {file}: {reason(error)}; fix that, or {advice}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{file} is not a manifest ({error}); {advice}") from error
    if manifest.kind != kind or manifest.format_version not in versions:
        raise ArtifactError(
            f"{path} holds {manifest.kind} format {manifest.format_version}, expected {kind} format {versions[0]}; "
            f"{advice}, or choose another folder with --out"
        )
    if not manifest.is_authentic:
        raise ArtifactError(f"{file} was edited (its fingerprint does not match); {advice}")
    return manifest


def _parse(file: Path) -> Manifest:
    found = read_json(file)
    if not isinstance(found, dict) or not found.keys() <= _MANIFEST_TYPES.keys():
        raise TypeError("it has other fields")
    for name, kind in _MANIFEST_TYPES.items():
        if name in found and type(found[name]) is not kind:
            raise TypeError(f"its {name} is no {kind.__name__}")
    manifest = Manifest(**found)
    if not all(isinstance(name, str) for name in manifest.parents.values()):
        raise TypeError("its parents are no fingerprints")
    for name, facts in manifest.files.items():
        if not isinstance(facts, dict) or type(facts.get("bytes")) is not int or type(facts.get("crc32")) is not str:
            raise TypeError(f"its file {name!r} has no size or checksum")
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise TypeError(f"its file {name!r} is not inside the folder")
    return manifest


_MANIFEST_TYPES: dict[str, type] = {
    "kind": str, "format_version": int, "fingerprint": str, "parents": dict, "parameters": dict, "summary": dict,
    "files": dict, "digest": str,
}  # fmt: skip


def is_current(path: Path, plan: Plan) -> bool:
    """Whether the artifact at `path` is the one that `plan` would make, or the same in an older format that serves.

    Only its manifest is read. An artifact of other parameters or parents is not current: it is left from an earlier
    recipe, and may be replaced.

    Raises
    ------
    ArtifactError
        If it is of another format version or kind, or its manifest is damaged or was edited: such a folder is not
        silently replaced.
    """
    if not (path / MANIFEST).is_file():
        return False
    found = _read_authentic(path, plan.kind, (plan.format_version, *plan.older_versions), plan.command)
    return found.fingerprint in plan.fingerprints


def require_parent(manifest: Manifest, parent: Manifest, *, command: str) -> None:
    """Refuse an artifact that was made from another parent than `parent`.

    Raises
    ------
    ArtifactError
        If so; the message names the command that makes the artifact again.
    """
    if manifest.parents.get(parent.kind) != parent.fingerprint:
        raise ArtifactError(
            f"the {manifest.kind} was made from another {parent.kind} "
            f"({manifest.parents.get(parent.kind, 'none')[:8]}, here is {parent.fingerprint[:8]}); run `{command}`"
        )
