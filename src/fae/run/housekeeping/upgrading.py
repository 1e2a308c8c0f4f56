"""Bring what a chain of runs lives on, logs and checkpoints, to the formats that this version writes.

Formats of today need nothing. A log of format 1 becomes one of format 2 without its raw files; what was made from it
names it by its new fingerprint. Data artifacts of older formats are made again by their stage, so they are only named.
Everything is written beside and then renamed: an upgrade that was killed is repeated.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fae.artifacts import access_profile, checkpoint, columnar_log, hot_set, packed
from fae.artifacts.manifest import Manifest, Plan, fingerprint, read_manifest, rename_parents, write_artifact
from fae.checkpoint.more_epochs import BEST, LAST
from fae.core.errors import ArtifactError, RecipeError
from fae.core.files import MANIFEST, locked_folder, recover_folder
from fae.core.progress import say
from fae.core.whole_files import read_json, write_json, write_record
from fae.run.housekeeping.run_list import is_run
from fae.run.shared_logs import run_folders
from fae.run.stale_files import PARENT_TEST, RUN_RECORD

UPGRADED = "upgraded.json"
"""In a run folder: former fingerprints and what they became, so that a killed upgrade of a chain is repeated."""

_CURRENT: Mapping[str, tuple[int, str]] = {
    columnar_log.KIND: (columnar_log.FORMAT_VERSION, "fae ingest RECIPE.toml"),
    access_profile.KIND: (access_profile.FORMAT_VERSION, access_profile.COMMAND),
    hot_set.KIND: (hot_set.FORMAT_VERSION, hot_set.COMMAND),
    packed.KIND: (packed.FORMAT_VERSION, packed.COMMAND),
    checkpoint.KIND: (checkpoint.FORMAT_VERSION, checkpoint.COMMAND),
}
_FOLDERS = (columnar_log.KIND, access_profile.KIND, hot_set.KIND, packed.KIND, checkpoint.KIND, BEST, LAST)


@dataclass
class _Upgrade:
    """One call over a chain: what former fingerprints have become, and what was done."""

    dry_run: bool
    renamed: dict[str, str] = field(default_factory=dict)
    done: list[dict[str, Any]] = field(default_factory=list)

    def note(self, path: Path, action: str, text: str) -> None:
        self.done.append({"path": str(path), "action": action, "detail": text})
        if action != "current":
            say(f"upgrade: {path}: {text}")


def upgrade(runs: Sequence[str | Path], *, dry_run: bool = False) -> dict[str, Any]:
    """Upgrade run folders, those first that later ones continue.

    Parameters
    ----------
    runs
        Run folders in the order of their chain.
    dry_run
        Say what would be done, and change nothing.

    Returns
    -------
    dict
        ``dry_run``, ``changed`` (number of artifacts), ``artifacts``: of each ``path``, ``action`` (``current``,
        ``converted``, ``renamed parents``, ``to be made again``) and ``detail``.

    Raises
    ------
    RecipeError
        If one is no run folder.
    ArtifactError
        If an artifact is damaged, or of a format later than this version knows.
    """
    state = _Upgrade(dry_run)
    folders = [Path(run).expanduser() for run in runs]
    for folder in folders:
        if not folder.is_dir() or not is_run(folder):
            what = "is no run folder" if folder.exists() else "does not exist"
            raise RecipeError(f"{folder} {what}; name the --out of a `fae run`, see `fae runs`")
    for folder in folders:
        with locked_folder(folder):
            for name in _FOLDERS:
                recover_folder(folder / name)
            _upgrade_run(folder, state)
    changed = sum(each["action"] in ("converted", "renamed parents") for each in state.done)
    if not any(each["action"] != "current" for each in state.done):
        say(f"upgrade: nothing to do: {len(state.done)} artifacts have the formats of this version")
    elif changed:
        say(f"upgrade: {changed} artifacts {'would be' if dry_run else 'were'} upgraded")
    return {"dry_run": dry_run, "changed": changed, "artifacts": state.done}


def _upgrade_run(folder: Path, state: _Upgrade) -> None:
    for place in _made_from(folder):
        with contextlib.suppress(OSError, ValueError):
            known = read_json(place / UPGRADED)
            state.renamed.update({str(old): str(new) for old, new in known.items()} if isinstance(known, dict) else {})
    for name in _FOLDERS:
        path = folder / name
        if path.is_symlink() or not (path / MANIFEST).is_file():
            continue
        kind, version = _kind_and_version(path)
        current, command = _CURRENT.get(kind, (0, ""))
        if not current or version > current:
            raise ArtifactError(
                f"{path} holds {kind} format {version}, which is later than this version of fae knows; update fae"
            )
        converter = _CONVERTERS.get((kind, version))
        if converter is not None:
            _convert(path, kind, version, command, converter, state)
        elif version < current and not (kind == packed.KIND and version in packed.OLDER_VERSIONS):
            state.note(path, "to be made again", f"{kind} format {version} is made again by `{command}`")
        else:
            _rename(path, read_manifest(path, kind, version, command=command), state)
        if state.renamed and not state.dry_run:
            write_json(folder / UPGRADED, state.renamed)
    if state.renamed and not state.dry_run:
        _rename_parent_test(folder, state)


def _made_from(folder: Path) -> Iterator[Path]:
    """Run folders that may know what the names in `folder` have become: those beside it, and those it was made from."""
    yield from run_folders(folder)
    if (folder / columnar_log.KIND).is_symlink():
        yield (folder / columnar_log.KIND).resolve().parent
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        record = read_json(folder / RUN_RECORD)
        yield (folder / record["log_path"]).parent  # a columnar log that is elsewhere
        yield Path(record["parent"]["path"]).parent
    yield folder


def _rename_parent_test(folder: Path, state: _Upgrade) -> None:
    """What the continued model reached on this log is known by the names of both."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        found = read_json(folder / PARENT_TEST)
        names = {kind: state.renamed.get(name, name) for kind, name in found["fingerprints"].items()}
        if names != found["fingerprints"]:
            write_record(folder / PARENT_TEST, {**found, "fingerprints": names})


