"""What the hot rows of a run still serve of a new log: coverage and hot-input share, table by table.

The new log is ingested and profiled as by ``fae profile``; its values are looked up among those of the earlier run, by
their ids where the new log continues it (``[train] from``), else by their text. A value that the earlier run does not
know would be a new row, and new rows are cold.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fae.artifacts.addressing import map_slots
from fae.artifacts.columnar_log import KIND as LOG_KIND
from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.hot_set import KIND as HOT_KIND
from fae.artifacts.hot_set import HotSet
from fae.artifacts.lineage import moved_reserved_id
from fae.artifacts.manifest import require_parent
from fae.calibrate.intervals import share_interval
from fae.core.errors import BudgetError, RecipeError
from fae.core.progress import say, task
from fae.core.units import format_bytes, format_count
from fae.core.whole_files import read_json
from fae.profile.counting import count_hot_lookups
from fae.profile.sampling import profiled_inputs
from fae.run import prepare
from fae.run.stale_files import RUN_RECORD

if TYPE_CHECKING:
    from fae.artifacts.access_profile import AccessProfile
    from fae.run.context import RunContext

WORTH = 0.02
"""Hot-input share that a new calibration must win back to be worth it."""
_CONFIDENCE = 0.999


def measure_drift(run: RunContext, log: ColumnarLog, profile: AccessProfile, against: str | Path) -> dict[str, Any]:
    """Compare what the hot rows of an earlier run serve of its own training inputs and of a new log's.

    Parameters
    ----------
    run
        The recipe of the new log: its ``[hot]`` is calibrated anew, for the earlier run's budget.
    log, profile
        The new log and its profile.
    against
        Folder of the earlier run, with its log and hot set.

    Returns
    -------
    dict
        See ``docs/guide/profile.md``.

    Raises
    ------
    RecipeError
        If there is no such run, or its log has other columns.
    ArtifactError
        If its log or hot set is missing or damaged.
    """
    folder = Path(against).expanduser()
    if not folder.is_dir():
        raise RecipeError(f"--against {folder} is no folder; name the --out of an earlier `fae run`")
    old = ColumnarLog(folder / LOG_KIND, command=f"fae run RECIPE.toml --out {folder}")
    hot_set = HotSet(folder / HOT_KIND, command=f"fae calibrate RECIPE.toml --out {folder}")
    if LOG_KIND in hot_set.manifest.parents:
        require_parent(hot_set.manifest, old.manifest, command=f"fae calibrate RECIPE.toml --out {folder}")
    old_ids = _known_ids(old, log)
    hot, tables = [], []
    for table, (feature, ids) in enumerate(zip(log.features, old_ids, strict=True)):
        was_hot = _hot_rows(hot_set, table)
        mask = (ids >= 0) & was_hot[np.maximum(ids, 0)]
        hot.append(mask)
        counts = profile.counts[log.table_offsets[table] : log.table_offsets[table + 1]]
        before = old.counts[old.table_offsets[table] : old.table_offsets[table + 1]]
        tables.append(
            {
                "name": feature.name, "accesses": int(counts.sum()),
                "coverage_before": _share(before[was_hot].sum(), before.sum()),
                "coverage": _share(counts[mask].sum(), counts.sum()),
                "new_share": _share(counts[ids < 0].sum(), counts.sum()),
                "num_new_rows": int(np.count_nonzero((ids < 0) & (counts > 0))),
            }
        )  # fmt: skip
    found = _measure_inputs(log, profile, hot)
    before_all = _before(folder, hot_set)
    result = {
        "against": str(folder), "budget_bytes": hot_set.summary["budget_bytes"],
        "num_inputs": profile.num_inputs, "is_exact": profile.is_exact,
        "held_all_rows": all(_hot_rows(hot_set, table).all() for table in range(len(old.features))),
        "before": before_all, "now": found, "calibrated_again": _calibrated(run, log, profile, hot_set),
        "tables": tables,
    }  # fmt: skip
    result.update(_verdict(result))
    _say(result)
    return result


def _share(part: Any, whole: Any) -> float | None:
    return int(part) / int(whole) if whole else None


def _hot_rows(hot_set: HotSet, table: int) -> npt.NDArray[np.bool_]:
    layout = hot_set.layout
    rank, size = layout.ranks[table], layout.features[table].num_embeddings
    order = np.arange(size) if rank is None else np.asarray(rank)
    return np.asarray(order < layout.num_hot[table])


def _known_ids(old: ColumnarLog, new: ColumnarLog) -> list[npt.NDArray[np.int64]]:
    """The earlier run's id of each id of the new log, a table each: int64 ``[num_embeddings]``; -1 where it is new."""
    there, here = ([feature.name for feature in log.features] for log in (old, new))
    if there != here:
        raise RecipeError(
            f"the log of the recipe has the tables {here!r}, and {old.path} has {there!r}; compare runs of the same "
            "columns"
        )
    if new.manifest.fingerprint == old.manifest.fingerprint:
        return [np.arange(feature.num_embeddings) for feature in new.features]
    if new.manifest.parents.get(LOG_KIND) == old.manifest.fingerprint:
        return [_continued(before, after) for before, after in zip(old.features, new.features, strict=True)]
    return [_by_value(old, new, table) for table in range(len(new.features))]


def _continued(before: Any, after: Any) -> npt.NDArray[np.int64]:
    moved = moved_reserved_id(before, after)
    known = before.num_embeddings if moved is None else min(before.num_embeddings, moved[0])
    ids = np.full(after.num_embeddings, -1, np.int64)
    ids[:known] = np.arange(known)
    ids[after.unknown_id] = before.unknown_id
    return ids


