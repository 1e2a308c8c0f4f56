"""Cold rows that are spread over the GPUs of several ranks: each GPU owns some, and pulls what its slice looks up.

Cold row i (row H + i of the layout) is row i / W of rank i mod W, its owner. Before a lookup every rank copies the
cold rows of its slice, once each, to the places behind its hot rows. The sums of their gradients go the way of those of
hot rows, but the owner alone adds them and steps the row, so state is nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fae.artifacts.row_layout import RowLayout
from fae.distributed.group import Group
from fae.distributed.peer_rows import PeerRows
from fae.kernels.input_views import InputViews
from fae.kernels.triton_rows import TritonGroupKernels
from fae.streaming.row_store import RowOptimizer, RowStore


@dataclass(frozen=True)
class Share:
    """The cold rows of one group that one rank owns.

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
    """The cold rows of all groups, of which this rank owns some.

    Parameters
    ----------
    pulled_rows
        For each group, the most cold rows of a batch: places behind the hot rows.

    Attributes
    ----------
    owner
        r and W.
    own
        For each group, the rows that this rank owns.
    shares
        For each group, the rows that each rank owns.

    Raises
    ------
    CommonFault
        If the GPUs do not read each other's memory.
    """

    def __init__(
        self,
        group: Group,
        layout: RowLayout,
        optimizer: RowOptimizer,
        pulled_rows: Sequence[int],
        device: torch.device,
    ) -> None:
        self._group, self._pulled_rows, self._on_gpu = group, tuple(pulled_rows), device.type == "cuda"
        self.owner = (group.rank, group.world)
        self._hot_rows = [part.num_hot_rows for part in layout.groups]
        self.shares = []
        for part in layout.groups:
            rows, width = -(-part.num_cold_rows // group.world), optimizer.state_width(part.embedding_dim)
            memory = PeerRows(group, rows * (part.embedding_dim + width), device)
            self.shares.append(Share(memory, rows, part.embedding_dim, width))
        self.own = [share.of(group.rank) for share in self.shares]

    def place_end(self, group: int) -> int:
        """H and the places for pulled rows: rows of the bank."""
        return self._hot_rows[group] + self._pulled_rows[group]

    def pull(
        self, kernels: Sequence[TritonGroupKernels], inputs: InputViews, banks: Sequence[RowStore], *, of_slice: bool
    ) -> None:
        """Copy, on the current stream, the cold rows of a slice, or of a whole batch, to their places.

        Ranks on GPUs have met in a barrier on that stream, behind what stepped rows; those of CPUs meet here.
        """
        if not self._on_gpu:
            self._group.barrier("all rows are stepped")
        for group, (each, bank) in enumerate(zip(kernels, banks, strict=True)):
            if self._pulled_rows[group]:
                each.pull(
                    inputs, self._hot_rows[group], bank.weight, self.shares[group].memory.pointers,
                    self._pulled_rows[group], of_slice=of_slice,
                )  # fmt: skip

    def say_written(self) -> None:
        """Say, in the order of the current stream, that own rows are written; all ranks say so as often."""
        for share in self.shares:
            share.memory.say_written()

    def await_written(self) -> None:
        """Wait, on the host, until all ranks have said so as often as this one has."""
        for share in self.shares:
            share.memory.await_written()
