"""The best epoch's weights of a training without a folder, kept in host memory for early stopping."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fae.embedding.base import Embeddings


class BestWeights:
    """A copy of rows, dense weights and the state of both; it takes as much host memory as these."""

    def __init__(self, model: nn.Module, dense_optimizer: torch.optim.Optimizer, embeddings: Embeddings) -> None:
        self._tables: list[tuple[Tensor, Tensor]] = [
            embeddings.export_table(table) for table in range(len(embeddings.layout.features))
        ]
        self._steps = embeddings.steps
        self._model: dict[str, Any] = copy.deepcopy(model.state_dict())
        self._optimizer: dict[str, Any] = copy.deepcopy(dense_optimizer.state_dict())

    def restore(self, model: nn.Module, dense_optimizer: torch.optim.Optimizer, embeddings: Embeddings) -> None:
        """Put the copy back where it was taken from."""
        for table, (weight, state) in enumerate(self._tables):
            embeddings.import_table(table, weight, state)
        embeddings.steps = self._steps
        model.load_state_dict(self._model)
        dense_optimizer.load_state_dict(self._optimizer)
