"""Remove from a run folder what can be made again; what the finished model needs to score and to continue stays."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fae.artifacts.checkpoint import KIND as CHECKPOINT_KIND
from fae.artifacts.checkpoint import read_progress
from fae.artifacts.columnar_log import KIND as LOG_KIND
from fae.checkpoint.more_epochs import BEST, LAST
from fae.core.errors import ArtifactError, RecipeError
from fae.core.files import (
    MANIFEST,
    cannot_write,
    drop_folder,
    locked_folder,
    remove_folder,
    replaced_path,
    temporary_path,
)
from fae.core.progress import say
from fae.core.units import format_bytes
from fae.core.whole_files import read_json
from fae.engine.leftovers import TASKS_FOLDER, active_workers
from fae.ingest.raw_files.remote_files import source_path
from fae.ingest.raw_files.source_digests import has_content, sidecar
from fae.ingest.shards.unfinished_paths import progress_paths
from fae.run.housekeeping.run_list import folder_bytes, has_begun, is_run
from fae.run.shared_logs import named_users, run_folders, users_of
from fae.run.stale_files import RUN_RECORD

MADE_AGAIN = {"profile": "fae profile", "hot_set": "fae calibrate", "packed": "fae pack"}
"""Folders that the log and the recipe make again, and the verb that does."""


@dataclass(frozen=True)
class Found:
    """Something in a run folder: whether it goes, and why or why not."""

    name: str
    paths: tuple[Path, ...]
    why: str
    goes: bool = True

    @property
    def num_bytes(self) -> int:
        """Bytes on the disk."""
        return sum(folder_bytes(path) for path in self.paths)


def clean(run: str | Path, *, everything: bool = False, dry_run: bool = False) -> dict[str, Any]:
    """Remove what can be made again.

    Parameters
    ----------
    run
        The run folder.
    everything
        Also the log, where its raw files are there as they were, and ``last/``. `fae predict` and the like then need
        `fae run` first, and more epochs need ``--replace`` where early stopping ended on an earlier epoch.
    dry_run
        Say what would be removed, and remove nothing.

    Returns
    -------
    dict
        ``run``, ``dry_run``, ``bytes`` (all of them), ``removed`` (``name``, ``bytes``, ``why``), ``kept`` (the same).

    Raises
    ------
    RecipeError
        If it is no run folder.
    ArtifactError
        If a run or a worker is active in it, or something cannot be removed.
    """
    folder = Path(run).expanduser()
    if not folder.is_dir() or not (is_run(folder) or has_begun(folder)):
        what = "is no run folder" if folder.exists() else "does not exist"
        raise RecipeError(f"{folder} {what}; name the --out of a `fae run`, see `fae runs`")
    with locked_folder(folder):
        if active := active_workers(folder, writes=not dry_run):
            raise ArtifactError(
                f"{active[0]} uses {folder}; wait for its end, or end it, and run the same command again"
            )
        found = [each for each in _look(folder, everything=everything) if each.num_bytes or each.goes]
        gone = [each for each in found if each.goes]
        sizes = [each.num_bytes for each in found]
        for each, size in zip(found, sizes, strict=True):
            verb = ("would remove" if dry_run else "removed") if each.goes else "kept"
            say(f"clean: {verb} {each.name}, {format_bytes(size)}: {each.why}")
        if not dry_run:
            for each in gone:
                for path in each.paths:
                    try:
                        _remove(path)
                    except OSError as error:
                        raise cannot_write(path, error) from None
    total = sum(size for each, size in zip(found, sizes, strict=True) if each.goes)
    say(f"clean: {format_bytes(total)} {'would be' if dry_run else 'are'} free" if gone else "clean: nothing to remove")

    def listed(goes: bool) -> list[dict[str, Any]]:
        return [
            {"name": each.name, "bytes": size, "why": each.why}
            for each, size in zip(found, sizes, strict=True)
            if each.goes == goes
        ]

    return {
        "run": str(folder), "dry_run": dry_run, "bytes": total, "removed": listed(True), "kept": listed(False),
    }  # fmt: skip


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.name.startswith("."):  # what an interrupted command left
        remove_folder(path)
    else:
        drop_folder(path)


def _look(folder: Path, *, everything: bool) -> Iterator[Found]:
    log_is_there = (folder / LOG_KIND / MANIFEST).is_file() or _recorded_log(folder) is not None
    for name, verb in MADE_AGAIN.items():
        path = folder / name
        if (path / MANIFEST).is_file():
            why = f"`{verb}` makes it again" if log_is_there else "the log that it is made from is not there"
            yield Found(f"{name}/", (path,), why, goes=log_is_there)
    finished = _is_finished(folder)
    if (folder / BEST / MANIFEST).is_file():
        why = "the checkpoint has the same weights" if finished else "the unfinished training returns to it"
        yield Found(f"{BEST}/", (folder / BEST,), why, goes=finished)
    if (folder / LAST / MANIFEST).is_file():
        why = "more epochs continue from it" + ("" if finished and everything else "; --all removes it, too")
        yield Found(f"{LAST}/", (folder / LAST,), why, goes=finished and everything)
    leftovers = [*progress_paths(folder / LOG_KIND), folder / TASKS_FOLDER]
    for name in (LOG_KIND, *MADE_AGAIN, BEST, LAST, CHECKPOINT_KIND):
        leftovers += [temporary_path(folder / name), replaced_path(folder / name)]
    if there := tuple(path for path in leftovers if path.exists() or path.is_symlink()):
        yield Found("what interrupted commands left", there, "the same command makes it again")
    if everything and ((folder / LOG_KIND).is_symlink() or (folder / LOG_KIND / MANIFEST).is_file()):
        yield _judge_log(folder)


def _is_finished(folder: Path) -> bool:
    try:
        return bool(read_progress(folder / CHECKPOINT_KIND)["complete"])
    except ArtifactError:
        return False


def _judge_log(folder: Path) -> Found:
    log, name = folder / LOG_KIND, f"{LOG_KIND}/"
    if log.is_symlink():
        return Found(name, (log,), f"a link to {log.resolve()}, which stays")
    if users := users_of(folder):
        return Found(name, (log,), f"{named_users(users)} it", goes=False)
    fault = _missing_source(folder) or _missing_parent(folder)
    if fault:
        return Found(name, (log,), f"it could not be made again: {fault}", goes=False)
    return Found(name, (log, sidecar(log)), "`fae ingest` makes it again from its raw files")


def _missing_source(folder: Path) -> str:
    """Why the log could not be made again from its raw files; "" where all of them are where they were."""
    try:
        sources = read_json(folder / LOG_KIND / MANIFEST)["parameters"].get("sources") or []
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its manifest cannot be read"
    if not sources:
        return "it was not made from raw files"
    cached, places = _cached(folder), _known_sources(folder)
    for source in sources:
        if not any(has_content(path, source, cached.get(str(path))) for path in places):
            return f"its raw file {source.get('name')} is not where it was, or was changed"
    return ""


def _missing_parent(folder: Path) -> str:
    """Why the ids of the log could not be continued again; "" where the log that it continues is there, or none."""
    try:
        continued = read_json(folder / LOG_KIND / MANIFEST)["parents"].get(LOG_KIND)
        if continued is None:
            return ""
        parent = Path(read_json(folder / RUN_RECORD)["parent"]["path"]).parent
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "it continues the ids of another log, and no record says where that is"
    places = [parent / LOG_KIND, *(each / LOG_KIND for each in run_folders(folder))]
    if any(_fingerprint(place) == continued for place in places):
        return ""
    return f"it continues the ids of {parent / LOG_KIND}, which is not there any more"


def _fingerprint(artifact: Path) -> str | None:
    try:
        found = read_json(artifact / MANIFEST)["fingerprint"]
        return found if isinstance(found, str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _cached(folder: Path) -> dict[str, Any]:
    try:
        known = read_json(sidecar(folder / LOG_KIND))
        return known if isinstance(known, dict) else {}
    except (OSError, ValueError):
        return {}


def _known_sources(folder: Path) -> list[Path]:
    """Where the raw files of a log may be: where ingest found them, and where the recipe of the record names them."""
    found = [source_path(name) for name in _cached(folder)]
    try:
        record = read_json(folder / RUN_RECORD)
        log, command = record["recipe"]["log"], shlex.split(record.get("command") or "")
        names = [name for key in ("train", "validation", "test") for name in _names(log.get(key))]
        bases = [Path(), *(Path(word).parent for word in command if word.endswith(".toml"))]
        found += [path for base in bases for name in names for path in _matching(base, name)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return found


def _names(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [name for name in value or () if isinstance(name, str)]


def _matching(base: Path, name: str) -> list[Path]:
    path = Path(name).expanduser()
    if (base / path).is_file():
        return [base / path]
    return [] if path.is_absolute() else sorted(base.glob(name))


def _recorded_log(folder: Path) -> Path | None:
    """The columnar log that the run read in place, where it is still there."""
    try:
        named = read_json(folder / RUN_RECORD)["log_path"]
        path = folder / named
        return path if (path / MANIFEST).is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
