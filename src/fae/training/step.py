"""The one training step: hot, cold and mixed batches, every placement, every model.

Invariant: the loss is the mean over the real inputs of a batch; padding contributes nothing to any gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fae.embedding.base import Embeddings
from fae.embedding.batch import ReadyBatch


def mean_loss(logits: Tensor, batch: ReadyBatch) -> Tensor:
    """Mean binary cross-entropy (natural log) over the real inputs of a batch, scalar."""
    losses = nn.functional.binary_cross_entropy_with_logits(logits, batch.labels, reduction="none")
    return (losses * batch.real).sum() / max(1, batch.num_inputs)


def train_step(
    model: nn.Module, embeddings: Embeddings, dense_optimizer: torch.optim.Optimizer, batch: ReadyBatch
) -> Tensor:
    """Look up, compute, and update rows and dense weights.

    Returns
    -------
    Tensor
        The loss before the update, detached, on the device; reading it waits for the device.
    """
    features = embeddings.lookup(batch)
    loss = mean_loss(model(batch.dense, features), batch)
    dense_optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    embeddings.update(batch)
    dense_optimizer.step()
    return loss.detach()


def make_dense_optimizer(name: str, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """The optimizer of the dense weights that belongs to a row optimizer, with torch's defaults.

    SGD beside ``sgd``, plain Adam beside ``adam``, plain Adagrad beside both kinds of Adagrad.
    """
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), lr=learning_rate)
    if name == "adam":
        return torch.optim.Adam(model.parameters(), lr=learning_rate)
    return torch.optim.Adagrad(model.parameters(), lr=learning_rate)
