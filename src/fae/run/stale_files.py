"""Files of a run folder that describe its training, and what becomes of them when that is replaced or continued.

A record, a page, metrics or scores of an earlier training beside a newer one would be taken for the newer one's. They
go when the first checkpoint of the newer one takes the place of the earlier one, and not before: a training that fails
until then, for want of memory or by a diverging loss, leaves the earlier one with all that describes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fae.artifacts.checkpoint import KIND, read_progress
from fae.artifacts.manifest import Plan, is_current
from fae.checkpoint.more_epochs import BEST, LAST
from fae.core.errors import ArtifactError
from fae.core.files import MANIFEST, drop_folder, replaced_path
from fae.core.progress import say
from fae.core.whole_files import json_values, read_json

RUN_RECORD, REPORT, METRICS, PARENT_TEST = "run.json", "report.html", "metrics.jsonl", "parent_test.json"
_WRITTEN_EARLY = (METRICS, PARENT_TEST)
"""Files that a training writes before its first checkpoint."""
EARLIER = ".earlier"
"""Ending that a CSV file of scores gets: unlike a Parquet file it does not say which training scored it."""


def set_aside(out: Path) -> None:
    """Put aside the files that a new training writes before its first checkpoint; `take_back` undoes it."""
    for name in _WRITTEN_EARLY:
        if (out / name).is_file() and not (out / name).is_symlink():
            (out / name).rename(replaced_path(out / name))


def take_back(out: Path) -> None:
    """Put back what is set aside: the training that did so has ended without a checkpoint."""
    for name in _WRITTEN_EARLY:
        with contextlib.suppress(OSError):
            replaced_path(out / name).replace(out / name)


def clear_for_training(out: Path, plan: Plan, *, continued: bool) -> None:
    """Take away what describes the training in `out`, which is about to be replaced or continued, and say so.

    Parameters
    ----------
    plan
        The training that comes; what it has written itself stays.
    continued
        Whether the training continues: then its weights and its metrics so far stay.
    """
    told = _told_of(out)
    gone = [name for name in (RUN_RECORD, REPORT) if (out / name).is_file() and not (out / name).is_symlink()]
    for name in gone:
        (out / name).unlink()
    for name in _WRITTEN_EARLY:
        aside = replaced_path(out / name)
        if aside.is_file() and not aside.is_symlink():
            aside.unlink()
            gone.append(name)
    for name in () if continued else (BEST, LAST):
        if (out / name / MANIFEST).is_file() and not _is_of(out / name, plan):
            drop_folder(out / name)
            gone.append(f"{name}/")
    for path in list(_score_files(out)):
        if path.suffix == ".parquet":
            path.unlink()
            gone.append(path.name)
        else:
            path.rename(path.with_name(path.name + EARLIER))
            gone.append(f"{path.name} (now {path.name}{EARLIER})")
    if told and not continued:
        say(f"train: {told} in {out} is replaced")
    if gone:
        say(f"train: {', '.join(gone)} described the earlier training and {'is' if len(gone) == 1 else 'are'} removed")


def drop_stale_report(out: Path, record: Mapping[str, Any]) -> None:
    """Remove a page that was drawn from a record with other figures than `record`, which is about to replace it."""
    if not (out / REPORT).is_file() or (out / REPORT).is_symlink():
        return
    try:
        before = read_json(out / RUN_RECORD)
        if all(before.get(part) == json_values(record[part]) for part in _FIGURES):
            return
    except (OSError, ValueError, AttributeError):
        pass
    (out / REPORT).unlink()
    say(f"run: removed {REPORT}, drawn from an earlier record; `fae report {out}` draws it again")


_FIGURES = ("train", "validation", "test", "fingerprints")


def _is_of(path: Path, plan: Plan) -> bool:
    try:
        return is_current(path, plan)
    except ArtifactError:
        return False


def _told_of(out: Path) -> str:
    """What the training in a folder is called; "" where there is none."""
    try:
        progress = read_progress(out / KIND)
    except ArtifactError:
        return ""
    if progress["complete"]:
        return "the finished training"
    return f"an unfinished training of another recipe, of {progress['batches']:,} batches so far,"


def _score_files(out: Path) -> Iterator[Path]:
    """Files of `fae predict` in the run folder itself."""
    for path in sorted(out.iterdir()):
        if path.suffix not in (".csv", ".parquet") or path.is_symlink() or not path.is_file():
            continue
        from fae.run.score_file import scored_by  # pyarrow, which training does not need

        if scored_by(path) is not None:
            yield path
