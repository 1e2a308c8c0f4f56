"""What embeddings do on CPUs where batches are cut: cut the slices of this rank, sum rows over slices and ranks.

Each rank sums the gradients of its own slices, and all exchange one sum for each row that they look up: on one host
each writes them where the others read them. Where every rank has all rows, wherever its placement keeps them, it steps
all rows of the batch by the same totals, so the rows stay the same bytes on all ranks, in host memory too. Where they
have the rows of a host together (`fae.embedding.ranks.host_rows`), rank r of W steps the r-th part of the batch's list.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from fae.artifacts.packed import BatchSet, PackedBatch
from fae.distributed.batch_slices import BatchSlice
from fae.distributed.exchange import RowExchange, Sums
from fae.distributed.exchange_lists import ExchangeList
from fae.distributed.group import Group
from fae.distributed.peers.host_sums import HostSums
from fae.distributed.rank_batches import RankBatch
from fae.distributed.slice_plan import KeptSlices
from fae.kernels.cpu import CpuGroupKernels
from fae.kernels.geometry import GroupGeometry


class RankRows:
    """The part of one rank in the batches that embeddings stream.

    Parameters
    ----------
    group
        The ranks; each has one slice of a batch, or several.
    slice_size
        B / S: inputs of a slice.

    Attributes
    ----------
    slices
        Those of the batch that is trained, of this rank, whose sums are kept.
    """

    def __init__(self, group: Group, geometries: Sequence[GroupGeometry], slice_size: int) -> None:
        self._plan, self._group_slots = group.slices, tuple(len(geometry.slots) for geometry in geometries)
        sizes = [
            (len(self._plan.own) * slice_size * slots, geometry.embedding_dim)
            for geometry, slots in zip(geometries, self._group_slots, strict=True)
        ]
        self._meeting, self._shared, self._exchanges = group.meeting, list[HostSums](), list[RowExchange]()
        if self._meeting is None:
            self._exchanges = [RowExchange(group, self._plan.num_slices, *size) for size in sizes]
        else:
            self._shared = [HostSums(group, self._plan.num_slices, *size) for size in sizes]
        self._has_rows_together = False
        self._kept: list[list[Sums]] = [[] for _ in geometries]
        self.slices = KeptSlices(self._plan)

    def have_rows_together(self) -> None:
        """Let each rank step its part of a batch's rows alone, since all ranks have the same memory of rows."""
        assert self._meeting is not None
        self._has_rows_together = True

    def cut_ahead(self, batches: BatchSet, order: Sequence[int]) -> Generator[Sequence[PackedBatch], None, None]:
        """The slices of this rank of these batches, in this order; a thread cuts the next batch meanwhile."""
        # A pass over the order of a whole batch, on one thread: what ranks do not share.
        with ThreadPoolExecutor(1, thread_name_prefix="fae-cut") as cutter:
            ahead: Future[list[BatchSlice]] | None = None
            for index, following in zip(order, [*order[1:], None], strict=True):
                slices = self._cut(batches, index) if ahead is None else ahead.result()
                ahead = None if following is None else cutter.submit(self._cut, batches, following)
                yield slices

    def _cut(self, batches: BatchSet, index: int) -> list[BatchSlice]:
        batch, count, world = batches.batch(index), self._plan.num_slices, self._plan.world
        order = batch.order  # joined once where it is stored in planes
        slices = [BatchSlice(batch, number, count, self._group_slots, world, order) for number in self._plan.own]
        for each in slices if batch.is_ordered else ():
            assert each.shared_rows is not None  # cut now
        return slices

    def drop(self) -> None:
        """Forget the sums that are kept."""
        self.slices.drop()
        self._clear()

    def _clear(self) -> None:
        for sums in self._kept:
            sums.clear()

    def keep(
        self, kernels: Sequence[CpuGroupKernels], part: PackedBatch, grads: Sequence[npt.NDArray[np.float32] | None]
    ) -> None:
        """Sum the gradients of one slice by row, and keep the sums; slices come in their order.

        Parameters
        ----------
        kernels
            Those of each group of tables, which have looked the slice up.
        grads
            For each group float32 ``[B / S, W]``: gradients of its output; None where the model did not use it.

        Raises
        ------
        RuntimeError
            If another slice comes next.
        """
        assert isinstance(part, BatchSlice | RankBatch)
        assert part.order is not None
        if self.slices.begin(part.number):
            self._clear()
            if self._meeting is not None:
                self._meeting.await_all()  # they have read the sums of the batch before
        for group, (own, shared, grad) in enumerate(zip(kernels, part.shared_rows, grads, strict=True)):
            if grad is not None:
                is_in_place = self._shared and len(self._plan.own) == 1
                out = self._shared[group].room(len(shared.own_starts)) if is_in_place else None
                self._kept[group].append(own.sum_rows(part.order, shared.own_starts, shared.own_end, grad, out))

    def send(self, batch: PackedBatch, what: str) -> None:
        """Let all ranks read the sums that are kept, and wait until all have done so, where they share memory.

        Parameters
        ----------
        batch
            Any slice of it.
        what
            The sums in words, as for `Group.all_gather`.
        """
        if self._meeting is None:
            return
        for group, shared in enumerate(self._shared):
            if self._kept[group]:
                shared.write(_listed(batch, group), self._kept[group])
        self._meeting.meet(what)

    def totals(
        self, batch: PackedBatch, group: int, what: str
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]] | None:
        """The addresses that this rank steps of a group of tables in a batch, and the sums of their gradients.

        Parameters
        ----------
        batch, what
            As for `send`, which comes before.

        Returns
        -------
        tuple or None
            int32 ``[n]``, ascending, and float32 ``[n, D]``, the same bytes on every rank that steps the row. None
            where the model did not use the group.
        """
        if not self._kept[group]:
            return None
        listed = _listed(batch, group)
        if self._meeting is None:
            found = self._exchanges[group].totals(listed, self._kept[group], what)
            return listed.unique_rows, np.ascontiguousarray(found)
        first, last = 0, len(listed)
        if self._has_rows_together:
            first, last = (last * rank // self._plan.world for rank in (self._plan.rank, self._plan.rank + 1))
        return listed.unique_rows[first:last], self._shared[group].totals(listed, first, last)

    def end_step(self, what: str) -> None:
        """Say that this rank has stepped its rows, and has read the sums of all; forget those that are kept."""
        self.drop()
        if self._meeting is not None:
            self._meeting.say(what)


def _listed(batch: PackedBatch, group: int) -> ExchangeList:
    assert isinstance(batch, BatchSlice | RankBatch)
    return batch.shared_rows[group].listed
