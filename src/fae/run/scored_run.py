"""Find a finished run and the log it was trained on, from its folder alone: the recipe may be gone."""

from __future__ import annotations

import os
from pathlib import Path

from fae.artifacts.checkpoint import KIND, open_checkpoint, read_progress
from fae.artifacts.columnar_log import KIND as LOG_KIND
from fae.artifacts.columnar_log import ColumnarLog
from fae.checkpoint.parent import ParentRun
from fae.core.errors import ArtifactError, RecipeError
from fae.core.files import MANIFEST, broken_link
from fae.core.whole_files import read_json

_RECORD = "run.json"


def find_finished(run: str | Path) -> ParentRun:
    """Open a finished run.

    Parameters
    ----------
    run
        The folder of a run, or the checkpoint folder in it.

    Raises
    ------
    RecipeError
        If nothing is there.
    ArtifactError
        If it is damaged or not finished, or its log is not there or is another one.
    """
    named = Path(run).expanduser()
    folder = named.parent if named.name == KIND and (named / MANIFEST).is_file() else named
    checkpoint, command = folder / KIND, f"fae run RECIPE.toml --out {folder}"
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise RecipeError(f"{folder} {what}; name the folder of a finished run (--out of `fae run`)")
    if not (checkpoint / MANIFEST).is_file() and (folder / MANIFEST).is_file():
        raise RecipeError(
            f"{folder} is not a trained run but one of its folders; name the run, "
            f"{Path(os.path.abspath(folder)).parent}"
        )
    if not (checkpoint / MANIFEST).is_file():
        raise ArtifactError(f"there is no trained model in {folder}; run `{command}` first")
    manifest = open_checkpoint(checkpoint, command=command)
    if not read_progress(checkpoint)["complete"]:
        raise ArtifactError(f"the training in {checkpoint} is not finished; run `{command}`, which continues it")
    return ParentRun(
        checkpoint=checkpoint, manifest=manifest, log=_open_log(folder, manifest.parents[LOG_KIND], command)
    )


def _open_log(folder: Path, trained_on: str, command: str) -> ColumnarLog:
    """The log with the fingerprint `trained_on`: beside the checkpoint, or where the run's record says."""
    found = []
    for place in (folder / LOG_KIND, *_recorded(folder)):
        if (place / MANIFEST).is_file():
            log = ColumnarLog(place, command=command)
            if log.manifest.fingerprint == trained_on:
                return log
            found.append(f"{place} is another one ({log.manifest.fingerprint[:8]})")
    led = broken_link(folder / LOG_KIND)
    gone = f"{folder / LOG_KIND} is a link to {led}, which is gone" if led else f"there is none in {folder}"
    where = ", ".join(found) or gone
    raise ArtifactError(
        f"the log that {folder / KIND} was trained on ({trained_on[:8]}) is not there: {where}; its vocabulary is "
        f"needed, so run `{command}`, or link the log to {folder / LOG_KIND}"
    )


def _recorded(folder: Path) -> list[Path]:
    """Where the log of a run that read a columnar log in place may be."""
    try:
        record = read_json(folder / _RECORD)
        table = record["recipe"]["log"]
        names = [table["train"]] if isinstance(table["train"], str) else table["train"]
        if table["format"] != "columnar":
            return []
        recorded = [record.get("log_path"), *names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    starts = [Path(name) for name in recorded if isinstance(name, str)]
    return [place for name in starts for start in (Path(), folder) for place in (start / name, start / name / LOG_KIND)]
