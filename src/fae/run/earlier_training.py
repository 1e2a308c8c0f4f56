"""Stop before a finished training is lost: what differs, key by key, and the files that describe the old one.

A finished training is replaced only with ``--replace``. Before any stage does work the recipe is compared with what
made the checkpoint in the folder: its tables, its device, its log, the run it continued and, through the fingerprints
that profile, hot set and packed batches would have, ``[hot]``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fae.artifacts.checkpoint import KIND, open_checkpoint, read_progress
from fae.artifacts.columnar_log import KIND as LOG_KIND
from fae.artifacts.manifest import Manifest, Plan, is_current
from fae.artifacts.packed import KIND as PACKED_KIND
from fae.checkpoint.more_epochs import LAST, continues, find_earlier_epochs
from fae.core.config import to_table
from fae.core.errors import ArtifactError
from fae.core.files import MANIFEST
from fae.core.printable import brief
from fae.core.progress import say
from fae.core.whole_files import read_json
from fae.ingest.raw_files.digest_kinds import is_same_content
from fae.ingest.raw_files.remote_name import is_remote
from fae.ingest.raw_files.source_digests import sidecar
from fae.models.config import model_config
from fae.run import prepare
from fae.run.planned_training import batches_of, former_settings
from fae.run.shared_logs import hand_over, named_users, users_of
from fae.run.stages import INGEST
from fae.run.stale_files import RUN_RECORD
from fae.run.train_stage import plan_training
from fae.training.config import TrainConfig

if TYPE_CHECKING:
    from fae.run.context import RunContext

Difference = tuple[str, Any, Any]
"""Name of a setting, its value in the folder, its value in the recipe."""

_MOST_SHOWN = 4
_ABSENT = "not set"


def require_replaceable(run: RunContext, log_plan: Plan, gone: Mapping[str, Any] | None = None) -> None:
    """Stop where the recipe would replace a finished training, or a log that cannot be made again.

    Parameters
    ----------
    log_plan
        What the recipe's log is made from.
    gone
        Raw files of the log in the folder that are no longer there: `missing_sources`, before `log_plan` was made.

    Raises
    ------
    ArtifactError
        It names the settings that differ, and what to do.
    """
    finished = _finished(run.out)
    if finished is None:
        _require_log_replaceable(run, log_plan, gone or {})
        _require_own_defaults(run, log_plan)
        return
    differences = list(_differences(run, finished, log_plan))
    if not differences:
        return
    shown = ", ".join(_told(*each) for each in differences[:_MOST_SHOWN])
    more = f" and {len(differences) - _MOST_SHOWN} more" if len(differences) > _MOST_SHOWN else ""
    former = former_settings(run, log_plan)
    kept = f"it was made under the defaults of an earlier version, which `{former}` keeps; or " if former else ""
    raise ArtifactError(
        f"{run.out} has a finished training, and the recipe differs from it in {shown}{more}; {kept}keep it and choose "
        "another folder with --out, or replace it with --replace"
    )


def _require_own_defaults(run: RunContext, log_plan: Plan) -> None:
    """Refuse to begin anew what an earlier version began, where the recipe means the same but for changed defaults."""
    if not (run.out / KIND / MANIFEST).is_file():
        return
    former, batches = "", 0
    with contextlib.suppress(ArtifactError):  # damage is told by the stage that reads the checkpoint
        packed = batches_of(run, log_plan)
        if packed and not continues(run.out, plan_training(run, packed.fingerprints, log_plan.fingerprint)):
            former, batches = former_settings(run, log_plan), read_progress(run.out / KIND)["batches"]
    if former:
        raise ArtifactError(
            f"{run.out} has an unfinished training of {batches:,} batches, begun under the defaults of an earlier "
            f"version; continue it with `{former}`, or the same in the recipe, or begin anew with --replace"
        )


def _finished(out: Path) -> Manifest | None:
    """The manifest of a finished training; damage is told by the stage that reads the checkpoint."""
    if not (out / KIND / MANIFEST).is_file():
        return None
    try:
        return open_checkpoint(out / KIND) if read_progress(out / KIND)["complete"] else None
    except ArtifactError:
        return None


def _require_log_replaceable(run: RunContext, plan: Plan, gone: Mapping[str, Any]) -> None:
    """Refuse to replace a log whose raw files are gone, or that other runs read."""
    path = run.out / LOG_KIND
    if run.recipe.log.is_columnar or path.is_symlink() or not (path / MANIFEST).is_file() or is_current(path, plan):
        return
    reasons = []
    if users := users_of(run.out):
        reasons.append(f"{named_users(users)} it")
    files = plan.parameters.get("sources", ())
    if lost := [name for name, facts in gone.items() if not any(_is_moved(name, facts, file) for file in files)]:
        reasons.append(f"its raw file {lost[0]} is not there any more")
    if reasons:
        raise ArtifactError(
            f"{path} is another log than the recipe's, and {' and '.join(reasons)}; keep it and choose another folder "
            "with --out, or replace it with --replace"
        )


def keep_for_users(run: RunContext, plan: Plan) -> None:
    """Hand the log, where the recipe will replace it, to the runs that link to it; name those that read it otherwise.

    Raises
    ------
    ArtifactError
        If it cannot be written to their folders.
    """
    path = run.out / LOG_KIND
    if run.recipe.log.is_columnar or not (path / MANIFEST).is_file() or is_current(path, plan):
        return
    if kept := hand_over(run.out):
        say(f"ingest: {named_users(kept)} {path}, which is replaced: it is {kept[0] / LOG_KIND} now")
    if users := users_of(run.out):
        say(f"ingest: {path} is replaced, and {named_users(users)} it; `fae run` there ingests again")


def _is_moved(name: str, facts: Mapping[str, Any], file: Mapping[str, Any]) -> bool:
    """Whether a raw file of the plan is one that was `name` before."""
    same = is_same_content(facts, file)
    # Where one was hashed by earlier code alone, name and size tell.
    return (Path(name).name, facts.get("bytes")) == (file.get("name"), file.get("bytes")) if same is None else same


def missing_sources(log: Path) -> dict[str, dict[str, Any]]:
    """Raw files of a log that are no longer where they were, as far as its sidecar knows them, and its facts of them.

    Files that are elsewhere (`s3://`) are not looked for.
    """
    try:
        known = read_json(sidecar(log))
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {
        name: facts if isinstance(facts, dict) else {}
        for name, facts in known.items()
        if not is_remote(name) and not Path(name).exists()
    }


def _differences(run: RunContext, finished: Manifest, log_plan: Plan) -> Iterator[Difference]:
    there, parent = finished.parameters, run.parent()
    if not {"model", "train"} <= there.keys():
        yield "what trained it: a program of its own, no recipe", None, None
        return
    same_log = finished.parents.get(LOG_KIND) == log_plan.fingerprint
    packed = batches_of(run, log_plan) if same_log else None
    found = list(_table("model", to_table(model_config(there["model"])), to_table(run.recipe.model)))
    before, now = (
        {**to_table(TrainConfig()), **each, **_UNSHAPING} for each in (there["train"], run.recipe.train.to_parameters())
    )
    found += _table("train", before, now)
    if there.get("device") != run.device():
        found.append(("the device", there.get("device"), run.device()))
    record = _record(run.out, finished)
    continued = finished.parents.get(KIND)
    if continued != (parent.manifest.fingerprint if parent else None):
        was = (record.get("parent") or {}).get("path") or "another run" if continued else None
        if was and continued:
            was = f"{was}, {continued[:8]}"
        here = f"{parent.checkpoint}, {parent.manifest.fingerprint[:8]}" if parent else None
        found.append(("[train] from", was, here))
    if packed is not None and finished.parents.get(PACKED_KIND) not in packed.fingerprints:
        found += _hot_differences(run, record) or (
            [] if found else [("[hot], or what else decides batches", None, None)]
        )
    elif same_log and [name for name, *_ in found] == ["[train] epochs"]:
        # Where the log has to be ingested again first, this is decided behind the ingest.
        found = [] if packed is None else _epochs_differences(run, packed, log_plan, found)
    elif packed is not None and not found:
        planned = plan_training(run, packed.fingerprints, log_plan.fingerprint)
        if planned.fingerprint != finished.fingerprint:
            rows = planned.parents.get("rows") != finished.parents.get("rows")
            what = "the rows of [train] rows_from" if rows else "what else training depends on, such as its version"
            found.append((what, None, None))
    if not same_log:
        yield from _log_differences(run, finished, log_plan)
    yield from found


_UNSHAPING = {"from": None, "checkpoint_minutes": None, "checkpoint_batches": None}
"""Keys of [train] that shape no weight, or are compared by what they name."""


def _epochs_differences(run: RunContext, packed: Plan, log: Plan, found: list[Difference]) -> list[Difference]:
    """What is in the way of epochs that only are more; `found` where they are another training."""
    earlier = find_earlier_epochs(run.out, plan_training(run, packed.fingerprints, log.fingerprint))
    if earlier is None:
        return found
    if earlier.is_too_long:
        return [("[train] epochs", earlier.trained, earlier.wanted)]
    if earlier.last_is_gone:
        name = f"[train] epochs, and more of them would continue from {earlier.folder / LAST}, which is gone:"
        return [(name, earlier.epochs, earlier.wanted)]
    return []


def _hot_differences(run: RunContext, record: Mapping[str, Any]) -> list[Difference]:
    before = (record.get("recipe") or {}).get("hot")
    if not isinstance(before, dict):
        return []
    profile = prepare.planned_profile(
        INGEST.open(run), prepare.PackOptions.from_recipe(run.recipe, INGEST.open(run).features)
    )
    same_profile = (record.get("fingerprints") or {}).get(profile.kind) == profile.fingerprint
    sampling = ("sample", "sample_min_inputs") if same_profile else ()  # they came to the same inputs
    return list(_table("hot", before, to_table(run.recipe.hot), leave_out=sampling))


def _log_differences(run: RunContext, finished: Manifest, plan: Plan) -> Iterator[Difference]:
    before = _log_parameters(run.out / LOG_KIND, finished)
    if before is None:
        yield "[log]", finished.parents.get(LOG_KIND, "unknown")[:8], plan.fingerprint[:8]
        return
    found = list(_table("log", before, plan.parameters, leave_out=("sources", "categorical")))
    found += _column_differences(before.get("categorical"), plan.parameters.get("categorical"))
    if before.get("sources") != plan.parameters.get("sources") and not any(
        name in ("[log] train", "[log] test") for name, *_ in found
    ):
        files = [
            new.get("name", "a file")
            for old, new in zip(before.get("sources", ()), plan.parameters.get("sources", ()), strict=False)
            if old != new
        ]
        yield f"the content of {', '.join(files[:3]) or 'the log'}", None, None
    yield from found
    if not found and before.get("sources") == plan.parameters.get("sources"):
        yield "the run whose ids the log continues", None, None


def _column_differences(before: Any, now: Any) -> list[Difference]:
    """Which columns differ: all of their settings would be a page."""
    if before == now:
        return []
    old, new = ({each["name"]: each for each in columns or ()} for columns in (before, now))
    parts = {
        "without": [name for name in old if name not in new],
        "with": [name for name in new if name not in old],
        "with other settings of": [name for name in new if name in old and new[name] != old[name]],
    }
    told = ", ".join(f"{how} {brief(names)}" for how, names in parts.items() if names)
    return [(f"[log] categorical ({told or 'in another order'})", None, None)]


def _log_parameters(log: Path, finished: Manifest) -> dict[str, Any] | None:
    """What the log that was trained on is made from, where it is still in the folder."""
    try:
        found = read_json(log / MANIFEST)
        if found["fingerprint"] == finished.parents.get(LOG_KIND) and isinstance(found["parameters"], dict):
            parameters: dict[str, Any] = found["parameters"]
            return parameters
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _table(
    section: str, before: Mapping[str, Any], now: Mapping[str, Any], leave_out: tuple[str, ...] = ()
) -> Iterator[Difference]:
    for key in (*now, *(key for key in before if key not in now)):
        old, new = before.get(key), now.get(key)
        if key not in leave_out and old != new:
            yield f"[{section}] {key}", old, new


def _told(name: str, before: Any, now: Any) -> str:
    if before is None and now is None:
        return name
    return f"{name} = {_value(now)} (there {_value(before)})"


def _value(value: Any) -> str:
    if value is None:
        return _ABSENT
    return value if isinstance(value, str) and " " in value else brief(value)


def _record(out: Path, finished: Manifest) -> dict[str, Any]:
    """The record of the finished training; empty where it is of another one or cannot be read."""
    try:
        found = read_json(out / RUN_RECORD)
        if found["fingerprints"][PACKED_KIND] == finished.parents.get(PACKED_KIND):
            return cast("dict[str, Any]", found)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}
