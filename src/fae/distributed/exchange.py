"""Sums of rows over all slices of a batch, on CPUs: what an exchange on GPUs must give, to the byte.

Slices are summed in one binary tree. A rank has a whole subtree of it, so it sums its slices first, and ranks exchange
one sum for each row that they look up: bytes are moved, and added here. Where a subtree does not look a row up, the sum
of the other half goes up as it is, so no zero is added, which would make 0 of -0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fae.core.compiled import read_only
from fae.core.threads import run_ranges
from fae.distributed.exchange_lists import Bits, ExchangeList
from fae.distributed.slice_loops import add_parts, count_of_ranks
from fae.distributed.tree_sum import slices_of_rank

if TYPE_CHECKING:
    from fae.distributed.group import Group

_FEWEST_ROWS = 2048
"""Rows that a thread adds at least."""
Sums = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


def sum_in_tree(parts: Sequence[Sums], present: Sequence[Flags]) -> Sums:
    """Sum rows that not all parts have, in the tree of `fae.distributed.tree_sum.tree_sum`.

    Parameters
    ----------
    parts
        Each of shape ``[n, dim]``; what a part does not have is not read.
    present
        Each of shape ``[n]``: which rows a part has.

    Returns
    -------
    Sums
        Shape ``[n, dim]``; rows that no part has are 0.
    """
    level = [(np.where(flags[:, None], part, np.float32(0)), flags) for part, flags in zip(parts, present, strict=True)]
    while len(level) > 1:
        level = [
            _sum_of_two(*level[i], *level[i + 1]) if i + 1 < len(level) else level[i] for i in range(0, len(level), 2)
        ]
    return level[0][0]


def _sum_of_two(left: Sums, has_left: Flags, right: Sums, has_right: Flags) -> tuple[Sums, Flags]:
    both = has_left & has_right
    total = np.where(both[:, None], left + right, np.where(has_left[:, None], left, right))
    return total, has_left | has_right


def sum_of_slices(bits: Bits, sums: Sequence[Sums], dim: int) -> Sums:
    """The sums of some slices, a subtree, for each row that one of them looks up.

    Parameters
    ----------
    bits
        Shape ``[n]``: bit k where the k-th of these slices looks the row up.
    sums
        For each slice, shape ``[rows that it looks up, dim]``, in the order of the list.

    Returns
    -------
    Sums
        Shape ``[rows with any bit, dim]``, in the order of the list.

    Raises
    ------
    ValueError
        If a slice has another number of sums than the list has bits of it.
    """
    if len(sums) == 1 and sums[0].dtype == np.float32 and sums[0].shape == (int(np.count_nonzero(bits & 1)), dim):
        return sums[0]
    listed = bits[bits != 0]
    parts, present = [], []
    for number, own in enumerate(sums):
        flags = (listed >> np.uint8(number) & np.uint8(1)).astype(bool)
        if own.shape != (int(flags.sum()), dim) or own.dtype != np.float32:
            raise ValueError(f"slice {number} has sums of shape {own.shape}, its list ({int(flags.sum())}, {dim})")
        part = np.zeros((len(listed), dim), np.float32)
        part[flags] = own
        parts.append(part)
        present.append(flags)
    return sum_in_tree(parts, present)


def total_sums(rows: ExchangeList, sums: Sequence[Sums], dim: int) -> Sums:
    """The reference: all slices in one process; shape ``[U, dim]``."""
    return sum_of_slices(rows.slice_bits, sums, dim)


def sum_of_ranks(rows: ExchangeList, parts: Sums, first: int, last: int) -> Sums:
    """The sums over all ranks of the rows ``[first, last)`` of a list, on all threads.

    Parameters
    ----------
    parts
        Shape ``[W, n, dim]``: for each rank, what `sum_of_slices` gives of its slices; what is behind it is not read.

    Returns
    -------
    Sums
        Shape ``[last - first, dim]``.
    """
    world, dim = parts.shape[0], parts.shape[2]
    total = np.empty((last - first, dim), np.float32)
    bits, earlier = np.zeros(last - first, np.uint8), np.zeros(world, np.int64)
    count_of_ranks(read_only(rows.slice_bits), slices_of_rank(rows.num_slices, world), first, bits, earlier)

    def work(start: int, stop: int) -> None:
        places = [
            earlier[rank] + np.count_nonzero(bits[:start] >> np.uint8(rank) & np.uint8(1)) for rank in range(world)
        ]
        add_parts(bits, np.array(places, np.int64), parts, start, stop, total)

    run_ranges(work, last - first, min_range=_FEWEST_ROWS)
    return total


class RowExchange:
    """The exchange of one group of ranks, with buffers that are used for every batch.

    Parameters
    ----------
    group
        The ranks.
    num_slices
        Slices of a batch.
    most_rows
        The most rows that a rank looks up in any batch (`ExchangeList.most_rows_of_a_rank`): the same on every rank.
    dim
        Width of a row.

    Raises
    ------
    ValueError
        If the slices are no whole subtrees of the ranks.
    """

    def __init__(self, group: Group, num_slices: int, most_rows: int, dim: int) -> None:
        import torch

        self._group, self._each, self._dim = group, slices_of_rank(num_slices, group.world), dim
        self._own = torch.zeros(most_rows, dim)
        self._all = torch.zeros(group.world, most_rows, dim) if group.world > 1 else self._own.unsqueeze(0)

    def fill_with_nan(self) -> None:
        """Fill the buffers with NaN, which must change no total."""
        self._own.fill_(float("nan"))
        self._all.fill_(float("nan"))

    def totals(self, rows: ExchangeList, sums: Sequence[Sums], what: str, *, needed: Flags | None = None) -> Sums:
        """The sums over all slices of the batch, the same bytes on every rank and for every number of ranks.

        Parameters
        ----------
        rows
            The list of the batch, the same on all ranks.
        sums
            One array for each slice of this rank: as for `sum_of_slices`.
        what
            The batch in words, as for `Group.all_gather`.
        needed
            Shape ``[U]``: which rows are wanted here; None for all.

        Returns
        -------
        Sums
            Shape ``[rows that are wanted, dim]``, in the order of the list.
        """
        group, world = self._group, self._group.world
        if len(sums) != self._each:
            raise ValueError(f"rank {group.rank} has {self._each} slices, and sums of {len(sums)}")
        mine = sum_of_slices(rows.bits_of_rank(group.rank, world), sums, self._dim)
        if len(mine) > len(self._own):
            raise ValueError(f"{len(mine)} rows do not fit the buffers of {len(self._own)}")
        own, every = self._own, self._all
        if world > 1:  # what this batch needs: every rank knows the most rows that one of them has
            most = rows.most_rows_of_a_rank(world)
            own, every = own[:most], every.view(-1)[: world * most * self._dim].view(world, most, self._dim)
        own.numpy()[: len(mine)] = mine
        found = group.all_gather(own, what, every).numpy() if own.numel() else every.numpy()
        total = sum_of_ranks(rows, found, 0, len(rows))
        return total if needed is None else total[needed]
