"""Other systems as contenders of the speed benchmarks: plain PyTorch and FBGEMM, each at its best.

Their batches are on the device (or in memory) before the clock starts, in the layout they like; ours come from the
packed file. FBGEMM gets our fused dense part and our loss kernel, so that only its embeddings are compared.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fae.data.columnar import ColumnarLog
from fae.embedding.features import FeatureEmbeddings, FeatureViews
from fae.embedding.rows import RowOptimizer
from fae.kernels.geometry import group_geometries
from fae.models.config import DLRMConfig
from fae.models.registry import build_model
from fae.training.dense import make_dense_optimizer
from fae.training.plain import SparseRowwiseAdagrad
from fae.training.step import autocast
from speed import LEARNING_RATE, synchronize

NUM_BATCHES = 16


def read_batches(log: ColumnarLog, batch_size: int, seed: int = 1) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Random batches of the training split: ids int64 ``[B, F]``, dense float32, labels float32."""
    start, stop = log.split("train")
    order = start + np.random.default_rng(seed).permutation(stop - start)
    count = min(NUM_BATCHES, len(order) // batch_size)
    batches = []
    for index in range(count):
        chosen = np.sort(order[index * batch_size : (index + 1) * batch_size])
        batches.append(
            (
                np.asarray(log.ids[chosen]).astype(np.int64),
                np.array(log.dense[chosen]),
                log.labels[chosen].astype(np.float32),
            )
        )
    return batches


class Peer:
    """What all have: the same model, batches taken in turn, a clock."""

    gpu_row_bytes = 0
    staging_bytes = 0

    def __init__(
        self, log: ColumnarLog, *, dim: int, batch_size: int, optimizer: str, device: str, mlps: dict | None = None
    ) -> None:
        self.device, self.dim, self.optimizer = torch.device(device), dim, optimizer
        config = DLRMConfig(name="dlrm", embedding_dim=dim, **(mlps or {}))
        self.model = build_model(config, log.features, len(log.dense_names), seed=1).to(self.device)
        self.on_gpu = self.device.type == "cuda"
        self.dense_optimizer = make_dense_optimizer(
            optimizer, self.model, LEARNING_RATE, flat=self.on_gpu, bf16=self.on_gpu
        )
        self.rows = RowOptimizer(name=optimizer, learning_rate=LEARNING_RATE)
        self.cardinalities = [feature.num_embeddings for feature in log.features]
        geometries = group_geometries([1] * len(log.features), ["sum"] * len(log.features), [dim] * len(log.features))
        self._views = FeatureViews([f.name for f in log.features], [range(len(log.features))], geometries)
        self._next, self._loss_sum = 0, torch.zeros((), dtype=torch.float64, device=self.device)

    def logits(self, dense: Tensor, pooled: Tensor) -> Tensor:
        """From embeddings ``[B, F * D]``."""
        with autocast(self.device, "bf16" if self.on_gpu else "fp32"):
            result: Tensor = self.model(dense, FeatureEmbeddings(self._views, [pooled]))
        return result

    def dense_backward(self, dense: Tensor, labels: Tensor, pooled: Tensor) -> None:
        """Loss, backward pass and the dense optimizer."""
        self.dense_optimizer.zero_grad(set_to_none=True)
        logits = self.logits(dense, pooled)
        if self.on_gpu:
            from fae.kernels.triton_dense import loss_and_gradient

            words = torch.full((1,), len(labels), dtype=torch.int32, device=self.device)
            _, grad = loss_and_gradient(logits.detach(), labels, words, self._loss_sum)
            logits.backward(grad)
        else:
            nn.functional.binary_cross_entropy_with_logits(logits, labels).backward()
        self.dense_optimizer.step()

    def step(self, index: int) -> None:
        raise NotImplementedError

    def run(self, num_steps: int) -> float:
        """Seconds of that many steps."""
        synchronize(self.device)
        started = time.perf_counter()
        for _ in range(num_steps):
            self.step(self._next % len(self.batches))
            self._next += 1
        synchronize(self.device)
        return time.perf_counter() - started


class PlainPyTorch(Peer):
    """26 `nn.EmbeddingBag(sparse=True)` on the CPU and their sparse optimizer; the dense part on `device`."""

    def __init__(self, log: ColumnarLog, **options: Any) -> None:
        super().__init__(log, **options)
        self.tables = [
            nn.EmbeddingBag.from_pretrained(torch.full((count, self.dim), 0.01), freeze=False, mode="sum", sparse=True)
            for count in self.cardinalities
        ]
        parameters = [table.weight for table in self.tables]
        self.row_optimizer = (
            torch.optim.SGD(parameters, lr=LEARNING_RATE)
            if self.optimizer == "sgd"
            else SparseRowwiseAdagrad(parameters, self.rows)
        )
        self.batches = []
        for ids, dense, labels in read_batches(log, options["batch_size"]):
            columns = [torch.from_numpy(np.ascontiguousarray(ids[:, t])) for t in range(ids.shape[1])]
            self.batches.append(
                (columns, torch.from_numpy(dense).to(self.device), torch.from_numpy(labels).to(self.device))
            )
        self._offsets = torch.arange(options["batch_size"])

    def step(self, index: int) -> None:
        columns, dense, labels = self.batches[index]
        outputs = [table(column, self._offsets) for table, column in zip(self.tables, columns, strict=True)]
        pooled = torch.cat(outputs, 1)
        leaf = pooled.detach().to(self.device).requires_grad_()
        self.dense_backward(dense, labels, leaf)
        assert leaf.grad is not None
        pooled.backward(leaf.grad.cpu())
        self.row_optimizer.step()
        for table in self.tables:
            table.weight.grad = None


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