def _by_value(old: ColumnarLog, new: ColumnarLog, table: int) -> npt.NDArray[np.int64]:
    name = f"vocabulary/{table}.parquet"
    for log in (old, new):
        if name not in log.manifest.files:
            raise RecipeError(
                f"{log.path} has no vocabulary (it was not made from a raw log), so its ids cannot be compared with "
                "another log's; compare a log that continues it ([train] from)"
            )
    values = [pq.read_table(log.path / name, columns=["value"]).column("value").combine_chunks() for log in (old, new)]
    found = pc.index_in(values[1], value_set=values[0], skip_nulls=True)
    ids = np.asarray(pc.fill_null(found, -1)).astype(np.int64)
    ids[new.features[table].unknown_id] = old.features[table].unknown_id
    return ids


def _measure_inputs(log: ColumnarLog, profile: AccessProfile, hot: Sequence[npt.NDArray[np.bool_]]) -> dict[str, Any]:
    """Coverage and hot-input share of the profiled inputs, with the interval of the share."""
    slots = map_slots(log.features)
    ranks = np.where(np.concatenate(hot), 0, 1).astype(np.int32)
    first = np.ones(slots.num_slots, np.int64)
    lookups = hot_lookups = hot_inputs = 0
    with task("profile: comparing", total=profile.num_inputs) as progress:
        for ids, _ in profiled_inputs(profile, log).blocks():
            of_each, hot_of_each = count_hot_lookups(ids, slots, ranks, first)
            lookups += int(of_each.sum())
            hot_lookups += int(hot_of_each.sum())
            hot_inputs += int(np.count_nonzero(of_each == hot_of_each))
            progress.advance(len(ids))
    start, stop = log.split("train")
    return {
        "coverage": _share(hot_lookups, lookups),
        "input_share": hot_inputs / max(1, profile.num_inputs),
        "input_share_interval": list(share_interval(hot_inputs, profile.num_inputs, stop - start, _CONFIDENCE)),
    }


def _before(folder: Path, hot_set: HotSet) -> dict[str, Any]:
    """What the hot set served of the run's own training split: exact by its record, else as calibrate predicted."""
    try:
        record = read_json(folder / RUN_RECORD)
        if record["fingerprints"][HOT_KIND] == hot_set.manifest.fingerprint:
            hot: Mapping[str, Any] = record["hot"]
            return {"coverage": float(hot["coverage"]), "input_share": float(hot["input_share"]), "is_exact": True}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    summary = hot_set.summary
    return {"coverage": summary["coverage"], "input_share": summary["input_share"], "is_exact": False}


def _calibrated(run: RunContext, log: ColumnarLog, profile: AccessProfile, hot_set: HotSet) -> dict[str, Any] | None:
    """What a hot set of the new log would serve under the earlier run's budget; None where none fits it."""
    hot = dataclasses.replace(run.recipe.hot, budget=hot_set.summary["budget_bytes"])
    options = dataclasses.replace(prepare.PackOptions.from_recipe(run.recipe, log.features), hot=hot)
    with tempfile.TemporaryDirectory(prefix="fae-", ignore_cleanup_errors=True) as place:
        try:
            made = prepare.make_hot_set(log, profile, options, Path(place) / HOT_KIND)
        except BudgetError as error:
            say(f"profile: no hot set of the new log fits: {error}")
            return None
        return {"coverage": made.summary["coverage"], "input_share": made.summary["input_share"]}


def _verdict(result: Mapping[str, Any]) -> dict[str, Any]:
    now, fresh = result["now"]["input_share"], result["calibrated_again"]
    lost = result["before"]["input_share"] - now
    regained = fresh["input_share"] - now if fresh else None
    again = regained is not None and regained >= WORTH
    if regained is not None and again and result["held_all_rows"]:
        text = (
            f"take up the new values: every row of the run was hot, and {100 * regained:.1f} points of hot-input share "
            "come back with theirs"
        )
    elif regained is None:
        text = "the budget holds no hot set of the new log; raise it"
    elif again:
        text = f"calibrate again: {100 * regained:.1f} points of hot-input share come back"
    elif lost >= WORTH:
        text = (
            f"calibrating again wins back {max(0.0, 100 * regained):.1f} points only: the new log itself is less "
            "skewed, or has more new values; a larger budget helps"
        )
    else:
        text = "keep the hot rows: they serve the new log as they served their own"
    return {"lost_input_share": lost, "regained_input_share": regained, "calibrate_again": again, "verdict": text}


def _say(result: Mapping[str, Any]) -> None:
    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f} %"

    before, now, fresh = result["before"], result["now"], result["calibrated_again"] or {}
    say(
        f"profile: hot rows of {result['against']} ({format_bytes(result['budget_bytes'])}) on "
        f"{format_count(result['num_inputs'])} inputs of the new log"
    )
    rows = [("table", "coverage before", "now", "new values")]
    rows += [
        (each["name"], percent(each["coverage_before"]), percent(each["coverage"]), percent(each["new_share"]))
        for each in sorted(result["tables"], key=lambda each: (each["coverage"] or 0) - (each["coverage_before"] or 0))
    ]
    rows.append(("all tables", percent(before["coverage"]), percent(now["coverage"]), ""))
    rows.append(("hot-input share", percent(before["input_share"]), percent(now["input_share"]), ""))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        figures = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        say("profile:   " + "  ".join([row[0].ljust(widths[0]), *figures]).rstrip())
    say(
        f"profile: calibrated again for the same budget: coverage {percent(fresh.get('coverage'))}, hot-input share "
        f"{percent(fresh.get('input_share'))}"
    )
    say(f"profile: {result['verdict']}")
