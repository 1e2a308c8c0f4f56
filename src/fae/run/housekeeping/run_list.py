"""What runs there are: figures, state and size of every run folder, from its record and its manifests alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from fae.artifacts.checkpoint import KIND as CHECKPOINT_KIND
from fae.artifacts.checkpoint import read_progress
from fae.artifacts.columnar_log import KIND as LOG_KIND
from fae.core.errors import ArtifactError, RecipeError
from fae.core.files import LOCK, MANIFEST, broken_link
from fae.core.whole_files import read_json
from fae.engine.leftovers import active_workers, has_leftovers
from fae.ingest.shards.unfinished_paths import progress_paths
from fae.run.stale_files import RUN_RECORD

STAGE_OF = {"log": "ingest", "profile": "profile", "hot_set": "calibrate", "packed": "pack"}
"""Kinds of data artifacts in the order of their stages."""

SORTS: Mapping[str, tuple[str, bool]] = {
    "name": ("name", False), "when": ("when", True), "rate": ("inputs_per_second", True), "auc": ("test_auc", True),
    "loss": ("test_log_loss", False), "size": ("bytes", True),
}  # fmt: skip
"""Orders of a list: the figure, and whether the largest comes first. Runs without it come last."""


def find_runs(folder: str | Path, *, sort: str = "when") -> list[dict[str, Any]]:
    """Facts about every run in a folder, and about the folder itself where it is a run.

    Parameters
    ----------
    folder
        Its folders are looked at, and the folders in those that are no runs themselves (``runs/demo/run``).
    sort
        One of `SORTS`.

    Returns
    -------
    list[dict]
        `facts_of_run` of each.

    Raises
    ------
    RecipeError
        If there is no such folder or order.
    """
    place = Path(folder).expanduser()
    if sort not in SORTS:
        raise RecipeError(f"--sort {sort!r} is no order; the orders are {', '.join(SORTS)}")
    if not place.is_dir():
        what = "is a file" if place.exists() else "does not exist"
        raise RecipeError(f"{place} {what}; name the folder that holds the runs, such as runs/")
    found = [facts_of_run(each, place) for each in _runs_in(place)]
    key, largest_first = SORTS[sort]
    known = sorted((each for each in found if each[key] is not None), key=_by(key), reverse=largest_first)
    return known + [each for each in found if each[key] is None]


def _by(key: str) -> Callable[[Mapping[str, Any]], Any]:
    if key == "when":
        return lambda facts: datetime.fromisoformat(facts["when"]).timestamp()
    return lambda facts: facts[key]


def _runs_in(place: Path) -> list[Path]:
    if is_run(place) or has_begun(place):
        return [place]
    found = []
    for each in _folders(place):
        runs = [each] if is_run(each) or has_begun(each) else _folders(each)
        found += [run for run in runs if is_run(run) or has_begun(run)]
    return found


def _folders(place: Path) -> list[Path]:
    try:
        return sorted(each for each in place.iterdir() if each.is_dir() and not each.name.startswith("."))
    except OSError:
        return []


def is_run(place: Path) -> bool:
    """Whether a folder is that of a run: it has a record or an artifact of a stage."""
    kinds = (*STAGE_OF, CHECKPOINT_KIND)
    return (place / RUN_RECORD).is_file() or any(
        (place / kind / MANIFEST).is_file() or broken_link(place / kind) for kind in kinds
    )


def has_begun(place: Path) -> bool:
    """Whether a run in a folder has begun, made or not: an ingest or its workers have left something there."""
    return has_leftovers(place) or any(path.exists() for path in progress_paths(place / LOG_KIND))


def facts_of_run(run: Path, start: Path | None = None) -> dict[str, Any]:
    """Facts about one run: JSON values; None where something is not known.

    Parameters
    ----------
    start
        Folder that its name starts from.

    Returns
    -------
    dict
        ``name``, ``path``, ``state`` (``finished``, ``running``, ``unfinished`` or ``broken``), ``stage`` (the last
        complete one), ``detail`` (what is unfinished or broken), ``when`` (ISO 8601), ``log`` (names of its files),
        ``num_inputs``, ``model``, ``placement``, ``device``, ``budget_bytes``, ``epochs``, ``inputs_per_second``,
        ``test_auc``, ``test_log_loss``, ``parent``, ``bytes`` (on the disk, links not followed).
    """
    name = run.absolute().name if start is None or run == start else str(run.relative_to(start))
    facts: dict[str, Any] = {
        "name": name, "path": str(run), "state": "unfinished", "stage": None, "detail": "", "when": None, "log": [],
        "num_inputs": None, "model": None, "placement": None, "device": None, "budget_bytes": None, "epochs": None,
        "inputs_per_second": None, "test_auc": None, "test_log_loss": None, "parent": None, "bytes": folder_bytes(run),
    }  # fmt: skip
    for kind, stage in STAGE_OF.items():
        if (run / kind / MANIFEST).is_file():
            facts["stage"] = stage
    faults = []
    for add in (_add_log, _add_training, _add_record):  # where one cannot be read, the others still have figures
        try:
            add(facts, run)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            faults.append(" ".join(str(error).split())[:120] or type(error).__name__)
        except ArtifactError as error:
            faults.append(str(error).split("; ")[0])
    if faults:
        facts.update(state="broken", detail=faults[0])
    if facts["when"] is None:
        facts["when"] = _modified(run)
    workers = active_workers(run)
    if workers or is_locked(run):
        facts["state"] = "running"
    if workers:
        facts["detail"] = ", ".join(workers)
    elif has_leftovers(run) and not facts["detail"] and facts["state"] != "running":
        facts["detail"] = "workers that were killed left files; `fae clean` removes them"
    return facts


def _add_log(facts: dict[str, Any], run: Path) -> None:
    if (led := broken_link(run / LOG_KIND)) is not None:
        raise ArtifactError(f"its log was {led}, which is not there any more; `fae run` ingests it again")
    if not (run / LOG_KIND / MANIFEST).is_file():
        return
    found = read_json(run / LOG_KIND / MANIFEST)
    facts["num_inputs"] = found["summary"]["num_inputs"]
    facts["log"] = [each["name"] for each in found["parameters"].get("sources", ())]


def _add_training(facts: dict[str, Any], run: Path) -> None:
    checkpoint = run / CHECKPOINT_KIND
    if not (checkpoint / MANIFEST).is_file():
        facts["detail"] = f"made: {facts['stage']}" if facts["stage"] else "nothing is made yet"
        return
    progress, made_with = read_progress(checkpoint), read_json(checkpoint / MANIFEST)["parameters"]
    facts["when"] = _modified(checkpoint / MANIFEST)
    train, done = made_with.get("train", {}), progress.get("schedule", {}).get("epoch", 0)
    facts.update(
        stage="train", model=made_with.get("model", {}).get("name"), placement=train.get("placement"),
        device=made_with.get("device"), epochs=done,
    )  # fmt: skip
    if not progress["complete"]:
        facts["detail"] = f"in epoch {done + 1} of {train.get('epochs', '?')}"
        return
    facts["state"] = "finished"
    _add_result(facts, progress["result"])
    log = made_with and read_json(checkpoint / MANIFEST)["parents"].get(LOG_KIND)
    if (run / LOG_KIND / MANIFEST).is_file() and read_json(run / LOG_KIND / MANIFEST)["fingerprint"] != log:
        facts["detail"] = "its log is another one than it was trained on"


def _add_result(facts: dict[str, Any], result: Mapping[str, Any]) -> None:
    train, test = result.get("train", {}), result.get("test", {})
    facts.update(
        inputs_per_second=train.get("samples_per_second"), test_auc=test.get("auc"),
        test_log_loss=test.get("log_loss"), epochs=train.get("epochs", facts["epochs"]),
    )  # fmt: skip


def _add_record(facts: dict[str, Any], run: Path) -> None:
    if not (run / RUN_RECORD).is_file():
        return
    record = read_json(run / RUN_RECORD)
    facts["when"] = record.get("ended") or facts["when"]
    facts["budget_bytes"] = record["hot"]["budget_bytes"]
    facts["num_inputs"] = record["log"]["num_inputs"]
    facts["parent"] = (record.get("parent") or {}).get("path")
    facts["model"], facts["placement"] = record["recipe"]["model"]["name"], record["recipe"]["train"]["placement"]
    if not facts["log"]:
        train = record["recipe"]["log"]["train"]
        facts["log"] = [train] if isinstance(train, str) else list(train)
    if facts["stage"] != "train":  # the record alone was kept
        facts["state"], facts["detail"] = "unfinished", "its checkpoint is not there"
        _add_result(facts, record)


def _modified(path: Path) -> str | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime).astimezone().isoformat(timespec="seconds")
    except OSError:
        return None


def folder_bytes(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links are not followed, and count nothing."""
    if path.is_symlink():
        return 0
    if path.is_file():
        return path.stat().st_size
    total = 0
    for place, _, names in os.walk(path):
        for name in names:
            try:
                status = os.lstat(os.path.join(place, name))
            except OSError:
                continue
            total += status.st_size
    return total


def is_locked(run: Path) -> bool:
    """Whether a process is writing to a run folder."""
    try:
        descriptor = os.open(run / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
