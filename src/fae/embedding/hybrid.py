"""Placement ``hybrid``: rows and their arithmetic in host memory, the dense part on the device.

The usual CPU-GPU baseline: the CPU looks up and pools, pooled embeddings go to the device, their gradients come back,
the CPU updates. Nothing else moves. Invariant: rows pass through the same CPU kernels as placement ``cpu``; where the
device is the CPU nothing is copied at all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fae.artifacts.row_layout import RowLayout
from fae.embedding.features import FeatureEmbeddings
from fae.embedding.resident import ResidentEmbeddings
from fae.streaming.ready_batch import ReadyBatch
from fae.streaming.row_store import RowOptimizer


class HybridEmbeddings(ResidentEmbeddings):
    """Every row in host memory, looked up and updated by the CPU; leaves on `device`.

    Parameters
    ----------
    device
        Of the model.
    """

    def __init__(self, layout: RowLayout, optimizer: RowOptimizer, batch_size: int, device: torch.device) -> None:
        super().__init__(layout, optimizer, batch_size, torch.device("cpu"))
        self.device = device
        self._pooled_bytes = {"pooled_bytes_to_device": 0, "gradient_bytes_to_host": 0}
        self._leaves: list[Tensor] = []
        self._gradients: list[Tensor] = []
        self._sent: torch.cuda.Event | None = None
        if device.type != "cpu":
            self._make_leaves()

    def _make_leaves(self) -> None:
        """Buffers on the device, and pinned ones in host memory to copy from and to."""
        on_gpu, shapes = self.device.type == "cuda", [output.shape for output in self._outputs]
        self._outputs = [torch.zeros(shape, pin_memory=on_gpu) for shape in shapes]
        self._gradients = [torch.zeros(shape, pin_memory=on_gpu) for shape in shapes]
        self._leaves = [torch.zeros(shape, device=self.device) for shape in shapes]
        if on_gpu:
            self._sent = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def lookup(self, batch: ReadyBatch, *, requires_grad: bool = True) -> FeatureEmbeddings:
        """As `Embeddings.lookup`; returns once the copies to the device are under way."""
        if not self._leaves:
            return self._counted(super().lookup(batch, requires_grad=requires_grad))
        if self._sent is not None:
            self._sent.synchronize()  # the last batch's copies may still read the host buffers
        super().lookup(batch, requires_grad=False)
        for leaf, output in zip(self._leaves, self._outputs, strict=True):
            leaf.requires_grad_(False).grad = None
            leaf.copy_(output, non_blocking=True)
            leaf.requires_grad_(requires_grad)
        if self._sent is not None:
            self._sent.record(torch.cuda.current_stream(self.device))
        return self._counted(self._features(batch, self._leaves))

    def update(self, batch: ReadyBatch) -> None:
        """As `Embeddings.update`; waits for the gradients to arrive."""
        for index, leaf in enumerate(self._leaves):
            gradient = leaf.grad
            self._outputs[index].grad = None if gradient is None else self._gradients[index].copy_(gradient)
        used = [output for output in self._outputs if output.grad is not None]
        self._pooled_bytes["gradient_bytes_to_host"] += 4 * sum(output.numel() for output in used)
        super().update(batch)

    def computes_on_host(self, batch: ReadyBatch) -> bool:
        return bool(self._leaves)

    def _counted(self, features: FeatureEmbeddings) -> FeatureEmbeddings:
        self._pooled_bytes["pooled_bytes_to_device"] += 4 * sum(output.numel() for output in self._outputs)
        return features

    @property
    def device_bytes(self) -> int:
        return 0

    @property
    def traffic(self) -> dict[str, int]:
        """Bytes of pooled embeddings and of their gradients that go between host and device (on a CPU: would go)."""
        return dict(self._pooled_bytes)
