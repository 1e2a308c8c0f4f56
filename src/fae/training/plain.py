"""Plain PyTorch: one `nn.EmbeddingBag` a table and its sparse optimizer, which everything of FAE is compared with.

`PlainTrainer` trains it on a columnar log (the demo, accuracy studies, equivalence tests); the speed contender of
`fae.bench.plain_contender` times the same tables, lookups and updates. It gets the same care as FAE: sparse gradients,
torch's own sparse SGD, Adagrad and Adam, row-wise Adagrad over coalesced gradients, pads that are never looked up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fae.artifacts.columnar_log import ColumnarLog, FeatureSchema, feature_tables, first_slots, model_features
from fae.core.seeds import generator
from fae.kernels.eager_optimizers import EagerAdagrad, EagerSGD, EagerSparseAdam
from fae.streaming.row_store import RowOptimizer, initial_chunks, initial_rows
from fae.training.dense import make_dense_optimizer


class FeatureLookups(NamedTuple):
    """The lookups of one feature in one batch.

    Attributes
    ----------
    ids
        int64, the slots in use, input by input.
    offsets
        int64 ``[B]``, where each input's bag begins in `ids`; None for kept sequences.
    places
        int64, the place ``b * L + l`` of each id in a kept sequence; None for bags.
    """

    ids: Tensor
    offsets: Tensor | None
    places: Tensor | None


def cut_lookups(features: Sequence[FeatureSchema], ids: Tensor) -> list[FeatureLookups]:
    """The lookups of a batch by feature, from its ids int64 ``[B, S]``; -1 pads lists only."""
    lookups, slots = [], first_slots(features)
    for index, feature in enumerate(features):
        columns = ids[:, slots[index] : slots[index + 1]]
        if feature.length == 1 and feature.pooling != "none":
            lookups.append(FeatureLookups(columns[:, 0].contiguous(), torch.arange(len(ids)), None))
            continue
        present = columns >= 0
        if feature.pooling == "none":
            # Pads must not be looked up: a gradient of zero would still move a row under Adam.
            lookups.append(FeatureLookups(columns[present], None, present.flatten().nonzero().flatten()))
        else:
            lengths = present.sum(1)
            lookups.append(FeatureLookups(columns[present], torch.cumsum(lengths, 0) - lengths, None))
    return lookups


class PlainEmbeddings(nn.Module):
    """Tables in vocabulary order, one `nn.EmbeddingBag` (or `nn.Embedding` for kept sequences) each.

    A table that columns share has one for each of them, over one weight, whose gradients torch adds.

    Parameters
    ----------
    features, embedding_dims
        The tables of a log and their widths.
    seed
        Seed of the first values, which are those of FAE, so that both start from the same tables.
    weights
        Memory of the tables, float32 ``[num_embeddings, D]`` each, used in place of freshly drawn values.

    Attributes
    ----------
    features, embedding_dims
        What a model receives (`model_features`), and their widths.
    tables
        A module for each of them.
    """

    def __init__(
        self,
        features: Sequence[FeatureSchema],
        embedding_dims: Sequence[int],
        *,
        seed: int = 1,
        sparse: bool = True,
        weights: Iterable[Tensor] | None = None,
    ) -> None:
        super().__init__()
        owners = feature_tables(features)
        self.features = model_features(features)
        self.embedding_dims = tuple(embedding_dims[table] for table in owners)
        if weights is None:
            weights = (_first_values(feature, dim, seed) for feature, dim in zip(features, embedding_dims, strict=True))
        tables: list[nn.Embedding | nn.EmbeddingBag] = []
        kept = list(weights)
        assert len(kept) == len(features) == len(embedding_dims)
        for index, (feature, owner) in enumerate(zip(self.features, owners, strict=True)):
            weight = kept[owner]
            if feature.pooling == "none":
                table = nn.Embedding.from_pretrained(weight, freeze=False, sparse=sparse)  # type: ignore[no-untyped-call]
                tables.append(table)
            else:
                tables.append(
                    nn.EmbeddingBag.from_pretrained(weight, freeze=False, mode=feature.pooling, sparse=sparse)
                )
            if index and owners[index - 1] == owner:
                tables[index].weight = tables[index - 1].weight
        self.tables = nn.ModuleList(tables)

    def look_up(self, lookups: Sequence[FeatureLookups], batch_size: int) -> list[Tensor]:
        """Embeddings of a batch's features: ``[B, D]`` each, of kept sequences ``[B, L * D]`` with zeros for pads."""
        outputs = []
        for feature, dim, table, (ids, offsets, places) in zip(
            self.features, self.embedding_dims, self.tables, lookups, strict=True
        ):
            if places is None:
                outputs.append(table(ids, offsets))
                continue
            vectors = table(ids)
            kept = vectors.new_zeros((batch_size * feature.length, dim))
            outputs.append(kept.index_copy(0, places, vectors).view(batch_size, feature.length * dim))
        return outputs

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        """Embeddings by feature name of ids ``[B, S]`` (int64): ``[B, D]`` or ``[B, L, D]``; -1 pads lists only."""
        outputs = self.look_up(cut_lookups(self.features, ids), len(ids))
        return {
            feature.name: output.view(len(ids), feature.length, dim) if feature.pooling == "none" else output
            for feature, dim, output in zip(self.features, self.embedding_dims, outputs, strict=True)
        }


