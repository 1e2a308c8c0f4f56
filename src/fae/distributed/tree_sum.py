"""Sums in one fixed binary tree: neighbours first, then pairs of neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

Array = TypeVar("Array", bound=Any)


def tree_sum(parts: Sequence[Array]) -> Array:
    """The sum of arrays, or of rows of an array, of numpy or torch; the last one of an odd number goes up as it is.

    So ``((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))``: where a rank sums 2, 4 or 8 neighbouring parts first, and ranks
    are summed in the same way, the bytes are the same.

    Examples
    --------
    >>> tree_sum([1.0, 2.0, 3.0])
    6.0
    """
    level = list(parts)
    while len(level) > 1:
        pairs = [level[i] + level[i + 1] for i in range(0, len(level) - 1, 2)]
        level = pairs + level[2 * len(pairs) :]
    return level[0]


def slices_of_rank(num_slices: int, world: int) -> int:
    """How many slices each rank sums, where ranks are the upper levels of the tree of slices.

    Raises
    ------
    ValueError
        If they are not: sums would then depend on the number of ranks.

    Examples
    --------
    >>> slices_of_rank(8, 2), slices_of_rank(6, 3), slices_of_rank(7, 1)
    (4, 2, 7)
    """
    each = num_slices // world
    if num_slices % world or (world > 1 and each & (each - 1)):
        raise ValueError(f"{num_slices} slices are no whole subtrees of {world} ranks")
    return each
