"""Rows with their optimizer state, and the first values of rows.

A row's first value depends on the seed, the table's name and the vocabulary id alone, so no placement, budget or hot
set can change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.core.optimizers import DEFAULT_BETAS, Betas, optimizer_facts, state_width
from fae.core.seeds import generator
from fae.core.threads import run_ranges
from fae.core.units import format_bytes, format_count
from fae.streaming.huge_pages import host_zeros

_INITIAL_CHUNK_ROWS = 65_536
"""Rows drawn from one random stream; part of the definition of the first values, so never change it."""


@dataclass(frozen=True, kw_only=True)
class RowOptimizer:
    """How a row is updated from the sum of its gradients.

    ``sgd``: w -= lr g. ``rowwise_adagrad`` (one number a row): s += mean(g^2); w -= lr g / (sqrt(s) + eps).
    ``adagrad`` (torch.optim.Adagrad; D numbers a row): s += g^2, the same step. ``adam`` (torch.optim.SparseAdam; 2 D
    numbers a row): moments of the rows of a batch only, one step count for all rows.

    Attributes
    ----------
    eps
        0 means torch's default for the optimizer: 1e-10 for ``adagrad``, 1e-8 for the others.
    betas
        Decay of the first and second moment, for ``adam``.
    weight_decay
        Rows of a batch are multiplied by 1 - lr * weight_decay before their step (decoupled, as in torch's AdamW).
    """

    name: str = "rowwise_adagrad"
    learning_rate: float = 0.02
    eps: float = 0.0
    betas: Betas = DEFAULT_BETAS
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.eps == 0:
            object.__setattr__(self, "eps", optimizer_facts(self.name).eps)

    def kept_share(self, rate_factor: float = 1.0) -> float:
        """What decay leaves of a row in a step whose learning rate is multiplied by `rate_factor`."""
        return 1.0 - self.learning_rate * rate_factor * self.weight_decay

    def state_width(self, embedding_dim: int) -> int:
        """Floats of state a row carries."""
        return state_width(self.name, embedding_dim)


@dataclass(frozen=True)
class RowStore:
    """Rows of one group in one memory.

    Attributes
    ----------
    weight
        float32 ``[R, D]``.
    state
        float32 ``[R, state width]``; width 0 for optimizers without state.
    """

    weight: Tensor
    state: Tensor

    @classmethod
    def zeros(cls, num_rows: int, embedding_dim: int, optimizer: RowOptimizer, device: torch.device) -> RowStore:
        """A store of zeros on `device`."""
        widths = (embedding_dim, optimizer.state_width(embedding_dim))
        if device.type == "cpu":
            return cls(*(host_zeros(num_rows, width) for width in widths))
        return cls(*(torch.zeros((num_rows, width), dtype=torch.float32, device=device) for width in widths))

    @property
    def num_bytes(self) -> int:
        """Bytes of rows and state."""
        return 4 * (self.weight.numel() + self.state.numel())


def initial_rows(
    seed: int,
    table: str,
    num_embeddings: int,
    embedding_dim: int,
    start: int,
    stop: int,
    *,
    out: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """First values of the vocabulary ids ``[start, stop)`` of a table, float32 ``[stop - start, D]``.

    Uniform in +-1/sqrt(num_embeddings), as DLRM's reference code draws them. `start` must be a multiple of the chunk
    of 65,536 rows. Chunks are drawn by all threads.

    Parameters
    ----------
    out
        Filled and returned instead of a new array.
    """
    assert start % _INITIAL_CHUNK_ROWS == 0
    scale = np.float32(1.0 / np.sqrt(num_embeddings))
    values = np.empty((stop - start, embedding_dim), np.float32) if out is None else out

    def draw(first_chunk: int, last_chunk: int) -> None:
        for chunk in range(first_chunk, last_chunk):
            begin = chunk * _INITIAL_CHUNK_ROWS
            stream = generator(seed, "initial rows", table, start // _INITIAL_CHUNK_ROWS + chunk)
            part = values[begin : begin + _INITIAL_CHUNK_ROWS]
            stream.random(out=part, dtype=np.float32)
            part *= 2 * scale
            part -= scale

    run_ranges(draw, -(-(stop - start) // _INITIAL_CHUNK_ROWS))
    return values


def initial_chunks(num_embeddings: int, chunks: int = 1) -> list[tuple[int, int]]:
    """Ranges of ids that cover a table, to call `initial_rows` with; each has `chunks` random streams."""
    rows = chunks * _INITIAL_CHUNK_ROWS
    return [(start, min(start + rows, num_embeddings)) for start in range(0, num_embeddings, rows)]


def rows_in_words(stores: Sequence[RowStore], where: str) -> str:
    """How many rows stores have, and their bytes, such as ``"4,096 rows on cuda (1.0 MiB)"``."""
    rows, size = sum(len(store.weight) for store in stores), sum(store.num_bytes for store in stores)
    return f"{format_count(rows)} rows on {where} ({format_bytes(size)})"
