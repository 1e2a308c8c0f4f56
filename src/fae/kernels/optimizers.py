"""What every form of the row kernels shares about optimizers: their codes, and Adam's bias correction.

Place in the flow: `fae.embedding.base` counts steps, the kernels apply them. Invariant: what depends on the step count
is worked out once per batch, in double precision, and rounded once; so it is one number for every row and kernel.
"""

from __future__ import annotations

import math

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
