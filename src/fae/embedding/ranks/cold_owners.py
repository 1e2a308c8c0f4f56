"""Cold rows of which each has one owner among the ranks on GPUs: what lookups and updates need of their placement.

Cold row i (row H + i of the layout) is one of rank i mod W, its owner. Before a lookup every rank copies the cold rows
of its slice, once each, to places behind its hot rows. The sums of their gradients go the way of those of hot rows, but
the owner alone adds them and steps the row, so its state is nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from fae.distributed.rank_batches import Owned
from fae.kernels.input_views import InputViews
from fae.kernels.triton_rows import TritonGroupKernels
from fae.streaming.row_store import RowStore


class ColdOwners(Protocol):
    """The cold rows of all groups, of which this rank owns some.

    Attributes
    ----------
    owned
        What a place numbers, as `fae.distributed.rank_batches.RankBatches` takes it.
    stores
        For each group, in what kernels find and step the rows that this rank owns.
    places_end
        For each group, H and the places for pulled rows: rows of the bank that lookups read.
    """

    owned: Owned
    stores: list[RowStore]
    places_end: list[int]

    def offer(self, kernels: Sequence[TritonGroupKernels], inputs: InputViews, cold_lists: Sequence[Tensor]) -> None:
        """Before a barrier: let all ranks read the rows of a batch that this one owns, on the current stream."""

    def pull(
        self, kernels: Sequence[TritonGroupKernels], inputs: InputViews, banks: Sequence[RowStore], *, of_slice: bool
    ) -> None:
        """Behind the barrier: copy the cold rows of a slice, or of a whole batch, to their places."""

    def begin_evaluation(self) -> None:
        """Before `offer` of a batch that is not trained: all ranks have pulled what was offered before."""

    def meet(self) -> None:
        """The barrier between `offer` and `pull`, where no part of a step is one."""

    def say_written(self) -> None:
        """Say, in the order of the current stream, that the rows that this rank owns are stepped."""


def pull_whole_batch(
    owners: ColdOwners,
    kernels: Sequence[TritonGroupKernels],
    inputs: InputViews,
    cold_lists: Sequence[Tensor],
    banks: Sequence[RowStore],
) -> None:
    """Copy all cold rows of a batch that is not trained to their places, on the current stream."""
    owners.begin_evaluation()
    owners.offer(kernels, inputs, cold_lists)
    owners.meet()
    owners.pull(kernels, inputs, banks, of_slice=False)
