"""Cold rows of one host that ranks on GPUs stage for each other: each those that it owns, which the others pull.

All cold rows are in one memory of the host, which all ranks map. A rank stages, and writes back, only rows that it
owns: cold row i where i mod W is its number. So no two ranks write one row, and each moves 1 / W of a batch's cold rows
over its bus. Before a lookup a rank copies the staged rows that it owns, from wherever in the ring they are, into a
buffer that all read, and pulls the rows of its slice out of the buffers of all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fae.artifacts.row_layout import RowLayout
from fae.distributed.group import Group
from fae.distributed.peers import peer_buffers
from fae.distributed.peers.shared_memory import memory_of_ranks
from fae.distributed.peers.written_words import WrittenWords
from fae.distributed.rank_batches import Owned
from fae.embedding.ranks.host_rows import stores_of_host
from fae.kernels.input_views import InputViews
from fae.kernels.triton_rows import TritonGroupKernels
from fae.streaming.row_store import RowOptimizer, RowStore


class OwnedHostRows:
    """The cold rows of all groups in the memory of one host, mapped by all of its ranks.

    Attributes
    ----------
    stores
        For each group, all cold rows with their state; a rank writes those that it owns.
    written
        Says that they are written.
    """

    def __init__(self, group: Group, layout: RowLayout, optimizer: RowOptimizer) -> None:
        self._group = group
        self.stores = stores_of_host(group, layout, optimizer, [part.num_cold_rows for part in layout.groups])
        self.written = WrittenWords(memory_of_ranks(group, 1, torch.int64), group.rank)

    def owns(self, numbers: Tensor) -> Tensor:
        """Which of these cold rows (numbers from 0) this rank owns."""
        return numbers % self._group.world == self._group.rank


class StagedShares:
    """`fae.embedding.ranks.cold_owners.ColdOwners` whose rows are in staging slots of their owners.

    Parameters
    ----------
    slot_rows
        For each group, rows of a staging slot, which are the most cold rows of a batch.
    stores
        For each group, the bank as staging numbers it: H rows, then slots.
    """

    owned: Owned = "batch"

    def __init__(
        self,
        group: Group,
        layout: RowLayout,
        slot_rows: Sequence[int],
        stores: Sequence[RowStore],
        device: torch.device,
    ) -> None:
        self._slot_rows, self.stores = tuple(slot_rows), list(stores)
        self._hot_rows = [part.num_hot_rows for part in layout.groups]
        self.places_end = [hot + rows for hot, rows in zip(self._hot_rows, self._slot_rows, strict=True)]
        self._offered = [
            peer_buffers.peer_buffer(
                group, rows * part.embedding_dim, device, channel=number, what=f"the staged rows of group {number}"
            )
            for number, (rows, part) in enumerate(zip(self._slot_rows, layout.groups, strict=True))
        ]

    def offer(self, kernels: Sequence[TritonGroupKernels], inputs: InputViews, cold_lists: Sequence[Tensor]) -> None:
        """As `fae.embedding.ranks.cold_owners.ColdOwners.offer`."""
        for group, (each, offered) in enumerate(zip(kernels, self._offered, strict=True)):
            if self._slot_rows[group]:
                each.offer(
                    inputs, cold_lists[group], self.stores[group].weight, offered.own, self._slot_rows[group]
                )  # fmt: skip
                offered.send()

    def pull(
        self, kernels: Sequence[TritonGroupKernels], inputs: InputViews, banks: Sequence[RowStore], *, of_slice: bool
    ) -> None:
        """As `fae.embedding.ranks.cold_owners.ColdOwners.pull`."""
        for group, (each, bank) in enumerate(zip(kernels, banks, strict=True)):
            if self._slot_rows[group]:
                each.pull(
                    inputs, self._hot_rows[group], bank.weight, self._offered[group].pointers, self._slot_rows[group],
                    of_slice=of_slice,
                )  # fmt: skip

    def begin_evaluation(self) -> None:
        """As `fae.embedding.ranks.cold_owners.ColdOwners.begin_evaluation`."""
        self.meet()

    def meet(self) -> None:
        """As `fae.embedding.ranks.cold_owners.ColdOwners.meet`; one buffer is enough for all."""
        self._offered[0].await_all()

    def say_written(self) -> None:
        """Nothing: rows are written when a stream has ended, which says so."""
