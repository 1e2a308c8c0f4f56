"""Cold rows that are spread over the GPUs of several ranks: cold row i is row i / W of what rank i mod W has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fae.artifacts.row_layout import RowLayout
from fae.distributed.group import Group
from fae.distributed.peers.peer_rows import PeerRows
from fae.distributed.rank_batches import Owned
from fae.kernels.input_views import InputViews
from fae.kernels.triton_rows import TritonGroupKernels
from fae.streaming.row_store import RowOptimizer, RowStore


@dataclass(frozen=True)
class OwnedRows:
    """The cold rows of one group that each rank owns.

    Attributes
    ----------
    memory
        Those of all ranks.
    num_rows
        Rows of a rank: the number of cold rows divided by W, rounded up.
    dim, width
        Floats of a row and of its state.
    """

    memory: PeerRows
    num_rows: int
    dim: int
    width: int

    def of(self, rank: int) -> RowStore:
        """The rows of a rank, of which only its own are to be written."""
        numbers, weights = self.memory.of(rank), self.num_rows * self.dim
        return RowStore(
            numbers[:weights].view(self.num_rows, self.dim), numbers[weights:].view(self.num_rows, self.width)
        )


class SpreadRows:
    """`fae.embedding.ranks.cold_owners.ColdOwners` whose rows are on the GPUs of their owners, and are read there.

    Parameters
    ----------
    pulled_rows
        For each group, the most cold rows of a batch: places behind the hot rows.

    Attributes
    ----------
    shares
        For each group, the rows of all ranks.

    Raises
    ------
    CommonFault
        If the GPUs do not read each other's memory.
    """

    owned: Owned = "share"

    def __init__(
        self,
        group: Group,
        layout: RowLayout,
        optimizer: RowOptimizer,
        pulled_rows: Sequence[int],
        device: torch.device,
    ) -> None:
        self._group, self._pulled_rows, self._on_gpu = group, tuple(pulled_rows), device.type == "cuda"
        self._hot_rows = [part.num_hot_rows for part in layout.groups]
        self.places_end = [hot + pulled for hot, pulled in zip(self._hot_rows, self._pulled_rows, strict=True)]
        self.shares = []
        for part in layout.groups:
            rows, width = -(-part.num_cold_rows // group.world), optimizer.state_width(part.embedding_dim)
            memory = PeerRows(group, rows * (part.embedding_dim + width), device)
            self.shares.append(OwnedRows(memory, rows, part.embedding_dim, width))
        self.stores = [share.of(group.rank) for share in self.shares]

    def offer(self, kernels: Sequence[TritonGroupKernels], inputs: InputViews, cold_lists: Sequence[Tensor]) -> None:
        """Nothing: rows are read where they are."""

    def pull(
        self, kernels: Sequence[TritonGroupKernels], inputs: InputViews, banks: Sequence[RowStore], *, of_slice: bool
    ) -> None:
        """As `fae.embedding.ranks.cold_owners.ColdOwners.pull`; ranks of CPUs meet here."""
        if not self._on_gpu:
            self._group.barrier("all rows are stepped")
        for group, (each, bank) in enumerate(zip(kernels, banks, strict=True)):
            if self._pulled_rows[group]:
                each.pull(
                    inputs, self._hot_rows[group], bank.weight, self.shares[group].memory.pointers,
                    self._pulled_rows[group], of_slice=of_slice,
                )  # fmt: skip

    def begin_evaluation(self) -> None:
        """Nothing: no row is stepped meanwhile."""

    def meet(self) -> None:
        """Nothing: rows have been written (`await_written`) before an evaluation begins."""

    def say_written(self) -> None:
        """As `fae.embedding.ranks.cold_owners.ColdOwners.say_written`."""
        for share in self.shares:
            share.memory.written.say()

    def await_written(self) -> None:
        """Wait, on the host, until all ranks have said so as often as this one has."""
        for share in self.shares:
            share.memory.written.wait()
