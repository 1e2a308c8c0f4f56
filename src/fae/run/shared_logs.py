"""Find a log that another run has ingested already, and use it in place: no second ingest, no copy.

A log is known by its fingerprint. Looked at are the run folders beside this one (``runs/*/log`` for ``--out
runs/small``). The one that is found is linked to as ``runs/small/log``, by a relative link: the folder of runs may be
moved as a whole. Where the file system has no links, the log is ingested.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fae.artifacts.columnar_log import KIND, ColumnarLog
from fae.artifacts.manifest import Plan
from fae.core.errors import ArtifactError
from fae.core.files import (
    MANIFEST,
    broken_link,
    cannot_write,
    check_replaceable,
    remove_folder,
    replaced_path,
    sync_tree,
    temporary_path,
)
from fae.core.whole_files import read_json
from fae.ingest.raw_files.former_logs import remember_names
from fae.ingest.raw_files.source_digests import remember_digests, sidecar
from fae.run.stale_files import RUN_RECORD


def run_folders(beside: Path) -> Iterator[Path]:
    """The other folders in the folder of `beside`, by name."""
    here = beside.absolute()
    plain = beside.name not in ("", "..")  # then its parent is what its name says, as the user wrote it
    with contextlib.suppress(OSError):
        for each in sorted((beside if plain else here).parent.iterdir()):
            if each.name != here.name and not each.name.startswith(".") and each.is_dir():
                yield each


def learn_digests(out: Path, parents: Mapping[str, str] | None = None) -> None:
    """Take over the names of logs, and the digests of raw files, that ingests into `out` and beside it have found.

    Parameters
    ----------
    parents
        What the log of `out` continues. Without it a log is not known by what was made from it, once it is gone.
    """
    remember_digests([out / KIND, *(each / KIND for each in run_folders(out))])
    if parents is not None:
        remember_names(_named_logs(out), parents)


def _named_logs(out: Path) -> Iterator[str]:
    """Fingerprints of the logs that the other artifacts of a run were made from."""
    with contextlib.suppress(OSError):
        for folder in sorted(out.iterdir()):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                name = read_json(folder / MANIFEST)["parents"][KIND]
                if folder.name != KIND and isinstance(name, str):
                    yield name


def find_shared_log(out: Path, plan: Plan) -> Path | None:
    """A whole log of `plan` in a run folder beside `out`, under its own name, not that of a link; None without one."""
    for each in run_folders(out):
        place = each / KIND
        try:
            found = read_json(place / MANIFEST)
            if not isinstance(found, dict) or found.get("fingerprint") != plan.fingerprint:
                continue
            if ColumnarLog(place).manifest.fingerprint != plan.fingerprint:
                continue
        except (OSError, ValueError, ArtifactError):
            continue
        return place.resolve() if place.is_symlink() else place
    return None


def link_log(shared: Path, path: Path) -> bool:
    """Put a link to `shared` at `path`, in place of an artifact that is there; False where links cannot be made.

    Raises
    ------
    ArtifactError
        If something that is not an artifact is at `path`.
    """
    drop_broken_link(path)
    check_replaceable(path)
    temporary, old = temporary_path(path), replaced_path(path)
    remove_folder(temporary)
    remove_folder(old)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.symlink_to(os.path.relpath(shared, path.parent.resolve()), target_is_directory=True)
        if not (temporary / MANIFEST).is_file():
            raise FileNotFoundError(temporary)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if old.exists() and not path.exists():
            old.rename(path)
        return False
    remove_folder(old)
    with contextlib.suppress(OSError):
        shutil.copyfile(sidecar(shared), sidecar(path))
    return True


def hand_over(run: Path) -> list[Path]:
    """Give the log of a run, which is about to be replaced, to the runs that link to it.

    The first of them gets the files by hard links (or copies), the others link to it. A kill leaves every run with a
    log: it is in `run` until the links lead elsewhere.

    Returns
    -------
    list[Path]
        These runs, the one that has the log now first; empty where none links to it.

    Raises
    ------
    ArtifactError
        If it cannot be written there.
    """
    users = [each for each in users_of(run) if (each / KIND).is_symlink()]
    if not users:
        return []
    path = users[0] / KIND
    temporary = temporary_path(path)
    try:
        remove_folder(temporary)
        shutil.copytree(run / KIND, temporary, copy_function=_link_file)
        sync_tree(temporary)
        path.unlink()
        temporary.rename(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        remove_folder(temporary)
    for each in users[1:]:
        link_log(path, each / KIND)
    return users


def _link_file(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def drop_broken_link(path: Path) -> Path | None:
    """Remove a link that leads to nothing; returns where it led, None where there is no such link."""
    target = broken_link(path)
    if target is not None:
        path.unlink()
    return target


def users_of(run: Path) -> list[Path]:
    """The run folders beside `run` that read its log in place: by a link, or as a log that is columnar already."""
    log = (run / KIND).resolve()
    if (run / KIND).is_symlink() or not log.is_dir():
        return []
    here = run.resolve()  # a link beside it may be another name of the run itself
    return [each for each in run_folders(run) if _log_of(each) == log and each.resolve() != here]


def named_users(users: Sequence[Path]) -> str:
    """``runs/a, runs/b read``, for a line that continues with what they read."""
    return f"{', '.join(map(str, users))} {'reads' if len(users) == 1 else 'read'}"


def _log_of(run: Path) -> Path | None:
    if (run / KIND).is_symlink():
        return (run / KIND).resolve()
    try:
        named = read_json(run / RUN_RECORD)["log_path"]
        return (run / named).resolve() if isinstance(named, str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
