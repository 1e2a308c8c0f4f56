"""Bytes that a rank reads of the others in a step: by one formula in a plan and in the record of a training."""

from __future__ import annotations

from collections.abc import Sequence

_NUMBER_BYTES = 4
"""Sums are float32."""


def received_bytes(
    rows_of_others: Sequence[float], dims: Sequence[int], *, dense_weights: int, world: int, num_hosts: int = 1
) -> float:
    """Bytes of sums that one rank reads of all others in a step.

    Parameters
    ----------
    rows_of_others
        For each width, the rows that the others look up: a row counts once for each of them that does.
    dims
        The widths.
    dense_weights
        Dense weights, of whose gradients it reads those of all others. Where hosts add theirs up first: its part of
        those of its neighbours and of other hosts, and the parts of all hosts that its neighbours have.
    world
        How many ranks there are.
    num_hosts
        Hosts whose sums go to one another as wholes.

    Examples
    --------
    Two ranks: 131,000 rows of the other one with 16 floats each, and 1,000 dense gradients.

    >>> received_bytes([131_000], [16], dense_weights=1000, world=2)
    8388000
    """
    rows = sum(count * dim for count, dim in zip(rows_of_others, dims, strict=True))
    if num_hosts == 1:
        return _NUMBER_BYTES * (rows + (world - 1) * dense_weights)
    near = world // num_hosts
    vectors = (near - 1) / near + (num_hosts - 1) / near + num_hosts * (near - 1) / near
    return _NUMBER_BYTES * (rows + vectors * dense_weights)


def network_bytes(
    rows_of_hosts: Sequence[float], dims: Sequence[int], *, dense_weights: int, num_hosts: int, host_ranks: int = 1
) -> float:
    """Bytes of sums that come to one rank from other hosts in a step.

    Parameters
    ----------
    rows_of_hosts
        For each width, the rows of its part of the list that the other hosts look up.
    host_ranks
        Ranks of a host, of which each takes a part of the dense gradients.

    Examples
    --------
    >>> network_bytes([1000], [16], dense_weights=100, num_hosts=2, host_ranks=2)
    64200.0
    """
    rows = sum(count * dim for count, dim in zip(rows_of_hosts, dims, strict=True))
    return _NUMBER_BYTES * (rows + (num_hosts - 1) / host_ranks * dense_weights)
