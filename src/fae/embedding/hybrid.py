"""Placement ``hybrid``: rows and their arithmetic in host memory, the dense part on the device.

The usual CPU-GPU baseline: the CPU looks up and pools, pooled embeddings go to the device, their gradients come back,
the CPU updates. Rows pass through the same CPU kernels as under placement ``cpu``; where the device is the CPU nothing
is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fae.artifacts.row_layout import RowLayout
from fae.distributed.group import Group
from fae.embedding.base import Engine
from fae.embedding.features import FeatureEmbeddings
from fae.embedding.memory_plan import MemoryPlan
from fae.embedding.memory_request import MemoryRequest
from fae.embedding.resident import ResidentEmbeddings, plan_cpu_memory
from fae.streaming.ready_batch import ReadyBatch
from fae.streaming.row_store import RowOptimizer, RowStore
from fae.streaming.staging import NO_FAULTS, FaultInjection

if TYPE_CHECKING:
    from fae.artifacts.hot_set import HotSet


class HybridEmbeddings(ResidentEmbeddings):
    """Every row in host memory, looked up and updated by the CPU; leaves on `device`.

    Parameters
    ----------
    device
        Device of the model.
    """

    def __init__(
        self,
        layout: RowLayout,
        optimizer: RowOptimizer,
        batch_size: int,
        device: torch.device,
        *,
        group: Group | None = None,
    ) -> None:
        if group is not None and group.reproducible and device.type != "cpu":
            raise ValueError(
                "placements hybrid and paper cannot be trained reproducibly on GPUs: CPUs compute their rows"
            )
        super().__init__(layout, optimizer, batch_size, torch.device("cpu"), group=group)
        self.device = device
        self._pooled_bytes = {"pooled_bytes_to_device": 0, "gradient_bytes_to_host": 0}
        self._leaves: list[Tensor] = []
        self._gradients: list[Tensor] = []
        self._sent: torch.cuda.Event | None = None
        if device.type != "cpu":
            self._make_leaves()

    @classmethod
    def from_hot_set(
        cls,
        hot_set: HotSet,
        optimizer: RowOptimizer,
        device: torch.device,
        *,
        engine: Engine | None = None,
        faults: FaultInjection = NO_FAULTS,
        group: Group | None = None,
    ) -> HybridEmbeddings:
        """As `Embeddings.from_hot_set`; `engine` is always the CPU's."""
        return cls(hot_set.layout, optimizer, hot_set.batch_size, device, group=group)

    @staticmethod
    def plan_memory(request: MemoryRequest) -> MemoryPlan:
        """Rows in host memory; on a GPU the dense part and pooled rows."""
        if not request.on_gpu:
            return plan_cpu_memory(request)
        on_gpu, on_host = request.hybrid_work
        return MemoryPlan(
            device_rows=0,
            device_inputs=0,
            device_work=on_gpu + request.loose_batches + request.dense_bytes,
            host_rows=request.of_host(request.hot_rows + request.cold_rows),
            host_buffers=0,
            host_work=on_host,
        )

    def _make_leaves(self) -> None:
        """Buffers on the device, and pinned ones in host memory to copy from and to."""
        on_gpu, shapes = self.device.type == "cuda", [output.shape for output in self._outputs]
        self._outputs[:] = [torch.zeros(shape, pin_memory=on_gpu) for shape in shapes]
        self._gradients = [torch.zeros(shape, pin_memory=on_gpu) for shape in shapes]
        self._leaves = [torch.zeros(shape, device=self.device) for shape in shapes]
        if on_gpu:
            self._sent = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def _look_up(self, batch: ReadyBatch, *, requires_grad: bool) -> FeatureEmbeddings:
        """As `Embeddings._look_up`; returns once the copies to the device are under way."""
        if not self._leaves:
            return self._count_traffic(super()._look_up(batch, requires_grad=requires_grad))
        if self._sent is not None:
            self._sent.synchronize()  # the last batch's copies may still read the host buffers
        super()._look_up(batch, requires_grad=False)
        for leaf, output in zip(self._leaves, self._outputs, strict=True):
            leaf.requires_grad_(False).grad = None
            leaf.copy_(output, non_blocking=True)
            leaf.requires_grad_(requires_grad)
        if self._sent is not None:
            self._sent.record(torch.cuda.current_stream(self.device))
        return self._count_traffic(self._features(self._leaves))

    def _has_gradients(self, batch: ReadyBatch) -> bool:
        if not self._leaves:
            return super()._has_gradients(batch)
        return any(leaf.grad is not None for leaf in self._leaves)

    def _update(self, batch: ReadyBatch) -> None:
        """As `Embeddings._update`; waits for the gradients to arrive."""
        for index, leaf in enumerate(self._leaves):
            gradient = leaf.grad
            self._outputs[index].grad = None if gradient is None else self._gradients[index].copy_(gradient)
        used = [output for output in self._outputs if output.grad is not None]
        self._pooled_bytes["gradient_bytes_to_host"] += 4 * len(batch.slices) * sum(each.numel() for each in used)
        super()._update(batch)

    def computes_on_host(self, batch: ReadyBatch) -> bool:
        return bool(self._leaves)

    def _count_traffic(self, features: FeatureEmbeddings) -> FeatureEmbeddings:
        self._pooled_bytes["pooled_bytes_to_device"] += 4 * sum(output.numel() for output in self._outputs)
        return features

    @property
    def device_stores(self) -> Sequence[RowStore]:
        return ()

    @property
    def host_stores(self) -> Sequence[RowStore]:
        return self._stores

    @property
    def traffic(self) -> dict[str, int]:
        """Bytes of pooled embeddings and of their gradients that go between host and device (on a CPU: would go)."""
        return dict(self._pooled_bytes)
