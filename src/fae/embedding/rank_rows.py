"""What the embeddings of one of several ranks do beside those of one: cut its slice of a batch, sum rows over ranks.

Every rank has all rows, wherever its placement keeps them, and stages all cold rows of a batch. Each sums the gradients
of its own slice, ranks exchange one sum for each row that they look up, and every rank steps all rows of the batch by
the same totals: so the rows stay the same bytes on all ranks, in host memory too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fae.artifacts.packed import PackedBatch
from fae.distributed.batch_slices import BatchSlice
from fae.distributed.exchange import RowExchange
from fae.distributed.group import Group
from fae.distributed.rank_batches import RankBatch
from fae.kernels.cpu import CpuGroupKernels
from fae.kernels.geometry import GroupGeometry


class RankRows:
    """The part of one rank in the batches that embeddings stream.

    Parameters
    ----------
    group
        The ranks; each has one slice of a batch.
    batch_size
        B / W: inputs of a slice.
    """

    def __init__(self, group: Group, geometries: Sequence[GroupGeometry], batch_size: int) -> None:
        self._group, self._group_slots = group, tuple(len(geometry.slots) for geometry in geometries)
        self._exchanges = [
            RowExchange(group, group.world, batch_size * len(geometry.slots), geometry.embedding_dim)
            for geometry in geometries
        ]

    def cut(self, batch: PackedBatch) -> BatchSlice:
        """The slice of this rank."""
        return BatchSlice(batch, self._group.rank, self._group.world, self._group_slots)

    def totals(
        self, kernels: CpuGroupKernels, batch: PackedBatch, group: int, grad: npt.NDArray[np.float32], step: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The addresses of a group of tables that any rank looks up in a batch, and the sums of their gradients.

        Parameters
        ----------
        kernels
            Those that have looked the slice up.
        batch
            Its slice on this rank, cut here or ahead of a stream (`fae.distributed.rank_batches`).
        grad
            float32 ``[B / W, W]``: gradients of the group's output on this rank.
        step
            Number of the step, for the words of an error.

        Returns
        -------
        tuple
            int32 ``[U]``, ascending, and float32 ``[U, D]``: the same bytes on every rank.
        """
        assert isinstance(batch, BatchSlice | RankBatch)
        assert batch.order is not None
        shared = batch.shared_rows[group]
        sums = kernels.sum_rows(batch.order, shared.own_starts, shared.own_end, grad)
        found = self._exchanges[group].totals(shared.listed, [sums], f"the row sums of step {step}")
        return shared.listed.unique_rows, np.ascontiguousarray(found)
