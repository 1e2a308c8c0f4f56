"""Bytes that a rank reads of the others in a step: by one formula in a plan and in the record of a training."""

from __future__ import annotations

from collections.abc import Sequence

_NUMBER_BYTES = 4
"""Sums are float32."""


def received_bytes(rows_of_others: Sequence[float], dims: Sequence[int], *, dense_weights: int, world: int) -> float:
    """Bytes of sums that one rank reads of all others in a step.

    Parameters
    ----------
    rows_of_others
        For each width, the rows that the others look up: a row counts once for each of them that does.
    dims
        The widths.
    dense_weights
        Dense weights, of whose gradients it reads those of all others.
    world
        How many ranks there are.

    Examples
    --------
    Two ranks: 131,000 rows of the other one with 16 floats each, and 1,000 dense gradients.

    >>> received_bytes([131_000], [16], dense_weights=1000, world=2)
    8388000
    """
    rows = sum(count * dim for count, dim in zip(rows_of_others, dims, strict=True))
    return _NUMBER_BYTES * (rows + (world - 1) * dense_weights)
