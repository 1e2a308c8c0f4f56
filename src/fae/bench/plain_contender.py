"""Plain PyTorch as a contender: `nn.EmbeddingBag(sparse=True)` on the CPU, the dense part there or on a GPU.

Place in the flow: the paper's two baselines in `fae bench paper`, and contenders of the speed benchmarks
(``benchmarks/peers.py``). Invariant: it is at its best: batches are drawn, cut into columns and on the device before
the clock starts; tables may lie in memory that is handed in; on a GPU it gets our fused dense part and loss kernel.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fae.artifacts.columnar_log import ColumnarLog, first_slots
from fae.core.host_memory import keep_freed_memory
from fae.core.seeds import generator
from fae.embedding.features import FeatureEmbeddings, FeatureViews
from fae.kernels.geometry import group_geometries
from fae.models.config import ModelConfig
from fae.models.registry import build_model
from fae.streaming.huge_pages import host_zeros
from fae.streaming.row_store import RowOptimizer
from fae.training.compiled import forward_of
from fae.training.dense import make_dense_optimizer
from fae.training.plain import SparseRowwiseAdagrad
from fae.training.step import Precision, autocast, backward_on_device

NUM_BATCHES = 16
Batch = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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


class Peer:
    """What contenders that are not ours have in common: the same model, batches taken in turn, a clock.

    Parameters
    ----------
    model
        What both sides train. Embeddings must have one width.
    device
        Of the dense part.
    bf16
        Products of bfloat16 operands; None: on a GPU, as ours.
    compiled
        Run the model through `torch.compile` on a GPU, as ours.

    Attributes
    ----------
    precision
        Of the next step's dense part; on a CPU it may be changed between steps.
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
        geometries = group_geometries(
            [feature.length for feature in log.features],
            [feature.pooling for feature in log.features],
            [self.dim] * len(log.features),
        )
        self.width = geometries[0].width
        self._views = FeatureViews([f.name for f in log.features], [range(len(log.features))], geometries)
        self._next, self._loss_sum = 0, torch.zeros((), dtype=torch.float64, device=self.device)
        self.batches: Sequence[object] = ()

    def logits(self, dense: Tensor, pooled: Tensor, lengths: dict[str, Tensor] | None = None) -> Tensor:
        """From embeddings ``[B, W]``, features side by side."""
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
        """Seconds of that many steps."""
        synchronize(self.device)
        started = time.perf_counter()
        for _ in range(num_steps):
            self.step(self._next % len(self.batches))
            self._next += 1
        synchronize(self.device)
        return time.perf_counter() - started


@dataclass(frozen=True, kw_only=True)
class _Column:
    """One feature of one batch: where its vectors come from and, for lists, where they go.

    `ids` int64 of the slots in use; `offsets` of bags, `places` (row ``b * L + l``) of kept sequences.
    """

    ids: Tensor
    offsets: Tensor | None
    places: Tensor | None


class PlainPyTorch(Peer):
    """One `nn.EmbeddingBag(sparse=True)` a table on the CPU and its sparse optimizer; the dense part on `device`.

    A kept sequence (``pooling = "none"``) takes `nn.Embedding(sparse=True)`; its pads are not looked up.

    Parameters
    ----------
    num_batches
        Different batches to have in memory.
    tables
        float32 memory for the rows of all tables, one table behind the other; None takes new memory, on
        huge pages like ours.
    """

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
        num_batches: int = NUM_BATCHES,
        tables: Tensor | None = None,
    ) -> None:
        super().__init__(
            log, model=model, batch_size=batch_size, optimizer=optimizer, learning_rate=learning_rate, device=device,
            bf16=bf16, compiled=compiled,
        )  # fmt: skip
        self._features = log.features
        rows = host_zeros(sum(self.cardinalities), self.dim).fill_(0.01) if tables is None else (
            tables[: sum(self.cardinalities) * self.dim].view(-1, self.dim)
        )  # fmt: skip
        self.tables: list[nn.Module] = []
        for feature, weight in zip(log.features, torch.split(rows, self.cardinalities), strict=True):
            if feature.pooling == "none":
                self.tables.append(nn.Embedding.from_pretrained(weight, freeze=False, sparse=True))  # type: ignore[no-untyped-call]
            else:
                self.tables.append(
                    nn.EmbeddingBag.from_pretrained(weight, freeze=False, mode=feature.pooling, sparse=True)
                )
        parameters = [parameter for table in self.tables for parameter in table.parameters()]
        self._parameters = parameters
        self.row_optimizer: SparseRowwiseAdagrad | torch.optim.Optimizer
        if optimizer == "sgd":
            self.row_optimizer = torch.optim.SGD(parameters, lr=learning_rate)
        elif optimizer == "adagrad":
            self.row_optimizer = torch.optim.Adagrad(parameters, lr=learning_rate)
        elif optimizer == "adam":
            self.row_optimizer = torch.optim.SparseAdam(parameters, lr=learning_rate)
        else:
            self.row_optimizer = SparseRowwiseAdagrad(parameters, self.rows)
        self._pinned = torch.zeros((batch_size if self.on_gpu else 0, self.width), pin_memory=self.on_gpu)
        self.batches = self._batches = [
            self._prepare(*batch) for batch in read_batches(log, batch_size, num_batches=num_batches)
        ]

    def _prepare(
        self, ids: npt.NDArray[np.int64], dense: npt.NDArray[np.float32], labels: npt.NDArray[np.float32]
    ) -> tuple[list[_Column], Tensor, Tensor, dict[str, Tensor]]:
        columns, lengths, slots = [], {}, first_slots(self._features)
        for index, feature in enumerate(self._features):
            part = ids[:, slots[index] : slots[index + 1]]
            present = part >= 0
            counts = present.sum(axis=1)
            chosen = torch.from_numpy(np.ascontiguousarray(part[present]))
            if feature.pooling == "none":
                places = torch.from_numpy(np.flatnonzero(present))
                columns.append(_Column(ids=chosen, offsets=None, places=places))
                lengths[feature.name] = torch.from_numpy(counts).to(self.device)
            else:
                offsets = torch.from_numpy(np.cumsum(counts) - counts)
                columns.append(_Column(ids=chosen, offsets=offsets, places=None))
        return columns, torch.from_numpy(dense).to(self.device), torch.from_numpy(labels).to(self.device), lengths

    def step(self, index: int) -> None:
        """As `Peer.step`."""
        _, dense, labels, lengths = self._batches[index]
        outputs = self.look_up(index)
        leaf = self.to_device(outputs)
        self.dense_backward(dense, labels, leaf, lengths)
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
        """Pooled embeddings of a batch's features, each ``[B, D]`` (lists ``[B, L * D]``), on the CPU."""
        columns, _, labels, _ = self._batches[index]
        outputs = []
        for feature, table, column in zip(self._features, self.tables, columns, strict=True):
            if column.places is None:
                outputs.append(table(column.ids, column.offsets))
                continue
            vectors = table(column.ids)
            kept = vectors.new_zeros((len(labels) * feature.length, self.dim))
            outputs.append(kept.index_copy(0, column.places, vectors).view(len(labels), feature.length * self.dim))
        return outputs

    def update(self, outputs: Sequence[Tensor], grad: Tensor) -> None:
        """Gradients of rows from those ``[B, W]`` of what `look_up` returned, and the sparse optimizer."""
        widths = [output.shape[1] for output in outputs]
        torch.autograd.backward(outputs, torch.split(grad, widths, 1))
        self.row_optimizer.step()
        for parameter in self._parameters:
            parameter.grad = None
