"""Evaluation: logits and metrics of a split. Changes no row, no weight, no optimizer state, no random stream.

Several ranks share it: each computes its slices of every batch, and all get the logits of all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fae.artifacts.packed import BatchSet
from fae.core.progress import task
from fae.distributed.group import Group
from fae.embedding.base import Embeddings
from fae.streaming.ready_batch import ReadyBatch
from fae.training.model_call import call_model
from fae.training.quality.metrics import Metrics, compute_metrics
from fae.training.real_inputs import cut_to_real, rounds_dense
from fae.training.step import Precision, autocast

_HOST = torch.device("cpu")  # no step is captured here, so no model of one's own sees padded inputs on any device


def predict_split(
    model: nn.Module,
    embeddings: Embeddings,
    batches: BatchSet,
    order: Sequence[int] | npt.NDArray[np.int64] | None = None,
    *,
    label: str = "evaluate",
    precision: Precision = "fp32",
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Labels and logits of the real inputs, float32 ``[n]``, in batch order (all batches where `order` is None)."""
    labels, logits = [], []
    was_training = model.training
    chosen = np.arange(batches.num_batches) if order is None else order
    if not rounds_dense(model, precision):
        embeddings.round_dense(rounds=False)
    try:
        model.eval()
        with (
            torch.no_grad(), task(label, len(chosen), "batches") as progress,
            closing(embeddings.stream_frozen(batches, chosen)) as stream,
        ):  # fmt: skip
            for index, batch in zip(np.asarray(chosen).tolist(), stream, strict=True):
                embeddings.group.raise_interrupt(f"{label}, batch {index}")
                own = [_logits(model, embeddings, part, precision) for part in batch.slices]
                output = own[0] if len(own) == 1 else torch.cat(own)
                every = _all_slices(output, embeddings.group, f"the logits of {label}, batch {index}")
                logits.append(every[: batch.total_inputs].cpu().numpy().copy())
                labels.append(np.array(batches.batch(index).labels[: batch.total_inputs]))
                progress.advance(1)
    finally:
        model.train(was_training)
    if not labels:
        return np.empty(0, np.float32), np.empty(0, np.float32)
    return np.concatenate(labels), np.concatenate(logits)


def _logits(model: nn.Module, embeddings: Embeddings, part: ReadyBatch, precision: Precision) -> Tensor:
    """Those of a slice, or of a whole batch, float32."""
    dense, features = cut_to_real(model, part, embeddings.lookup(part, requires_grad=False), device=_HOST)
    with autocast(embeddings.device, precision):
        return call_model(model, dense, features).float()


def evaluate(
    model: nn.Module,
    embeddings: Embeddings,
    batches: BatchSet,
    order: Sequence[int] | npt.NDArray[np.int64] | None = None,
    *,
    label: str = "evaluate",
    precision: Precision = "fp32",
) -> Metrics:
    """Metrics of a split (or of some of its batches), by weight where the log has weights; the same on all ranks."""
    labels, logits = predict_split(model, embeddings, batches, order, label=label, precision=precision)
    group, what = embeddings.group, f"the metrics of {label}"
    if group.world == 1:
        return compute_metrics(labels, logits, input_weights(batches, order))
    found = None
    with group.first_works(what):
        if group.is_first:
            found = dataclasses.asdict(compute_metrics(labels, logits, input_weights(batches, order)))
    return Metrics(**group.broadcast_json(found, what))


def _all_slices(logits: Tensor, group: Group, what: str) -> Tensor:
    """The logits of a whole batch from those of each rank's slices."""
    return logits if group.world == 1 else group.all_gather(logits, what).view(-1)


def input_weights(
    batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.float32] | None:
    """Weights of the real inputs, float32 ``[n]``, as `predict_split` has their labels; None where there are none."""
    weights, sizes = batches.arrays.weights, batches.arrays.num_inputs
    if weights is None:
        return None
    chosen = range(batches.num_batches) if order is None else np.asarray(order).tolist()
    return np.concatenate([np.empty(0, np.float32), *(weights[index, : sizes[index]] for index in chosen)])


def validation_sample(batches: BatchSet, most: int = 64) -> npt.NDArray[np.int64]:
    """Numbers of up to `most` batches spread evenly over a split: the fixed sample of the shuffle scheduler, int64."""
    count = min(most, batches.num_batches)
    return np.unique(np.linspace(0, max(0, batches.num_batches - 1), count).astype(np.int64))
