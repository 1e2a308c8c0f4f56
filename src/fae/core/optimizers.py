"""Bytes a row takes, with its optimizer state at its real stride. The one place that knows; below torch on purpose.

Invariant: what `row_bytes` says is what `fae.embedding` allocates per row (a test compares them).
"""

from __future__ import annotations

import math

from fae.core.errors import RecipeError

FLOAT_BYTES = 4

OPTIMIZERS = ("sgd", "rowwise_adagrad", "adagrad", "adam")


def state_width(optimizer: str, embedding_dim: int) -> int:
    """Floats of optimizer state that travel with one row.

    >>> [state_width(optimizer, 16) for optimizer in OPTIMIZERS]
    [0, 1, 16, 32]
    """
    widths = {"sgd": 0, "rowwise_adagrad": 1, "adagrad": embedding_dim, "adam": 2 * embedding_dim}
    if optimizer in widths:
        return widths[optimizer]
    raise RecipeError(f"[train] optimizer = {optimizer!r} is not one of {', '.join(OPTIMIZERS)}")


def row_bytes(optimizer: str, embedding_dim: int) -> int:
    """Bytes of one row with its state.

    >>> row_bytes("rowwise_adagrad", 16)
    68
    """
    return FLOAT_BYTES * (embedding_dim + state_width(optimizer, embedding_dim))


OPTIMIZER_CODE = {"sgd": 0, "rowwise_adagrad": 1, "adagrad": 2, "adam": 3}
"""Passed to compiled loops as a number, so that they are compiled once for all optimizers."""


Betas = tuple[float, float]


DEFAULT_BETAS: Betas = (0.9, 0.999)


def bias_corrected_rate(learning_rate: float, betas: Betas, step: int) -> float:
    """Adam's learning rate at a step (the first is 1): lr * sqrt(1 - beta2^step) / (1 - beta1^step).

    >>> round(bias_corrected_rate(0.1, (0.9, 0.999), 1), 6)
    0.031623
    >>> round(bias_corrected_rate(0.1, (0.9, 0.999), 100_000), 6)
    0.1
    """
    return learning_rate * math.sqrt(1.0 - betas[1] ** step) / (1.0 - betas[0] ** step)
