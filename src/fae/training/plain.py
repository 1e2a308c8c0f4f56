"""The plain trainer: one `nn.EmbeddingBag` a table and nothing of FAE, for comparison.

Place in the flow: the demo and the benchmarks train the same model with it on the same columnar log; the equivalence
tests check FAE against it. It gets the same care as ours: sparse gradients, torch's own sparse Adagrad and Adam,
row-wise Adagrad written with coalesced tensors, inputs gathered batch by batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema, first_slots
from fae.core.seeds import generator
from fae.streaming.row_store import RowOptimizer, initial_chunks, initial_rows
from fae.training.dense import make_dense_optimizer


class PlainEmbeddings(nn.Module):
    """Tables in vocabulary order, one `nn.EmbeddingBag` (or `nn.Embedding` for kept sequences) each.

    Parameters
    ----------
    seed
        First values as FAE draws them, so both start from the same tables.
    """

    def __init__(
        self, features: Sequence[FeatureSchema], embedding_dims: Sequence[int], *, seed: int, sparse: bool = True
    ) -> None:
        super().__init__()
        self.features, self._slots = tuple(features), first_slots(features)
        tables: list[nn.Module] = []
        for feature, dim in zip(features, embedding_dims, strict=True):
            size = feature.num_embeddings
            weight = torch.cat(
                [
                    torch.from_numpy(initial_rows(seed, feature.name, size, dim, start, stop))
                    for start, stop in initial_chunks(size)
                ]
            )
            if feature.pooling == "none":
                table = nn.Embedding.from_pretrained(weight, freeze=False, sparse=sparse)  # type: ignore[no-untyped-call]
                tables.append(table)
            else:
                tables.append(
                    nn.EmbeddingBag.from_pretrained(weight, freeze=False, mode=feature.pooling, sparse=sparse)
                )
        self.tables = nn.ModuleList(tables)

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        """Embeddings by feature name of ids ``[B, S]`` (int64): ``[B, D]`` or ``[B, L, D]``; -1 pads lists only."""
        embeddings = {}
        one_each = torch.arange(len(ids))
        for index, (feature, table) in enumerate(zip(self.features, self.tables, strict=True)):
            columns = ids[:, self._slots[index] : self._slots[index + 1]]
            if feature.length == 1 and feature.pooling != "none":
                embeddings[feature.name] = table(columns[:, 0].contiguous(), one_each)
                continue
            present = columns >= 0
            if feature.pooling == "none":
                # Pads must not be looked up: a gradient of zero would still move a row under Adam.
                vectors = table(columns[present])
                kept = vectors.new_zeros((*columns.shape, vectors.shape[1]))
                embeddings[feature.name] = kept.index_put((present,), vectors)
                continue
            lengths = present.sum(1)
            offsets = torch.cumsum(lengths, 0) - lengths
            embeddings[feature.name] = table(columns[present], offsets)
        return embeddings


class SparseRowwiseAdagrad:
    """Row-wise Adagrad over the sparse gradients of `PlainEmbeddings`; torch.optim has none."""

    def __init__(self, parameters: Sequence[nn.Parameter], optimizer: RowOptimizer) -> None:
        self._parameters, self._optimizer = list(parameters), optimizer
        self.states = [torch.zeros(len(parameter)) for parameter in self._parameters]

    def step(self) -> None:
        """Update the rows that have a gradient, then forget the gradients."""
        for parameter, state in zip(self._parameters, self.states, strict=True):
            if parameter.grad is None:
                continue
            gradient = parameter.grad.coalesce()
            rows, values = gradient.indices()[0], gradient.values()
            state[rows] += (values * values).mean(1)
            scale = self._optimizer.learning_rate / (state[rows].sqrt() + self._optimizer.eps)
            parameter.data.index_add_(0, rows, values * scale.unsqueeze(1), alpha=-1)
            parameter.grad = None


class PlainTrainer:
    """Trains `model` over `PlainEmbeddings` on a columnar log, on the CPU.

    Parameters
    ----------
    model
        The same module that FAE trains.
    dense_learning_rate
        Of the dense weights; the rows' where None.
    """

    def __init__(
        self,
        model: nn.Module,
        embeddings: PlainEmbeddings,
        optimizer: RowOptimizer,
        *,
        dense_learning_rate: float | None = None,
    ) -> None:
        self.model, self.embeddings = model, embeddings
        rate = optimizer.learning_rate if dense_learning_rate is None else dense_learning_rate
        self._dense_optimizer = make_dense_optimizer(optimizer.name, model, rate)
        parameters = list(embeddings.parameters())
        self._row_optimizer: SparseRowwiseAdagrad | torch.optim.Optimizer
        if optimizer.name == "sgd":
            self._row_optimizer = torch.optim.SGD(parameters, lr=optimizer.learning_rate)
        elif optimizer.name == "adagrad":
            self._row_optimizer = torch.optim.Adagrad(parameters, lr=optimizer.learning_rate, eps=optimizer.eps)
        elif optimizer.name == "adam":
            self._row_optimizer = torch.optim.SparseAdam(
                parameters, lr=optimizer.learning_rate, betas=optimizer.betas, eps=optimizer.eps
            )
        else:
            self._row_optimizer = SparseRowwiseAdagrad(parameters, optimizer)

    def step(self, ids: Tensor, dense: Tensor, labels: Tensor) -> float:
        """One update; ids int64 ``[B, S]``, dense ``[B, K]``, labels ``[B]``. Returns the loss before it."""
        self._dense_optimizer.zero_grad()
        for parameter in self.embeddings.parameters():
            parameter.grad = None
        logits = self.model(dense, self.embeddings(ids))
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self._row_optimizer.step()
        self._dense_optimizer.step()
        return float(loss.detach())

    def fit(self, log: ColumnarLog, *, batch_size: int, epochs: int, seed: int) -> list[float]:
        """Train on the training split in seeded random order; returns the loss of every batch."""
        start, stop = log.split("train")
        losses = []
        for epoch in range(epochs):
            order = start + generator(seed, "plain order", epoch).permutation(stop - start)
            for first in range(0, len(order), batch_size):
                losses.append(self.step(*read_inputs(log, np.sort(order[first : first + batch_size]))))
        return losses

    def predict(self, log: ColumnarLog, split: str, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Labels and logits of a split, float32, in log order."""
        start, stop = log.split(split)
        labels, logits = [np.empty(0, np.float32)], [np.empty(0, np.float32)]
        with torch.no_grad():
            for first in range(start, stop, batch_size):
                ids, dense, truth = read_inputs(log, np.arange(first, min(first + batch_size, stop)))
                logits.append(self.model(dense, self.embeddings(ids)).numpy())
                labels.append(truth.numpy())
        return np.concatenate(labels), np.concatenate(logits)


def read_inputs(log: ColumnarLog, inputs: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
    """ids int64 ``[B, S]``, dense float32 ``[B, K]`` and labels float32 ``[B]`` of some inputs of a log."""
    return (
        torch.from_numpy(log.ids[inputs].astype(np.int64)),
        torch.from_numpy(np.array(log.dense[inputs])),
        torch.from_numpy(log.labels[inputs].astype(np.float32)),
    )
