"""Plain PyTorch as a contender: the tables of `fae.training.plain` on the CPU, the dense part there or on a GPU.

These are the paper's two baselines, at their best: batches are drawn, cut by feature and on the device before the clock
starts; tables may lie in memory that the caller provides, on huge pages; on a GPU the dense part is FAE's fused one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fae.artifacts.columnar_log import ColumnarLog, model_features
from fae.bench.timing import synchronize
from fae.core.host_memory import keep_freed_memory
from fae.core.seeds import generator
from fae.embedding.features import FeatureEmbeddings, FeatureViews
from fae.kernels.geometry import group_geometries
from fae.models.config import ModelConfig
from fae.models.registry import build_model
from fae.streaming.huge_pages import host_zeros
from fae.streaming.row_store import RowOptimizer
from fae.training.compiled_model import forward_of
from fae.training.dense import make_dense_optimizer
from fae.training.plain import FeatureLookups, PlainEmbeddings, PlainRowUpdate, cut_lookups
from fae.training.step import Precision, autocast, backward_on_device

NUM_BATCHES = 16
Batch = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]


def read_batches(log: ColumnarLog, batch_size: int, seed: int = 1, num_batches: int = NUM_BATCHES) -> list[Batch]:
    """Random batches of the training split: ids int64 ``[B, S]``, dense float32, labels float32."""
    start, stop = log.split("train")
    count = min(num_batches, (stop - start) // batch_size)
    order = start + generator(seed, "plain batches").choice(stop - start, count * batch_size, replace=False)
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


class OtherSystem:
    """Base class of the systems that FAE is compared with: the same model, batches taken in turn, a clock.

    Parameters
    ----------
    model
        What both sides train. All tables must have one embedding_dim.
    device
        Device of the dense part.
    bf16
        Whether products take bfloat16 operands; None: on a GPU, as FAE does.
    compiled
        Run the model through `torch.compile` on a GPU, as FAE does.

    Attributes
    ----------
    precision
        Precision of the next step's dense part; on a CPU it may be changed between steps.
    gpu_row_bytes, staging_bytes
        Bytes of GPU memory that rows, and buffers for rows on their way, take.
    """

    gpu_row_bytes = 0
    staging_bytes = 0

    def __init__(
        self,
        log: ColumnarLog,
        *,
        model: ModelConfig,
        batch_size: int,
        optimizer: str,
        learning_rate: float,
        device: str | torch.device,
        bf16: bool | None = None,
        compiled: bool = False,
    ) -> None:
        keep_freed_memory()
        self.device, self.dim, self.optimizer = torch.device(device), model.embedding_dim, optimizer
        self.learning_rate, self.batch_size = learning_rate, batch_size
        self.model = build_model(model, log.features, len(log.dense_names), seed=1).to(self.device)
        self.on_gpu = self.device.type == "cuda"
        self.precision: Precision = "bf16" if (self.on_gpu if bf16 is None else bf16) else "fp32"
        self.dense_optimizer = make_dense_optimizer(
            optimizer, self.model, learning_rate, flat=self.on_gpu, bf16=self.on_gpu and self.precision == "bf16"
        )
        self._forward = forward_of(self.model, self.device, compiled=compiled)
        self.rows = RowOptimizer(name=optimizer, learning_rate=learning_rate)
        self.cardinalities = [feature.num_embeddings for feature in log.features]
        features = model_features(log.features)
        geometries = group_geometries(
            [feature.length for feature in features],
            [feature.pooling for feature in features],
            [self.dim] * len(features),
        )
        self.width = geometries[0].width
        self._views = FeatureViews([f.name for f in features], [range(len(features))], geometries)
        self._next, self._loss_sum = 0, torch.zeros((), dtype=torch.float64, device=self.device)
        self.batches: Sequence[Any] = ()

    def logits(self, dense: Tensor, pooled: Tensor, lengths: dict[str, Tensor] | None = None) -> Tensor:
        """Logits ``[B]`` from embeddings ``[B, W]``, features side by side."""
        with autocast(self.device, self.precision):
            result: Tensor = self._forward(dense, FeatureEmbeddings(self._views, [pooled], lengths))
        return result

    def dense_backward(
        self, dense: Tensor, labels: Tensor, pooled: Tensor, lengths: dict[str, Tensor] | None = None
    ) -> None:
        """Loss, backward pass and the dense optimizer."""
        self.dense_optimizer.zero_grad(set_to_none=True)
        logits = self.logits(dense, pooled, lengths)
        if self.on_gpu:
            words = torch.full((1,), len(labels), dtype=torch.int32, device=self.device)
            backward_on_device(logits, labels, words, self._loss_sum)
        else:
            nn.functional.binary_cross_entropy_with_logits(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        self.dense_optimizer.step()

    def step(self, index: int) -> None:
        """Train batch `index` of `batches`."""
        raise NotImplementedError

    def run(self, num_steps: int) -> float:
        """Train that many steps; seconds that they took, with everything the device had to do for them."""
        synchronize(self.device)
        started = time.perf_counter()
        for _ in range(num_steps):
            self.step(self._next % len(self.batches))
            self._next += 1
        synchronize(self.device)
        return time.perf_counter() - started


class PlainBatch(NamedTuple):
    """One batch of `PlainPyTorch`, ready before the clock starts.

    Attributes
    ----------
    lookups
        Lookups by feature, on the CPU.
    dense, labels
        float32 ``[B, K]`` and ``[B]``, on the device of the dense part.
    lengths
        int64 ``[B]`` for each kept sequence, on that device: how many of its places are in use.
    """

    lookups: list[FeatureLookups]
    dense: Tensor
    labels: Tensor
    lengths: dict[str, Tensor]


class PlainPyTorch(OtherSystem):
    """`fae.training.plain.PlainEmbeddings` on the CPU and their sparse optimizer; the dense part on `device`.

    Parameters
    ----------
    num_batches
        How many different batches to keep in memory.
    tables
        float32 memory for the rows of all tables, one table after the other; None takes new memory, on huge pages
        like FAE's.
    **options
        Those of `OtherSystem`.
    """

    def __init__(
        self, log: ColumnarLog, *, num_batches: int = NUM_BATCHES, tables: Tensor | None = None, **options: Any
    ) -> None:
        super().__init__(log, **options)
        num_rows = sum(self.cardinalities)
        rows = (
            host_zeros(num_rows, self.dim).fill_(0.01)
            if tables is None
            else tables[: num_rows * self.dim].view(-1, self.dim)
        )
        weights = torch.split(rows, self.cardinalities)
        self.embeddings = PlainEmbeddings(log.features, [self.dim] * len(log.features), weights=weights)
        self.row_update = PlainRowUpdate(self.embeddings, self.rows)
        self._pinned = torch.zeros((self.batch_size if self.on_gpu else 0, self.width), pin_memory=self.on_gpu)
        self.batches: Sequence[PlainBatch] = [
            self._prepare(*batch) for batch in read_batches(log, self.batch_size, num_batches=num_batches)
        ]

    def _prepare(
        self, ids: npt.NDArray[np.int64], dense: npt.NDArray[np.float32], labels: npt.NDArray[np.float32]
    ) -> PlainBatch:
        lookups = cut_lookups(self.embeddings.features, torch.from_numpy(ids))
        lengths = {
            feature.name: torch.bincount(places // feature.length, minlength=len(ids)).to(self.device)
            for feature, (_, _, places) in zip(self.embeddings.features, lookups, strict=True)
            if places is not None
        }
        return PlainBatch(
            lookups, torch.from_numpy(dense).to(self.device), torch.from_numpy(labels).to(self.device), lengths
        )

    def step(self, index: int) -> None:
        """Train batch `index` of `batches`."""
        batch = self.batches[index]
        outputs = self.look_up(index)
        leaf = self.to_device(outputs)
        self.dense_backward(batch.dense, batch.labels, leaf, batch.lengths)
        assert leaf.grad is not None
        self.update(outputs, self.to_host(leaf.grad))

    def to_device(self, outputs: Sequence[Tensor]) -> Tensor:
        """A leaf ``[B, W]`` on the device, features side by side; through pinned memory where that is a GPU."""
        parts = [output.detach() for output in outputs]
        if not self.on_gpu:
            return torch.cat(parts, 1).requires_grad_()
        torch.cat(parts, 1, out=self._pinned)
        return self._pinned.to(self.device, non_blocking=True).requires_grad_()

    def to_host(self, grad: Tensor) -> Tensor:
        """A leaf's gradient, in host memory."""
        # Into the same buffer: what it held arrived before this gradient could be computed.
        return self._pinned.copy_(grad) if self.on_gpu else grad

    def look_up(self, index: int) -> list[Tensor]:
        """Pooled embeddings of a batch's features, each ``[B, D]`` (kept sequences ``[B, L * D]``), on the CPU."""
        batch = self.batches[index]
        return self.embeddings.look_up(batch.lookups, len(batch.labels))

    def update(self, outputs: Sequence[Tensor], grad: Tensor) -> None:
        """Gradients of rows from those ``[B, W]`` of what `look_up` returned, and the sparse optimizer."""
        widths = [output.shape[1] for output in outputs]
        torch.autograd.backward(outputs, torch.split(grad, widths, 1))
        self.row_update.step()