def _first_values(feature: FeatureSchema, dim: int, seed: int) -> Tensor:
    size = feature.num_embeddings
    return torch.cat(
        [
            torch.from_numpy(initial_rows(seed, feature.name, size, dim, start, stop))
            for start, stop in initial_chunks(size)
        ]
    )


class SparseRowwiseAdagrad:
    """Row-wise Adagrad over the sparse gradients of `PlainEmbeddings`; torch.optim has none."""

    def __init__(self, parameters: Sequence[nn.Parameter], optimizer: RowOptimizer) -> None:
        self._parameters, self._optimizer = list(parameters), optimizer
        self.states = [torch.zeros(len(parameter)) for parameter in self._parameters]

    def step(self) -> None:
        """Update the rows that have a gradient."""
        for parameter, state in zip(self._parameters, self.states, strict=True):
            if parameter.grad is None:
                continue
            gradient = parameter.grad.coalesce()
            rows, values = gradient.indices()[0], gradient.values()
            state[rows] += (values * values).mean(1)
            scale = self._optimizer.learning_rate / (state[rows].sqrt() + self._optimizer.eps)
            parameter.data.index_add_(0, rows, values * scale.unsqueeze(1), alpha=-1)


class PlainRowUpdate:
    """The sparse optimizer of `PlainEmbeddings`: torch's own, or `SparseRowwiseAdagrad`."""

    def __init__(self, embeddings: PlainEmbeddings, optimizer: RowOptimizer) -> None:
        self._parameters = list(embeddings.parameters())
        rate, eps = optimizer.learning_rate, optimizer.eps
        self.optimizer: SparseRowwiseAdagrad | torch.optim.Optimizer
        if optimizer.name == "sgd":
            self.optimizer = EagerSGD(self._parameters, lr=rate)
        elif optimizer.name == "adagrad":
            self.optimizer = EagerAdagrad(self._parameters, lr=rate, eps=eps)
        elif optimizer.name == "adam":
            self.optimizer = EagerSparseAdam(self._parameters, lr=rate, betas=optimizer.betas, eps=eps)
        else:
            self.optimizer = SparseRowwiseAdagrad(self._parameters, optimizer)

    def step(self) -> None:
        """Update the rows that have a gradient, then forget the gradients."""
        self.optimizer.step()
        for parameter in self._parameters:
            parameter.grad = None


class PlainTrainer:
    """Trains `model` over `PlainEmbeddings` on a columnar log, on the CPU.

    Parameters
    ----------
    model
        The same module that FAE trains.
    dense_learning_rate
        Learning rate of the dense weights; None takes the rows'.
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
        self.row_update = PlainRowUpdate(embeddings, optimizer)

    def step(self, ids: Tensor, dense: Tensor, labels: Tensor, weights: Tensor | None = None) -> float:
        """One update; ids int64 ``[B, S]``, dense ``[B, K]``, labels, weights ``[B]``. Returns the loss before it."""
        self._dense_optimizer.zero_grad()
        logits = self.model(dense, self.embeddings(ids))
        if weights is None:
            loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        else:
            losses = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
            loss = (losses * weights).sum() / (float(weights.double().sum()) or 1.0)
        loss.backward()  # type: ignore[no-untyped-call]
        self.row_update.step()
        self._dense_optimizer.step()
        return float(loss.detach())

    def fit(self, log: ColumnarLog, *, batch_size: int, epochs: int, seed: int) -> list[float]:
        """Train on the training split in seeded random order; returns the loss of every batch."""
        start, stop = log.split("train")
        losses = []
        for epoch in range(epochs):
            order = start + generator(seed, "plain order", epoch).permutation(stop - start)
            for first in range(0, len(order), batch_size):
                chosen = np.sort(order[first : first + batch_size])
                weights = None if log.weights is None else torch.from_numpy(np.array(log.weights[chosen]))
                losses.append(self.step(*read_inputs(log, chosen), weights))
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
