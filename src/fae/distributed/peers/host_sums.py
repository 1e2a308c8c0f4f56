"""Sums of rows over all slices, read where each rank of a host has written its own: `RowExchange` without copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fae.distributed.exchange import Sums, sum_of_ranks, sum_of_slices
from fae.distributed.exchange_lists import ExchangeList
from fae.distributed.group import Group
from fae.distributed.peers.shared_memory import memory_of_ranks
from fae.distributed.tree_sum import slices_of_rank


class HostSums:
    """The sums of all ranks of one host, in memory that all map; who calls it makes the ranks meet.

    Before a rank writes, all must have read what it wrote before; before it reads, all must have written.

    Parameters
    ----------
    group, num_slices, most_rows, dim
        As for `fae.distributed.exchange.RowExchange`; all ranks make it together.
    """

    def __init__(self, group: Group, num_slices: int, most_rows: int, dim: int) -> None:
        self._group, self._each, self._dim = group, slices_of_rank(num_slices, group.world), dim
        size = group.world * most_rows * dim
        numbers: Any = memory_of_ranks(group, size if group.is_first else 0, torch.float32)[0].numpy()
        self._parts: Sums = numbers.reshape(group.world, most_rows, dim)
        self._own: Sums = self._parts[group.rank]

    def fill_with_nan(self) -> None:
        """Fill what this rank writes with NaN, which must change no total."""
        self._own.fill(np.nan)

    def room(self, num_rows: int) -> Sums:
        """Shape ``[num_rows, dim]``: where this rank may write the sums of its only slice, to `write` them."""
        found: Sums = self._own[:num_rows]
        return found

    def write(self, rows: ExchangeList, sums: Sequence[Sums]) -> None:
        """Write the sums of the slices of this rank; nothing is copied where they are in `room` already.

        Parameters
        ----------
        rows
            The list of the batch, the same on all ranks.
        sums
            One array for each slice of this rank: as for `fae.distributed.exchange.sum_of_slices`.

        Raises
        ------
        ValueError
            If they do not fit.
        """
        if len(sums) != self._each:
            raise ValueError(f"rank {self._group.rank} has {self._each} slices, and sums of {len(sums)}")
        own = sum_of_slices(rows.bits_of_rank(self._group.rank, self._group.world), sums, self._dim)
        if len(own) > len(self._own):
            raise ValueError(f"{len(own)} rows do not fit the memory of {len(self._own)}")
        if own.ctypes.data != self._own.ctypes.data:
            self._own[: len(own)] = own

    def totals(self, rows: ExchangeList, first: int, last: int) -> Sums:
        """The sums over all slices of the rows ``[first, last)`` of the list: shape ``[last - first, dim]``."""
        return sum_of_ranks(rows, self._parts, first, last)
