"""Build the contenders of the speed benchmarks: FAE's placements, plain PyTorch and FBGEMM, on one DLRM.

Contenders of a group train the same DLRM with the same optimizers, batch size and precision on the same inputs. Rows
hold small random values, which decide no address and no byte that is moved. Batches of the other systems are on the
device (or in memory) before the clock starts, in the layout they like; ours come from the packed file. FBGEMM gets our
fused dense part and our loss kernel, so that only its embeddings are compared.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fae.artifacts.columnar_log import ColumnarLog
from fae.artifacts.packed import PackedDataset
from fae.bench import plain_contender
from fae.bench.contenders import OurContender, PaperContender
from fae.bench.plain_contender import read_batches
from fae.bench.timing import synchronize
from fae.core.optimizers import row_bytes
from fae.distributed.group import Group
from fae.models.config import DLRMConfig

LEARNING_RATE = 0.01


def contender_options(dim: int, optimizer: str, device: str, precision: str | None = None) -> dict[str, Any]:
    """The DLRM of these benchmarks as `fae.bench.contenders` takes it; no precision: bf16 on a GPU, fp32 on a CPU."""
    return {
        "model": DLRMConfig(name="dlrm", embedding_dim=dim), "optimizer": optimizer,
        "learning_rate": LEARNING_RATE, "device": device,
        "precision": precision or ("bf16" if torch.device(device).type == "cuda" else "fp32"),
    }  # fmt: skip


def staging_bytes(hot: Any, dim: int, optimizer: str) -> int:
    """Bytes of the staging ring of a hot set on the GPU, with the optimizer's state."""
    return int(hot.ring_depth * sum(hot.staging_rows) * row_bytes(optimizer, dim))


