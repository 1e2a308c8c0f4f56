"""Embedding optimizers: their names, codes in compiled loops, and bytes of state per row.

The one place that knows them; below torch on purpose. What `row_bytes` returns is what `fae.embedding` allocates per
row (a test compares them).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fae.core.errors import RecipeError

FLOAT_BYTES = 4

Betas = tuple[float, float]

DEFAULT_BETAS: Betas = (0.9, 0.999)
"""Adam's decay of the first and the second moment, as torch has them."""


@dataclass(frozen=True, kw_only=True)
class OptimizerFacts:
    """One row optimizer.

    Attributes
    ----------
    code
        Number that compiled loops take, so that they are compiled once for all optimizers.
    state_vectors, state_numbers
        State of a row: vectors of D floats, and single floats beside them.
    eps
        Added to the root of the second moment; torch's default.
    dense
        Name of the optimizer that the dense weights take beside it.
    """

    code: int
    state_vectors: int = 0
    state_numbers: int = 0
    eps: float = 1e-8
    dense: str


_FACTS: Mapping[str, OptimizerFacts] = {
    "sgd": OptimizerFacts(code=0, dense="sgd"),
    "rowwise_adagrad": OptimizerFacts(code=1, state_numbers=1, dense="adagrad"),
    "adagrad": OptimizerFacts(code=2, state_vectors=1, eps=1e-10, dense="adagrad"),
    "adam": OptimizerFacts(code=3, state_vectors=2, dense="adam"),
}

OPTIMIZERS = tuple(_FACTS)

OPTIMIZER_CODE: Mapping[str, int] = {name: facts.code for name, facts in _FACTS.items()}


def optimizer_facts(optimizer: str) -> OptimizerFacts:
    """The facts of an optimizer.

    Raises
    ------
    RecipeError
        If there is no such optimizer.
    """
    if optimizer not in _FACTS:
        raise RecipeError(f"[train] optimizer = {optimizer!r} is not one of {', '.join(OPTIMIZERS)}")
    return _FACTS[optimizer]


def state_width(optimizer: str, embedding_dim: int) -> int:
    """Floats of optimizer state that a row carries.

    >>> [state_width(optimizer, 16) for optimizer in OPTIMIZERS]
    [0, 1, 16, 32]
    """
    facts = optimizer_facts(optimizer)
    return facts.state_vectors * embedding_dim + facts.state_numbers


def row_bytes(optimizer: str, embedding_dim: int) -> int:
    """Bytes of one row with its state.

    >>> row_bytes("rowwise_adagrad", 16)
    68
    """
    return FLOAT_BYTES * (embedding_dim + state_width(optimizer, embedding_dim))


def bias_corrected_rate(learning_rate: float, betas: Betas, step: int) -> float:
    """Adam's learning rate at a step (the first is 1): lr * sqrt(1 - beta2^step) / (1 - beta1^step).

    >>> round(bias_corrected_rate(0.1, (0.9, 0.999), 1), 6)
    0.031623
    >>> round(bias_corrected_rate(0.1, (0.9, 0.999), 100_000), 6)
    0.1
    """
    return learning_rate * math.sqrt(1.0 - betas[1] ** step) / (1.0 - betas[0] ** step)
