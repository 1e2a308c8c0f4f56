"""How good the run that is continued is on the new log's test split, before anything is trained.

The model of the earlier run scores the test split of the new log with its own rows and weights. Ids that it does not
have are its reserved id, as in ``fae evaluate`` of the same inputs. The metrics are kept in ``parent_test.json``, for
the run record.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fae.artifacts.columnar_log import ColumnarLog, feature_tables, first_slots, model_features
from fae.artifacts.lineage import moved_reserved_id
from fae.core.progress import say, task
from fae.core.whole_files import read_json, write_record
from fae.run.stale_files import PARENT_TEST

if TYPE_CHECKING:
    from fae.checkpoint.parent import ParentRun


def evaluate_parent(parent: ParentRun, log: ColumnarLog, out: Path, *, device: str) -> dict[str, Any] | None:
    """Evaluate `parent` on the test split of `log`, say it, and keep it in `out`; None where that split is empty.

    Parameters
    ----------
    device
        Where the model runs.

    Raises
    ------
    FaeError
        If the parent is damaged, or the file cannot be written.
    """
    from fae.run.scoring import BATCH_INPUTS, Scorer
    from fae.training.dense_threads import torch_threads
    from fae.training.quality.metrics import compute_metrics

    start, stop = log.split("test")
    if start == stop:
        return None
    scorer = Scorer(parent.checkpoint, parent.manifest, parent.log, device=device, command=parent.command)
    known = _KnownIds(parent.log, log)
    logits = np.empty(stop - start, np.float32)
    with torch_threads(scorer.threads), task("train: testing the earlier model", stop - start, "inputs") as progress:
        for first in range(start, stop, BATCH_INPUTS):
            last = min(first + BATCH_INPUTS, stop)
            ids, dense = known(np.array(log.ids[first:last])), np.array(log.dense[first:last], np.float32)
            logits[first - start : last - start] = scorer.logits(ids, dense)
            progress.advance(last - first)
    weights = None if log.weights is None else np.array(log.weights[start:stop], np.float32)
    metrics = dataclasses.asdict(compute_metrics(np.array(log.labels[start:stop], np.float32), logits, weights))
    write_record(out / PARENT_TEST, {"fingerprints": _named(parent, log), "test": metrics})
    auc, loss = metrics["auc"], metrics["log_loss"]
    say(
        f"train: before training, {parent.checkpoint.parent} on this test split: test AUC "
        f"{'not defined' if auc is None else f'{auc:.5f}'}" + ("" if loss is None else f", log loss {loss:.5f}")
    )
    return metrics


def read_parent_test(out: Path, parent: ParentRun, log: ColumnarLog) -> dict[str, Any] | None:
    """What `evaluate_parent` found for this parent and log; None where it is not there."""
    try:
        found = read_json(out / PARENT_TEST)
        metrics = found["test"] if found["fingerprints"] == _named(parent, log) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return metrics if isinstance(metrics, dict) else None


def _named(parent: ParentRun, log: ColumnarLog) -> dict[str, str]:
    return {"parent": parent.manifest.fingerprint, "log": log.manifest.fingerprint}


class _KnownIds:
    """From ids of a log to those of the log that it continues; an appended id becomes the reserved one."""

    def __init__(self, old: ColumnarLog, new: ColumnarLog) -> None:
        self._slots = first_slots(model_features(new.features))
        self._tables = [(old.features[table], new.features[table]) for table in feature_tables(new.features)]

    def __call__(self, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Translate int32 ``[n, S]`` in place."""
        for index, (old, new) in enumerate(self._tables):
            part = ids[:, self._slots[index] : self._slots[index + 1]]
            moved = moved_reserved_id(old, new)
            known = old.num_embeddings if moved is None else min(old.num_embeddings, moved[0])
            part[part >= known] = old.unknown_id
        return ids
