"""The dense part of steps whose rows the CPU looks up and updates, as one CUDA graph.

Placements ``hybrid``, and ``paper`` for cold batches, pool rows on the CPU and send them to the GPU; the rest of the
step runs there through this. Launched kernel by kernel, a dense part of 40 to 170 kernels takes 3 to 6 ms at any batch
size, which at the paper's batch sizes is most of the step.

A replay reads the buffers it was captured with, so every batch is copied there first. Forward pass, loss, backward pass
and dense update are those of `fae.training.step`; gradients of the leaves stay where the capture put them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fae.embedding.base import Embeddings
from fae.embedding.features import FeatureEmbeddings, FeatureViews
from fae.streaming.ready_batch import ReadyBatch
from fae.training.dense import await_readers
from fae.training.step import Precision, autocast, backward_on_device

Work = Callable[[], None]


class CannotCapture(RuntimeError):
    """The dense part cannot be captured; no weight and no row has changed, so the step can still be made."""


class DenseGraph:
    """Whole steps: lookup, copies, the captured part, update of the rows.

    Parameters
    ----------
    forward
        The model, or its compiled form.
    loss_sum
        float64 scalar on the device, to which losses are added.
    on_capture_stream
        Runs work on the stream that captures.
    capture
        Records work without running it, and returns a function that replays it.
    warm_up_steps
        Steps that run kernel by kernel before the capture.
    """

    def __init__(
        self,
        forward: Callable[..., Tensor],
        embeddings: Embeddings,
        dense_optimizer: torch.optim.Optimizer,
        loss_sum: Tensor,
        *,
        on_capture_stream: Callable[[Work], None],
        capture: Callable[[Work], Work],
        warm_up_steps: int,
    ) -> None:
        self._forward, self._embeddings, self._dense_optimizer = forward, embeddings, dense_optimizer
        self._loss_sum, self._on_capture_stream, self._capture = loss_sum, on_capture_stream, capture
        self._steps_to_warm_up = warm_up_steps
        self._inputs: tuple[Tensor, ...] = ()
        self._lengths: dict[str, Tensor] = {}
        self._weights: Tensor | None = None
        self._whole: Tensor | None = None  # inputs of the whole batch, or their weight, where ranks have slices of it
        self._replay: Work | None = None
        self._precision: Precision = "fp32"
        self._gradients: list[Tensor | None] = []
        self.setting_up = False

    def __call__(self, batch: ReadyBatch, precision: Precision) -> None:
        """Train one batch.

        Raises
        ------
        CannotCapture
            Before anything was computed. Any other error is raised as it is: the step may be half done.
        """
        views, leaves, lengths = self._embeddings.lookup(batch).parts()
        self._fill(batch, lengths)
        self.setting_up = self._replay is None or precision != self._precision
        if self._steps_to_warm_up:
            self._steps_to_warm_up -= 1
            self._on_capture_stream(lambda: self._dense_part(batch, views, leaves, precision))
        else:
            if self.setting_up:
                try:
                    self._replay = self._capture(lambda: self._dense_part(batch, views, leaves, precision))
                except RuntimeError as error:
                    raise CannotCapture(str(error) or type(error).__name__) from error
                self._gradients = [leaf.grad for leaf in leaves]
                self._precision = precision
            assert self._replay is not None
            self._replay()
            for leaf, gradient in zip(leaves, self._gradients, strict=True):
                leaf.grad = gradient
        self._embeddings.update(batch)

    def _fill(self, batch: ReadyBatch, lengths: Mapping[str, Tensor]) -> None:
        """Copy what differs from batch to batch to where a replay reads it."""
        if not self._inputs:
            words = torch.zeros(1, dtype=torch.int32, device=batch.labels.device)
            self._inputs = (torch.empty_like(batch.dense), torch.empty_like(batch.labels), words)
            self._weights = None if batch.weights is None else torch.empty_like(batch.weights)
            self._lengths = {name: torch.empty_like(each) for name, each in lengths.items()}
            if self._embeddings.group.slices.is_cut:
                self._whole = words.clone() if batch.weights is None else words.double()
        dense, labels, words = self._inputs
        dense.copy_(batch.dense)
        labels.copy_(batch.labels)
        words.fill_(batch.num_inputs)
        if self._whole is not None:
            self._whole.fill_(batch.total_inputs if batch.weights is None else batch.total_weight)
        if self._weights is not None and batch.weights is not None:
            self._weights.copy_(batch.weights)
        for name, each in lengths.items():
            self._lengths[name].copy_(each)

    def _dense_part(
        self, batch: ReadyBatch, views: FeatureViews, leaves: Sequence[Tensor], precision: Precision
    ) -> None:
        """What a graph holds; of the batch it holds nothing, and all batches of it await the same."""
        dense, labels, words = self._inputs
        with autocast(labels.device, precision):
            logits = self._forward(dense, FeatureEmbeddings(views, leaves, self._lengths))
        await_readers(self._dense_optimizer, self._embeddings, batch)
        self._dense_optimizer.zero_grad(set_to_none=True)
        backward_on_device(logits, labels, words, self._loss_sum, self._weights, self._whole)
        self._dense_optimizer.step()