def _kind_and_version(path: Path) -> tuple[str, int]:
    try:
        found = read_json(path / MANIFEST)
        return str(found["kind"]), int(found["format_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path / MANIFEST} is not a manifest ({error}); move {path} away") from error


def _rename(path: Path, manifest: Manifest, state: _Upgrade) -> None:
    """Name the parents by what they have become."""
    parents = {kind: state.renamed.get(name, name) for kind, name in manifest.parents.items()}
    if parents == manifest.parents:
        state.note(path, "current", f"{manifest.kind} format {manifest.format_version}")
        return
    became = fingerprint(manifest.kind, manifest.format_version, manifest.parameters, parents)
    state.renamed[manifest.fingerprint] = became
    if not state.dry_run:
        write_json(path.parent / UPGRADED, state.renamed)
        rename_parents(path, manifest, parents)
    state.note(path, "renamed parents", "it names the upgraded artifacts that it was made from")


Converter = Callable[[Path, Path, Manifest], None]
"""Fills the second folder with the files of the artifact in the first one, in the next format."""


def _convert(path: Path, kind: str, version: int, command: str, converter: Converter, state: _Upgrade) -> None:
    manifest = read_manifest(path, kind, version, command=command)
    parents = {parent: state.renamed.get(name, name) for parent, name in manifest.parents.items()}
    plan = Plan(kind=kind, format_version=version + 1, parameters=manifest.parameters, parents=parents, command=command)
    state.renamed[manifest.fingerprint] = plan.fingerprint
    if not state.dry_run:
        write_json(path.parent / UPGRADED, state.renamed)  # before the old one goes: its name is needed further on
        with write_artifact(path, plan, dict(manifest.summary)) as folder:
            converter(path, folder, manifest)
    state.note(path, "converted", f"{kind} format {version} to {version + 1}")


def _log_to_2(path: Path, folder: Path, manifest: Manifest) -> None:
    """Format 2 says which numbers of an encoded column share the reserved id: their value is null."""
    features, first = manifest.summary["features"], 0
    counts = np.load(path / "counts.npy", mmap_mode="r", allow_pickle=False)
    changed = {}
    for index, feature in enumerate(features):
        own = counts[first : first + feature["num_embeddings"]]
        first += feature["num_embeddings"]
        name = f"vocabulary/{index}.parquet"
        if feature["encoded"] and name in manifest.files:
            changed[name] = own
    for name in manifest.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name in changed:
            _drop_shared_values(path / name, folder / name, np.asarray(changed[name]))
            continue
        try:
            os.link(path / name, folder / name)
        except OSError:
            shutil.copyfile(path / name, folder / name)


def _drop_shared_values(source: Path, target: Path, counts: Any) -> None:
    table = pq.read_table(source)
    values, start = table.column("value").combine_chunks(), 0
    schema = pa.schema([("value", pa.string()), ("count", pa.int64())])
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        while start < len(values):
            stop = min(start + (1 << 20), len(values))
            shared = pa.array(counts[start:stop] == 0)
            part = pc.if_else(shared, pa.scalar(None, pa.string()), values.slice(start, stop - start))
            writer.write_table(pa.table([part, pa.array(counts[start:stop])], schema=schema))
            start = stop


_CONVERTERS: Mapping[tuple[str, int], Converter] = {(columnar_log.KIND, 1): _log_to_2}
"""What makes the next format, by kind and format version."""
