"""What embeddings do on CPUs where batches are cut: cut the slices of this rank, sum rows over slices and ranks.

Every rank has all rows, wherever its placement keeps them, and stages all cold rows of a batch. Each sums the gradients
of its own slices, ranks exchange one sum for each row that they look up, and every rank steps all rows of the batch by
the same totals: so the rows stay the same bytes on all ranks, in host memory too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fae.artifacts.packed import PackedBatch
from fae.distributed.batch_slices import BatchSlice
from fae.distributed.exchange import RowExchange, Sums
from fae.distributed.group import Group
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
    """

    def __init__(self, group: Group, geometries: Sequence[GroupGeometry], slice_size: int) -> None:
        self._plan, self._group_slots = group.slices, tuple(len(geometry.slots) for geometry in geometries)
        self._exchanges = [
            RowExchange(
                group, self._plan.num_slices, len(self._plan.own) * slice_size * slots, geometry.embedding_dim
            )
            for geometry, slots in zip(geometries, self._group_slots, strict=True)
        ]  # fmt: skip
        self._kept: list[list[Sums]] = [[] for _ in geometries]
        self._slices = KeptSlices(self._plan)

    def cut(self, batch: PackedBatch) -> list[BatchSlice]:
        """The slices of this rank."""
        count, world = self._plan.num_slices, self._plan.world
        return [BatchSlice(batch, number, count, self._group_slots, world) for number in self._plan.own]

    def drop(self) -> None:
        """Forget the sums that are kept."""
        self._slices.drop()
        for sums in self._kept:
            sums.clear()

    @property
    def lacks_slices(self) -> bool:
        """Whether the sums of a slice of this rank are not kept yet."""
        return self._slices.are_missing

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
        if self._slices.begin(part.number):
            for sums in self._kept:
                sums.clear()
        for sums, own, shared, grad in zip(self._kept, kernels, part.shared_rows, grads, strict=True):
            if grad is not None:
                sums.append(own.sum_rows(part.order, shared.own_starts, shared.own_end, grad))

    def totals(
        self, batch: PackedBatch, group: int, step: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]] | None:
        """The addresses of a group of tables that any slice looks up in a batch, and the sums of their gradients.

        Parameters
        ----------
        batch
            Any slice of it.
        step
            Number of the step, for the words of an error.

        Returns
        -------
        tuple or None
            int32 ``[U]``, ascending, and float32 ``[U, D]``: the same bytes on every rank. None where the model did
            not use the group.
        """
        assert isinstance(batch, BatchSlice | RankBatch)
        if not self._kept[group]:
            return None
        listed = batch.shared_rows[group].listed
        found = self._exchanges[group].totals(listed, self._kept[group], f"the row sums of step {step}")
        return listed.unique_rows, np.ascontiguousarray(found)
