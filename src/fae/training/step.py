"""The one training step: hot, cold and mixed batches, every placement, every model.

Invariant: the loss is the mean over the real inputs of a batch; padding contributes nothing to any gradient.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from fae.embedding.base import Embeddings
from fae.embedding.batch import ReadyBatch

Precision = Literal["fp32", "bf16"]


def mean_loss(logits: Tensor, batch: ReadyBatch) -> Tensor:
    """Mean binary cross-entropy (natural log) over the real inputs of a batch, scalar."""
    if batch.feed is not None:
        from fae.kernels.triton_dense import mean_loss as fused

        return fused(logits, batch.labels, batch.feed.views.words)
    losses = nn.functional.binary_cross_entropy_with_logits(logits.float(), batch.labels, reduction="none")
    return (losses * batch.real).sum() / max(1, batch.num_inputs)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """bfloat16 for the operations that torch deems safe, where `precision` says so."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def train_step(
    model: nn.Module,
    embeddings: Embeddings,
    dense_optimizer: torch.optim.Optimizer,
    batch: ReadyBatch,
    precision: Precision = "fp32",
) -> Tensor:
    """Look up, compute, and update rows and dense weights.

    Returns
    -------
    Tensor
        The loss before the update, detached, on the device; reading it waits for the device.
    """
    features = embeddings.lookup(batch)
    with autocast(embeddings.device, precision):
        logits = model(batch.dense, features)
    loss = mean_loss(logits, batch)
    dense_optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    embeddings.update(batch)
    dense_optimizer.step()
    return loss.detach()
