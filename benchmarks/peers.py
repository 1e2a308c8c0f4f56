"""Other systems as contenders of the speed benchmarks: plain PyTorch and FBGEMM, each at its best.

Their batches are on the device (or in memory) before the clock starts, in the layout they like; ours come from the
packed file. FBGEMM gets our fused dense part and our loss kernel, so that only its embeddings are compared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fae.artifacts.columnar_log import ColumnarLog
from fae.bench import plain_contender
from fae.bench.plain_contender import NUM_BATCHES, read_batches
from fae.models.config import DLRMConfig
from speed import LEARNING_RATE

__all__ = ["NUM_BATCHES", "Fbgemm", "Peer", "PlainPyTorch", "read_batches"]


def _with_dlrm(options: dict[str, Any]) -> dict[str, Any]:
    """`dim` and `mlps` of these benchmarks as the model that `fae.bench.plain_contender` takes."""
    model = DLRMConfig(name="dlrm", embedding_dim=options.pop("dim"), **(options.pop("mlps", None) or {}))
    return {**options, "model": model, "learning_rate": LEARNING_RATE}


class Peer(plain_contender.Peer):
    """`fae.bench.plain_contender.Peer` of a DLRM."""

    def __init__(self, log: ColumnarLog, **options: Any) -> None:
        super().__init__(log, **_with_dlrm(options))


class PlainPyTorch(plain_contender.PlainPyTorch):
    """`fae.bench.plain_contender.PlainPyTorch` of a DLRM."""

    def __init__(self, log: ColumnarLog, **options: Any) -> None:
        super().__init__(log, **_with_dlrm(options))


class Fbgemm(Peer):
    """FBGEMM's table-batched embeddings.

    Parameters
    ----------
    mode
        ``device``, ``device graph`` (the whole step captured), or ``lru``, ``lfu``, ``lru prefetch`` (UVM caching).
    cache_bytes
        For the caching modes: GPU memory of cached rows *and* what the cache needs beside them.
    """

    def __init__(self, log: ColumnarLog, *, mode: str, cache_bytes: int = 0, **options: Any) -> None:
        super().__init__(log, **options)
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import (
            BoundsCheckMode,
            CacheAlgorithm,
            EmbeddingLocation,
        )
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )

        self.mode = mode
        caching = not mode.startswith("device")
        lfu = mode == "lfu"
        total = sum(self.cardinalities)
        # 4 bytes a row of map, 16 a slot (LRU) or 8 a row (LFU), beside the cached rows themselves.
        fixed = total * (4 + (8 if lfu else 0))
        slots = max(0, cache_bytes - fixed) // (4 * self.dim + (0 if lfu else 16))
        self.load_factor = max(slots / total, 0.001) if caching else 0.0
        self.gpu_row_bytes = cache_bytes if caching else 4 * self.dim * total
        location = EmbeddingLocation.MANAGED_CACHING if caching else EmbeddingLocation.DEVICE
        kind = EmbOptimType.EXACT_SGD if self.optimizer == "sgd" else EmbOptimType.EXACT_ROWWISE_ADAGRAD
        self.tables = SplitTableBatchedEmbeddingBagsCodegen(
            embedding_specs=[(count, self.dim, location, ComputeDevice.CUDA) for count in self.cardinalities],
            optimizer=kind,
            learning_rate=LEARNING_RATE,
            eps=1e-8,
            cache_algorithm=CacheAlgorithm.LFU if lfu else CacheAlgorithm.LRU,
            cache_load_factor=self.load_factor or 0.2,
            prefetch_pipeline=mode == "lru prefetch",
            uvm_host_mapped=caching,
            bounds_check_mode=BoundsCheckMode.NONE,
            device=self.device,
        )
        for name in ("weights_dev", "weights_uvm"):
            weights = getattr(self.tables, name, None)
            if weights is not None and weights.numel():
                weights.data.fill_(0.01)
        self.batches = []
        for ids, dense, labels in read_batches(log, options["batch_size"]):
            flat = torch.from_numpy(np.ascontiguousarray(ids.T).reshape(-1)).to(self.device)
            self.batches.append(
                (flat, torch.from_numpy(dense).to(self.device), torch.from_numpy(labels).to(self.device))
            )
        count = options["batch_size"] * len(self.cardinalities)
        self.offsets = torch.arange(count + 1, device=self.device)
        self._prefetch_stream = torch.cuda.Stream() if mode == "lru prefetch" else None
        self._graph: torch.cuda.CUDAGraph | None = None
        if mode == "device graph":
            self._inputs = tuple(part.clone() for part in self.batches[0])
            self._capture()

    def _step(self, flat: Tensor, dense: Tensor, labels: Tensor) -> None:
        pooled = self.tables(flat, self.offsets)
        leaf = pooled.detach().float().requires_grad_()
        self.dense_backward(dense, labels, leaf)
        pooled.backward(leaf.grad)

    def _capture(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._step(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._step(*self._inputs)
        self._graph = graph

    def step(self, index: int) -> None:
        flat, dense, labels = self.batches[index]
        if self._graph is not None:
            for target, source in zip(self._inputs, (flat, dense, labels), strict=True):
                target.copy_(source)
            self._graph.replay()
            return
        if self._prefetch_stream is not None:
            current = torch.cuda.current_stream()
            if self._next == 0:
                with torch.cuda.stream(self._prefetch_stream):
                    self.tables.prefetch(flat, self.offsets, current)
            current.wait_stream(self._prefetch_stream)
            following = self.batches[(self._next + 1) % len(self.batches)][0]
            with torch.cuda.stream(self._prefetch_stream):
                self.tables.prefetch(following, self.offsets, current)
        self._step(flat, dense, labels)
