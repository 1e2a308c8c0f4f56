"""Rows in the memory of one host that all of its ranks map: once a host, whatever the number of ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from fae.artifacts.row_layout import RowLayout
from fae.distributed.group import Group
from fae.distributed.peers.shared_memory import memory_of_ranks
from fae.streaming.row_store import RowOptimizer, RowStore


def stores_of_host(group: Group, layout: RowLayout, optimizer: RowOptimizer, num_rows: Sequence[int]) -> list[RowStore]:
    """For each width this many rows with their state, zeros at first, the same memory on all ranks.

    All ranks of the host call it together.
    """
    stores = []
    for part, rows in zip(layout.groups, num_rows, strict=True):
        dim, width = part.embedding_dim, optimizer.state_width(part.embedding_dim)
        numbers = memory_of_ranks(group, rows * (dim + width) if group.is_first else 0, torch.float32)[0]
        weights = rows * dim
        stores.append(RowStore(numbers[:weights].view(rows, dim), numbers[weights:].view(rows, width)))
    return stores


class HostRows:
    """All rows of a layout, which the CPUs of all ranks look up, and each of which one rank at a time writes.

    Whatever a rank writes it says behind it (`fae.distributed.peers.host_meeting`), and before it reads a row it waits
    until all have said so: nobody writes before all have read, since ranks meet before they do.

    Attributes
    ----------
    stores
        For each width, all rows with their state.
    """

    def __init__(self, group: Group, layout: RowLayout, optimizer: RowOptimizer) -> None:
        assert group.meeting is not None
        self._group, self._meeting = group, group.meeting
        self.stores = stores_of_host(
            group, layout, optimizer, [part.num_hot_rows + part.num_cold_rows for part in layout.groups]
        )

    def await_written(self) -> None:
        """Wait until all ranks have written what they had to."""
        self._meeting.await_all()

    @contextlib.contextmanager
    def replacing(self, num_rows: int) -> Iterator[slice]:
        """Replace `num_rows` rows in the block, together with all ranks: this one those of the slice that it gets."""
        self._meeting.meet("all have read the rows that are replaced")
        rank, world = self._group.rank, self._group.world
        yield slice(num_rows * rank // world, num_rows * (rank + 1) // world)
        self._meeting.say("rows are replaced")
