"""The one training step: hot, cold and mixed batches, every placement, every model.

The loss is the mean over the real inputs of a batch; padding contributes nothing to any gradient. A model of one's own
may be called with the real inputs alone (`fae.training.real_inputs`); logits are then those of the first inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from fae.core.errors import TrainingError
from fae.distributed.dense_sums import SliceSums
from fae.distributed.tree_sum import tree_sum
from fae.embedding.base import Embeddings
from fae.kernels.torch_private import run_backward
from fae.streaming.ready_batch import ReadyBatch
from fae.training.dense import await_readers
from fae.training.model_call import call_model
from fae.training.real_inputs import cut_to_real, module_of, single_input

Precision = Literal["fp32", "bf16"]


def mean_loss(logits: Tensor, batch: ReadyBatch) -> Tensor:
    """Mean binary cross-entropy (natural log) of a batch's real inputs, scalar; by weight where the log has weights.

    That of a slice is its part in the mean of the whole batch.
    """
    size = len(logits)
    losses = nn.functional.binary_cross_entropy_with_logits(logits.float(), batch.labels[:size], reduction="none")
    return (losses * batch.weighing[:size]).sum() / (batch.total_weight or 1.0)


def backward(logits: Tensor, batch: ReadyBatch, loss_sum: Tensor) -> Tensor:
    """Backward pass of `mean_loss`; adds the sum over the real inputs to `loss_sum` and returns the mean, detached.

    Parameters
    ----------
    loss_sum
        float64 scalar on the device.

    Raises
    ------
    TrainingError
        If the logits depend on no weight and no embedding.
    """
    if not logits.requires_grad:
        raise TrainingError(
            "the logits depend on no weight and no embedding, so there is nothing to train; look for .detach(), "
            ".item() or torch.no_grad() in forward"
        )
    if batch.buffer is None:
        loss = mean_loss(logits, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        loss_sum += loss.detach().double() * batch.total_weight
        return loss.detach()
    # The number of real inputs is on the device: a graph must not hold that of the batch it was captured with.
    weights = None if batch.weights is None else batch.weights[: len(logits)]
    views = batch.buffer.views
    whole = views.words[3:4] if weights is None else views.whole_weight
    return backward_on_device(logits, batch.labels[: len(logits)], views.words, loss_sum, weights, whole)


def backward_on_device(
    logits: Tensor,
    labels: Tensor,
    words: Tensor,
    loss_sum: Tensor,
    weights: Tensor | None = None,
    whole: Tensor | None = None,
) -> Tensor:
    """`backward` on a GPU; the number of real inputs is the first of `words`, int32. Nothing waits for the device.

    Where it is a slice, `whole` is the number of the batch's inputs, int32 ``[1]``, or their weight, float64 ``[1]``.
    """
    if weights is not None:
        with torch.no_grad():
            x, total = logits.detach().float(), weights.double().sum() if whole is None else whole[0]
            losses = nn.functional.binary_cross_entropy_with_logits(x, labels, reduction="none")
            share = weights / torch.where(total > 0, total, torch.ones_like(total)).float()
            loss = (losses * share).sum()
            loss_sum += loss.double() * total
            grad = (torch.sigmoid(x) - labels) * share
        run_backward(logits, grad.to(logits.dtype))
        return loss
    from fae.kernels.triton_dense import loss_and_gradient

    loss, grad = loss_and_gradient(logits.detach(), labels, words, loss_sum, whole)
    run_backward(logits, grad.to(logits.dtype))
    return loss


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """bfloat16 for the operations that torch deems safe, where `precision` says so."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU has units for products of bfloat16 matrices (AMX: Intel's Sapphire Rapids and later)."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported is not None and supported())


def honoured_precision(device: torch.device, wanted: Precision) -> Precision:
    """The precision of a dense part on `device`: `wanted`, but ``fp32`` on a CPU without units for bfloat16."""
    return wanted if device.type != "cpu" or cpu_multiplies_bf16() else "fp32"


def train_step(
    model: Callable[..., Tensor],
    embeddings: Embeddings,
    dense_optimizer: torch.optim.Optimizer,
    batch: ReadyBatch,
    precision: Precision = "fp32",
    *,
    loss_sum: Tensor | None = None,
    dense_sums: SliceSums | None = None,
    before_slice: Callable[[int], None] | None = None,
) -> Tensor:
    """Look up, compute, and update rows and dense weights.

    Parameters
    ----------
    model
        An `nn.Module`, or what runs one.
    loss_sum
        float64 on the device, to which the loss of every real input is added: scalar, or one of each slice of this
        rank.
    dense_sums
        Sums the dense gradients over slices; None where batches are whole.
    before_slice
        Called with 0, 1, ... before each slice of this rank.

    Returns
    -------
    Tensor
        The loss before the update, detached, on the device; reading it waits for the device. On one of several ranks it
        is the part of its slices.
    """
    if loss_sum is None:
        loss_sum = torch.zeros(len(batch.slices), dtype=torch.float64, device=embeddings.device)
    losses = []
    for number, part in enumerate(batch.slices):
        if before_slice is not None:
            before_slice(number)
        losses.append(_train_slice(model, embeddings, dense_optimizer, part, precision, loss_sum.view(-1)[number]))
        if dense_sums is not None:
            dense_sums.keep(number)
        if batch.others:
            embeddings.keep_gradients(part)
    embeddings.update(batch, without_gradients=True)  # a model may detach its features, or use none
    if dense_sums is not None:
        dense_sums.replace_gradients(f"the dense gradients of step {embeddings.steps}")
    dense_optimizer.step()
    return tree_sum(losses)


def _train_slice(
    model: Callable[..., Tensor],
    embeddings: Embeddings,
    dense_optimizer: torch.optim.Optimizer,
    batch: ReadyBatch,
    precision: Precision,
    loss_sum: Tensor,
) -> Tensor:
    """The loss of a slice, or of a whole batch, and the gradients of its rows and of the dense weights."""
    features = embeddings.lookup(batch)
    dense, shown = cut_to_real(model, batch, features, device=embeddings.device)
    if shown is not features:
        model = module_of(model)  # not compiled anew for every number of inputs
    with autocast(embeddings.device, precision), single_input(model, dense):
        logits = call_model(model, dense, shown)
    # Before gradients are written, which other ranks may still have read.
    embeddings.await_lookup()
    await_readers(dense_optimizer, embeddings, batch)
    dense_optimizer.zero_grad(set_to_none=True)
    return backward(logits, batch, loss_sum)