class PaperPlacement(PaperContender):
    """The `paper` placement; the seconds of a run are those of its share of an epoch at R(50), swaps included."""

    staging_bytes = 0

    def __init__(self, packed: PackedDataset, hot: Any, *, dim: int, optimizer: str, device: str) -> None:
        super().__init__(packed, hot, **contender_options(dim, optimizer, device))
        self._is_warm = False

    def run(self, num_steps: int) -> float:
        """Seconds of `num_steps` steps of an epoch, from a sample of half as many cold and as many hot batches."""
        if not self._is_warm:
            self.warm_up(0.0)
            self._is_warm = True
        found = self.sample(0.0, max(1, num_steps // 2))
        return num_steps * self.packed.batch_size / float(found["samples_per_second"])


class OurPlacement(OurContender):
    """FAE under one placement; `run` trains batches in the order that the schedule would choose."""

    def __init__(
        self,
        packed: PackedDataset,
        hot: Any,
        placement: str,
        *,
        dim: int,
        optimizer: str,
        device: str,
        precision: str | None = None,
        capture: bool = True,
        group: Group | None = None,
    ) -> None:
        options = contender_options(dim, optimizer, device, precision)
        super().__init__(packed, hot, placement, capture=capture, group=group, **options)
        streams = placement == "tiered" and self.device.type == "cuda"
        self.staging_bytes = staging_bytes(hot, dim, optimizer) if streams else 0

    def run_without_steps(self, num_steps: int) -> float:
        """Seconds to move that many batches, and their cold rows, to the device and back, with no step in between."""
        runner = self.runner

        def no_step(batch: Any) -> None:
            self.embeddings.steps += 1  # says that the slot was written; its values do not matter here

        self.runner = no_step
        try:
            return self.run(num_steps)
        finally:
            self.runner = runner

    def run_graph(self, num_steps: int) -> float:
        """Seconds to replay one captured step that many times: the step alone, its batch already there."""
        graph = next(iter(self.runner.graphs))
        synchronize(self.device)
        started = time.perf_counter()
        for _ in range(num_steps):
            graph.replay()
        synchronize(self.device)
        return time.perf_counter() - started


def _with_dlrm(options: dict[str, Any]) -> dict[str, Any]:
    model = DLRMConfig(name="dlrm", embedding_dim=options.pop("dim"))
    return {**options, "model": model, "learning_rate": LEARNING_RATE}


class PlainPyTorch(plain_contender.PlainPyTorch):
    """`fae.bench.plain_contender.PlainPyTorch` of the DLRM of these benchmarks."""

    def __init__(self, log: ColumnarLog, **options: Any) -> None:
        super().__init__(log, **_with_dlrm(options))


class Fbgemm(plain_contender.OtherSystem):
    """FBGEMM's table-batched embeddings.

    Parameters
    ----------
    mode
        ``device``, ``device graph`` (the step captured), or ``lru``, ``lfu``, ``lru prefetch`` (UVM caching).
    cache_bytes
        GPU memory of the caching modes: cached rows *and* what the cache needs beside them.
    """

    def __init__(self, log: ColumnarLog, *, mode: str, cache_bytes: int = 0, **options: Any) -> None:
        super().__init__(log, **_with_dlrm({**options}))
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

        caching = not mode.startswith("device")
        lfu = mode == "lfu"
        total = sum(self.cardinalities)
        # 4 bytes a row of map, 16 a slot (LRU) or 8 a row (LFU), beside the cached rows themselves.
        fixed = total * (4 + (8 if lfu else 0))
        slots = max(0, cache_bytes - fixed) // (4 * self.dim + (0 if lfu else 16))
        load_factor = max(slots / total, 0.001) if caching else 0.0
        self.gpu_row_bytes = cache_bytes if caching else 4 * self.dim * total
        location = EmbeddingLocation.MANAGED_CACHING if caching else EmbeddingLocation.DEVICE
        kind = EmbOptimType.EXACT_SGD if self.optimizer == "sgd" else EmbOptimType.EXACT_ROWWISE_ADAGRAD
        self.tables = SplitTableBatchedEmbeddingBagsCodegen(
            embedding_specs=[(count, self.dim, location, ComputeDevice.CUDA) for count in self.cardinalities],
            optimizer=kind,
            learning_rate=LEARNING_RATE,
            eps=1e-8,
            cache_algorithm=CacheAlgorithm.LFU if lfu else CacheAlgorithm.LRU,
            cache_load_factor=load_factor or 0.2,
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
            rest = (torch.from_numpy(part).to(self.device) for part in (dense, labels))
            self.batches.append((flat, *rest))
        self.offsets = torch.arange(options["batch_size"] * len(self.cardinalities) + 1, device=self.device)
        self._taken = 0
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
        """Train batch `index`; with prefetch, the cache loads the rows of the next one meanwhile."""
        flat, dense, labels = self.batches[index]
        if self._graph is not None:
            for target, source in zip(self._inputs, (flat, dense, labels), strict=True):
                target.copy_(source)
            self._graph.replay()
            return
        if self._prefetch_stream is not None:
            current = torch.cuda.current_stream()
            if self._taken == 0:
                with torch.cuda.stream(self._prefetch_stream):
                    self.tables.prefetch(flat, self.offsets, current)
            self._taken += 1
            current.wait_stream(self._prefetch_stream)
            following = self.batches[(index + 1) % len(self.batches)][0]
            with torch.cuda.stream(self._prefetch_stream):
                self.tables.prefetch(following, self.offsets, current)
        self._step(flat, dense, labels)


def interleaved_runs(
    contenders: dict[str, Any],
    steps: dict[str, int],
    rounds: int,
) -> dict[str, list[float]]:
    """Seconds a step of every contender, in turns, after one warm-up run each; a contender that fails is left out."""
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for round_number in range(rounds + 1):
        for name in list(samples):
            try:
                few = min(steps[name], max(24, steps[name] // 4))
                count = steps[name] if round_number else few
                if count > few:  # the contender before it has left its marks on caches and clocks
                    contenders[name].run(few)
                seconds = contenders[name].run(count) / count
            except Exception as error:  # a contender's failure is a result too
                print(f"{name}: failed: {type(error).__name__}: {str(error)[:300]}", flush=True)
                del samples[name]
                continue
            if round_number:
                samples[name].append(seconds)
    return samples


def kernel_table(contender: Any, num_steps: int) -> list[dict[str, Any]]:
    """Microseconds a step of every kernel and copy on the GPU, by torch's profiler, longest first."""
    from torch.profiler import ProfilerActivity, profile

    contender.run(16)
    with profile(activities=[ProfilerActivity.CUDA]) as traced:
        contender.run(num_steps)
    rows = [
        {
            "kernel": event.key[:120],
            "microseconds_a_step": event.self_device_time_total / num_steps,
            "calls_a_step": event.count / num_steps,
        }
        for event in traced.key_averages()
        if event.self_device_time_total > 0
    ]
    return sorted(rows, key=lambda row: -row["microseconds_a_step"])
