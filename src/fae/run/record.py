"""The run record, ``run.json``: what was done, on what, and what came of it; JSON values only.

`fae report` and people's scripts read it, so keys are added and never renamed. Times and versions are recorded here and
in no artifact, so artifacts stay reproducible.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fae.artifacts.checkpoint import read_result
from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.packed import PackedDataset
from fae.core.config import to_table
from fae.core.errors import ArtifactError
from fae.core.optimizers import row_bytes
from fae.core.units import format_bytes, format_count
from fae.core.whole_files import read_json
from fae.profile.skew import skew_curve
from fae.run.parent_test import read_parent_test

if TYPE_CHECKING:
    from fae.artifacts.access_profile import AccessProfile
    from fae.artifacts.hot_set import HotSet
    from fae.checkpoint.parent import ParentRun
    from fae.run.recipe import Recipe

_LIBRARIES = ("fae", "torch", "numpy", "numba", "pyarrow", "safetensors")


class RunResult(dict[str, Any]):
    """A run record: a dictionary of JSON values that prints as one line in a notebook."""

    def __repr__(self) -> str:
        test, hot, train = self["test"], self["hot"], self["train"]
        auc = "not defined" if test["auc"] is None else f"{test['auc']:.5f}"
        return (
            f"RunResult(test AUC {auc}, {format_count(train['num_inputs'])} inputs trained, coverage "
            f"{100 * hot['coverage']:.1f} %, hot-input share {100 * hot['input_share']:.1f} %, "
            f"{format_bytes(hot['bytes'])} of hot rows; keys: {', '.join(self)})"
        )


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that shape a result."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def machine() -> dict[str, Any]:
    """Return processor, cores, memory in bytes and GPU of this machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, StopIteration, ValueError):
        processor, memory = platform.processor(), 0
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
    }


def source_commit() -> str | None:
    """Return the commit of the checkout that this package runs from, or None."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def table_facts(log: ColumnarLog, hot_set: HotSet) -> list[dict[str, Any]]:
    """Return, for each table, the bytes of a row with its state, the accesses in the training split and their skew."""
    return [
        {
            "name": feature.name,
            "num_embeddings": feature.num_embeddings,
            "row_bytes": row_bytes(hot_set.optimizer, table["embedding_dim"]),
            **skew_curve(log.counts[start:stop]),
        }
        for feature, table, start, stop in zip(
            log.features, hot_set.summary["tables"], log.table_offsets[:-1], log.table_offsets[1:], strict=True
        )
    ]


def make_record(
    recipe: Recipe,
    *,
    log: ColumnarLog,
    profile: AccessProfile,
    hot_set: HotSet,
    packed: PackedDataset,
    checkpoint: Path,
    stage_seconds: dict[str, float | None],
    parent: ParentRun | None = None,
    times: Mapping[str, str | None] | None = None,
) -> RunResult:
    """Put the record together from the artifacts of a run.

    Parameters
    ----------
    times
        ``started``, ``ended`` and ``command``: `run_times`.
    """
    result = read_result(checkpoint)
    hot, pack = hot_set.summary, packed.manifest.summary
    return RunResult(
        {
            "recipe": {name: to_table(getattr(recipe, name)) for name in ("log", "model", "hot", "train")},
            "seed": recipe.train.seed,
            "versions": library_versions(),
            "machine": machine(),
            "commit": source_commit(),
            "log": log.manifest.summary,
            "log_path": _log_path(log.path, checkpoint),
            "profile": profile.manifest.summary,
            # Exact, over the packed training split; what calibrate predicted from its sample is kept beside it.
            "hot": {
                **hot,
                "input_share": pack["input_share"],
                "coverage": pack["coverage"],
                "predicted": {"input_share": hot["input_share"], "coverage": hot["coverage"]},
            },
            "pack": pack,
            "tables": table_facts(log, hot_set),
            "train": result["train"],
            "validation": result["validation"],
            "test": result["test"],
            "stage_seconds": stage_seconds,
            **dict.fromkeys(_TIMES),
            **(times or {}),
            "fingerprints": {
                artifact.manifest.kind: artifact.manifest.fingerprint for artifact in (log, profile, hot_set, packed)
            },
            "parent": parent and _parent_facts(parent, checkpoint.parent, log),
        }
    )


_TIMES = ("started", "ended", "command")


def run_times(
    record: Path, *, keep: bool, started: str, ended: str, command: str | None = None
) -> dict[str, str | None]:
    """When a run started and ended, and the command line that it was started by.

    Parameters
    ----------
    record
        The record that is there, if any.
    keep
        Whether nothing was trained: the times of the record that is there then stay.
    started, ended
        When this process started and ended, as ISO 8601 with the zone.
    """
    if keep:
        try:
            found = read_json(record)
            if isinstance(found, dict) and _TIMES[0] in found:
                return {name: found.get(name) for name in _TIMES}
        except (OSError, ValueError):
            pass
    return dict(zip(_TIMES, (started, ended, command), strict=True))


def _parent_facts(parent: ParentRun, out: Path, log: ColumnarLog) -> dict[str, Any]:
    """The run that was continued: where, which, how good on its own test split and, before training, on this one."""
    try:
        test = read_result(parent.checkpoint)["test"]
    except ArtifactError:
        test = None
    return {
        "path": str(parent.checkpoint),
        "fingerprints": parent.fingerprints,
        "test": test,
        "test_before": read_parent_test(out, parent, log),
    }


def _log_path(log: Path, checkpoint: Path) -> str:
    """Where the columnar log is: its name where it is in the run folder, so that the folder may be moved."""
    return log.name if log.parent.resolve() == checkpoint.parent.resolve() else str(log.absolute())
