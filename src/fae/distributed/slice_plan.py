"""How many slices a batch is cut into, and which of them a rank trains: the one place that knows it.

A batch of B inputs has S slices of B / S. By default S is the number of ranks, and each has one. Where a training is
reproducible S is 8 whatever the number of ranks: each computes its 8 / W slices one after the other, in the same shapes
on any number of ranks, and all that is summed over inputs is summed by slice, slices in one tree
(`fae.distributed.tree_sum`). So the bytes do not depend on the number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

from fae.distributed.tree_sum import slices_of_rank

REPRODUCIBLE_SLICES = 8
"""S of a reproducible training: as many as an exchange list has bits, and as the most ranks."""


@dataclass(frozen=True, kw_only=True)
class SlicePlan:
    """The slices of one rank.

    Attributes
    ----------
    num_slices
        S.
    rank, world
        Number of the rank, and how many there are.
    num_hosts
        Hosts whose sums go to one another as wholes, with the same number of ranks each; 1 where each rank's do.

    Raises
    ------
    ValueError
        If the slices are no whole subtrees of the ranks.

    Examples
    --------
    >>> list(SlicePlan(num_slices=8, rank=1, world=4).own)
    [2, 3]
    """

    num_slices: int = 1
    rank: int = 0
    world: int = 1
    num_hosts: int = 1

    def __post_init__(self) -> None:
        slices_of_rank(self.num_slices, self.world)

    @property
    def is_cut(self) -> bool:
        """Whether a batch has several slices."""
        return self.num_slices > 1

    @property
    def own(self) -> range:
        """Numbers of the slices of this rank."""
        each = slices_of_rank(self.num_slices, self.world)
        return range(self.rank * each, (self.rank + 1) * each)

    @property
    def host(self) -> int:
        """Number of the host of this rank."""
        return self.rank // self.host_ranks

    @property
    def host_ranks(self) -> int:
        """Ranks of a host."""
        return self.world // self.num_hosts

    @property
    def host_slices(self) -> int:
        """Slices of the ranks of a host."""
        return self.num_slices // self.num_hosts


class KeptSlices:
    """How many slices of a batch a rank has summed, in their order."""

    def __init__(self, plan: SlicePlan) -> None:
        self._plan, self._count = plan, 0

    def begin(self, number: int) -> bool:
        """Count the slice of this number, whose gradients are summed now; whether it is the first of a batch.

        Raises
        ------
        RuntimeError
            If another slice comes next.
        """
        is_first = number == self._plan.own[0]
        count = 0 if is_first else self._count
        if number != self._plan.own[0] + count:
            raise RuntimeError(f"slice {number} of a batch comes behind {count} slices of this rank")
        self._count = count + 1
        return is_first

    def drop(self) -> None:
        """Forget them."""
        self._count = 0

    @property
    def are_missing(self) -> bool:
        """Whether a slice of this rank is not summed yet."""
        return self._count < len(self._plan.own)


def next_batch_size(batch_size: int, num_slices: int) -> int:
    """The smallest batch size, from `batch_size` on, that can be cut into equal slices.

    >>> next_batch_size(34, 8), next_batch_size(40, 8)
    (40, 40)
    """
    return -(-batch_size // num_slices) * num_slices
