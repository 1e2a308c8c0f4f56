"""Table-wise model parallelism, one of the ways TorchRec divides tables: the system that our ranks are compared with.

Each rank owns whole tables. It looks up the vectors of the global batch for its tables and sends every rank those of
its inputs; the dense part is data-parallel; gradients of vectors go back the same way, and owners update their rows:

    lookup, all-to-all | bottom MLP -> interaction, top MLP -> backward | all-to-all back, rows | all-reduce, dense step

What it is: this schedule with the best parts that we have. Lookup (straight to bfloat16), sums and updates of rows by
FAE's Triton kernels, from packed batches of the owner's tables, so gradients are sorted by row for nothing; vectors in
bfloat16 both ways; the fused interaction reads them where they arrive; fused MLPs, one all-reduce of the flat gradient
in float32; transfers of vectors and updates of rows on a stream beside the dense part; all in one CUDA graph.

What it is not: TorchRec, or FBGEMM, whose tables `fbgemm_parallel` puts in its place. They would also send ids to the
owners and sort them on the GPU, and might split large tables by column or row; here no id is ever sent, and dense
features and labels are on the device before the clock starts. All of that is in favour of this contender.

On a CPU, where the kernels above do not run, it does the same in float32 over Gloo, step by step, for tests. With
TRITON_INTERPRET=1 the kernels run there, too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fae.artifacts.packed import PackedDataset
from fae.artifacts.row_layout import RowLayout
from fae.bench.shared_rows import fill
from fae.bench.timing import synchronize
from fae.distributed.group import Group
from fae.embedding.features import FeatureViews
from fae.embedding.resident import ResidentEmbeddings
from fae.kernels.geometry import group_geometries
from fae.models.config import ModelConfig
from fae.models.registry import build_model
from fae.streaming.row_store import RowOptimizer
from fae.training.dense import make_dense_optimizer

from model_parallel_step import (
    CapturedSteps,
    CpuRows,
    FusedStep,
    KernelRows,
    OwnRows,
    PlainStep,
    StepParts,
    VectorExchange,
)


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """Which rank owns which tables.

    Attributes
    ----------
    rows
        Rows of all tables, the first owner's tables first.
    counts
        Number of tables of each owner.
    """

    rows: tuple[int, ...]
    counts: tuple[int, ...]

    @classmethod
    def deal(cls, rows: Sequence[int], world: int) -> Sharding:
        """Give owners the same number of tables (a lookup each, but for one), then rows as evenly as that allows.

        >>> Sharding.deal([9, 5, 4, 1], 2)
        Sharding(rows=(9, 1, 5, 4), counts=(2, 2))
        """
        counts = [len(rows) // world + (owner < len(rows) % world) for owner in range(world)]
        owned: list[list[int]] = [[] for _ in range(world)]
        for size in sorted(rows, reverse=True):
            free = [owner for owner in range(world) if len(owned[owner]) < counts[owner]]
            owned[min(free, key=lambda owner: sum(owned[owner]))].append(size)
        return cls(rows=tuple(size for part in owned for size in part), counts=tuple(counts))

    def tables(self, owner: int) -> slice:
        """The tables of one owner."""
        first = sum(self.counts[:owner])
        return slice(first, first + self.counts[owner])


class ModelParallel:
    """The contender.

    Parameters
    ----------
    whole
        Packed batches of all tables, of which dense features and labels are taken.
    own, layout
        Packed batches of this rank's tables alone, the same inputs in the same order, all rows hot; and their layout.
    features
        All features, owner by owner.
    links
        A process group of torch over all ranks: NCCL, or Gloo on CPUs.
    is_eager
        No step is captured.

    Attributes
    ----------
    embeddings
        The rows of this rank's tables.
    order
        Numbers of the full batches.
    precision
        That of the dense part.
    """

    def __init__(
        self, whole: PackedDataset, own: PackedDataset, layout: RowLayout, features: Sequence[Any], sharding: Sharding,
        group: Group, links: Any, *, model: ModelConfig, optimizer: str, learning_rate: float, is_eager: bool = False,
    ) -> None:  # fmt: skip
        if not np.array_equal(whole.train.inputs, own.train.inputs):
            raise ValueError(f"{whole} and {own} have not the same inputs in the same order")
        self.device, self._group, self._own = torch.device(group.device), group, own
        self.order = np.flatnonzero(whole.train.inputs[:, -1] >= 0)
        # The interpreter of Triton runs the kernels of a GPU on a CPU.
        fused = self.device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
        self.precision = "bf16" if fused else "fp32"
        rows, engine = RowOptimizer(name=optimizer, learning_rate=learning_rate), "triton" if fused else "cpu"
        self.embeddings = ResidentEmbeddings(layout, rows, own.batch_size, self.device, engine=engine)
        fill(self.embeddings.device_stores[0].weight)
        network = build_model(model, features, whole.num_dense, seed=1).to(self.device)
        size, dim = whole.batch_size // group.world, model.embedding_dim
        part, arrays = slice(group.rank * size, (group.rank + 1) * size), whole.train.arrays
        every = (torch.from_numpy(np.array(each[:, part])) for each in (arrays.dense, arrays.labels))
        self._every = [each.to(self.device) for each in every]
        self._now = [torch.zeros_like(each[0]) for each in self._every]
        geometries = group_geometries([1] * len(features), ["sum"] * len(features), [dim] * len(features))
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        dtype = torch.bfloat16 if fused else torch.float32
        parts = StepParts(
            rows=self._rows(dtype), model=network, counts=sharding.counts,
            dense_optimizer=make_dense_optimizer(optimizer, network, learning_rate, flat=fused, bf16=fused),
            exchange=VectorExchange(sharding.counts, group.rank, size, dim, dtype, self.device, links), group=group,
            views=FeatureViews([each.name for each in features], [range(len(features))], geometries), links=links,
            loss_sum=self._loss_sum,
        )  # fmt: skip
        self._step: FusedStep | PlainStep = FusedStep(parts) if fused else PlainStep(parts)
        self._captured, self._next = CapturedSteps(self.device, is_eager=is_eager), 0

    def _rows(self, dtype: torch.dtype) -> OwnRows:
        if dtype == torch.float32:
            return CpuRows(self.embeddings)
        train = self._own.train
        return KernelRows(self.embeddings, train.arrays.order, train.most_segments[0], dtype)

    @property
    def device_bytes(self) -> int:
        """Bytes of rows and state on this rank's device."""
        return self.embeddings.device_bytes

    def run(self, num_steps: int) -> float:
        """Train the next batches; seconds, with everything the device and the host had to do for them."""
        places = (self._next + np.arange(num_steps)) % len(self.order)
        self._next = int(places[-1] + 1)
        return self.train(self.order[places])

    def train(self, order: npt.NDArray[np.int64]) -> float:
        """Train these batches; seconds."""
        synchronize(self.device)
        started = time.perf_counter()
        with closing(self._batches(order)) as batches:
            for index, (buffer, batch) in zip(order.tolist(), batches, strict=True):
                for now, every in zip(self._now, self._every, strict=True):
                    now.copy_(every[index])
                self._captured(buffer, partial(self._step, batch, *self._now))
        synchronize(self.device)
        return time.perf_counter() - started

    def _batches(self, order: npt.NDArray[np.int64]) -> Iterator[tuple[int, Any]]:
        """What `OwnRows` take, each with the number of the buffer that it is in, which a graph reads."""
        with closing(self.embeddings.stream(self._own.train, order)) as stream:
            for batch in stream:
                yield (batch.buffer.index if batch.buffer is not None else 0), batch
                if isinstance(self._step, FusedStep):  # whose rows are stepped behind the back of `embeddings`
                    self.embeddings.steps += 1

    def take_loss(self) -> float:
        """Sum of the losses since the last call, over the inputs of all ranks."""
        total = self._group.tree_sum(self._loss_sum.view(1), "the loss of the model-parallel contender")
        found = float(total[0])
        self._loss_sum.zero_()
        return found
