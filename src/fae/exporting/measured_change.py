"""What an exported model does on the run's test split, beside what the run itself did."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fae.artifacts.columnar_log import ColumnarLog
from fae.checkpoint.parent import ParentRun
from fae.core.compiled import Int64
from fae.core.progress import say, task
from fae.exporting.standalone.scoring.exported_model import BATCH_INPUTS, ExportedModel
from fae.run.scoring import Scorer
from fae.training.dense_threads import torch_threads
from fae.training.quality.metrics import compute_metrics, probabilities


def run_scores(run: ParentRun, positions: Int64) -> npt.NDArray[np.float64]:
    """Probabilities of the run itself, float64 ``[n]``, of inputs of its log."""
    scorer = Scorer(run.checkpoint, run.manifest, run.log, device="cpu", command=run.command, precision="fp32")
    parts = [np.zeros(0)]
    with torch_threads(scorer.threads):
        for start in range(0, len(positions), BATCH_INPUTS):
            here = positions[start : start + BATCH_INPUTS]
            parts.append(probabilities(scorer.logits(np.array(run.log.ids[here]), np.array(run.log.dense[here]))))
    return np.concatenate(parts)


def measure_exported(served: ExportedModel, log: ColumnarLog, of_run: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of the exported model on the test split, those of the run, and what changed.

    Returns
    -------
    dict
        ``exported`` (as ``test`` of the run record), ``run`` (its ``auc`` and ``log_loss``) and ``change``.
    """
    start, stop = log.split("test")
    scores = [np.zeros(0)]
    with task("export: measuring", stop - start) as progress:
        for first in range(start, stop, BATCH_INPUTS):
            last = min(first + BATCH_INPUTS, stop)
            ids, dense = (
                torch.from_numpy(np.array(log.ids[first:last])),
                torch.from_numpy(np.array(log.dense[first:last])),
            )
            scores.append(served.score_ids(ids, dense).numpy())
            progress.advance(last - first)
    weights = None if log.weights is None else np.array(log.weights[start:stop])
    labels = np.array(log.labels[start:stop]).astype(np.float32)
    metrics = dataclasses.asdict(compute_metrics(labels, _logits(np.concatenate(scores)), weights))
    before = {name: of_run.get(name) for name in ("auc", "log_loss")}
    change = {name: _difference(metrics[name], value) for name, value in before.items()}
    if metrics["auc"] is not None and before["auc"] is not None:
        say(
            f"export: test AUC {metrics['auc']:.5f} (run: {before['auc']:.5f}), log loss {metrics['log_loss']:.5f} "
            f"(run: {before['log_loss']:.5f})"
        )
    return {"exported": metrics, "run": before, "change": change}


def _logits(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Logits of probabilities; those of 0 and 1 are the largest that a float64 probability has."""
    inside = np.clip(scores, np.finfo(np.float64).tiny, 1.0 - 2.0**-53)
    logits: npt.NDArray[np.float32] = (np.log(inside) - np.log1p(-inside)).astype(np.float32)
    return logits


def _difference(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else now - before
