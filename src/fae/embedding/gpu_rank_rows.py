"""What the embeddings of one of several ranks do on a GPU beside those of one: cut slices, sum rows over ranks.

Every rank has all rows. Each sums the gradients of its own slice into a buffer that all can read; each reads those of
all, adds them in one tree, and steps every row of the batch in its own bank. On up to 4 GPUs that moves no more bytes
than one owner of each row would, which read the sums of all and wrote the new row to all; and no state is moved.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.distributed.group import Group
from fae.distributed.peer_buffers import PeerBuffer, peer_buffer
from fae.distributed.rank_batches import SEGMENT_LOOKUPS, RankBatches
from fae.kernels.geometry import GroupGeometry
from fae.kernels.input_views import InputViews
from fae.kernels.triton_rows import TritonGroupKernels
from fae.kernels.triton_shared import require_slices
from fae.streaming.row_store import RowOptimizer, RowStore


class GpuRankRows:
    """The part of one rank in the batches of one layout, on a GPU.

    Parameters
    ----------
    group
        The ranks; each has one slice of a batch.

    Raises
    ------
    ValueError
        If there are not 2, 4 or 8.
    """

    def __init__(
        self,
        group: Group,
        layout: RowLayout,
        geometries: Sequence[GroupGeometry],
        optimizer: RowOptimizer,
        device: torch.device,
    ) -> None:
        require_slices(group.world)
        self._group, self._layout, self._geometries, self._optimizer = group, layout, geometries, optimizer
        self._device = device
        self._batches = RankBatches(group.rank, group.world, [len(geometry.slots) for geometry in geometries])
        self._buffers: list[PeerBuffer] = []
        none = [0] * len(geometries)
        self._most_own, self._most_further, self._most_long, self._most_rows = none[:], none[:], none[:], none[:]

    def cut(self, batches: BatchSet) -> BatchSet:
        """The slices of this rank of a split."""
        return self._batches.of(batches)

    def reserve(self, slices: BatchSet) -> bool:
        """Make room for the sums of these slices; all ranks call it together.

        Returns
        -------
        Whether graphs that were captured before are out of date.
        """
        shared = slices.arrays.shared
        if shared is None or shared.offsets is None:
            return False
        before = (self._most_own[:], self._most_further[:], self._most_long[:], self._most_rows[:])
        most_further = [further for _, _, further in slices.most_shared]
        every = self._group.gather_json(most_further, "the most further segments")  # buffers have one size on all ranks
        for group, (rows, _, further) in enumerate(slices.most_shared):
            self._most_rows[group] = max(self._most_rows[group], rows)
            self._most_own[group] = max(self._most_own[group], shared.most_own_rows[group])
            self._most_further[group] = max(self._most_further[group], further, *(most[group] for most in every))
            self._most_long[group] = max(self._most_long[group], slices.most_segments[group][1])
        changed = before != (self._most_own, self._most_further, self._most_long, self._most_rows)
        # Sizes that are the same on all ranks decide, so that all make buffers or none does. There is always one: by it
        # ranks wait for each other.
        if not self._buffers or before[:2] != (self._most_own, self._most_further):
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            self._group.barrier("the end of what reads row sums")
            self._buffers = []
            self._buffers = [
                peer_buffer(
                    self._group, (own + further) * geometry.embedding_dim, self._device, channel=group,
                    what=f"the row sums of group {group}",
                )
                for group, (own, further, geometry) in enumerate(
                    zip(self._most_own, self._most_further, self._geometries, strict=True)
                )
            ]  # fmt: skip
        return changed

    def begin_step(self) -> None:
        """Wait, on the current stream, until all ranks have read what this one wrote in the step before."""
        self._buffers[0].await_all()

    def update(
        self, group: int, kernels: TritonGroupKernels, inputs: InputViews, cold_lists: Tensor, bank: RowStore,
        gradient: Tensor,
    ) -> None:  # fmt: skip
        """Sum the gradients of the batch by row and over ranks, and apply the optimizer.

        Parameters
        ----------
        group
            Number of the group of tables.
        cold_lists, gradient
            As `TritonGroupKernels.update` takes them.
        """
        if not self._most_rows[group]:  # on any rank
            return
        buffer, optimizer = self._buffers[group], self._optimizer
        kernels.sum_slice(
            inputs, gradient, buffer.own, segment_lookups=SEGMENT_LOOKUPS, most_rows=self._most_own[group],
            most_further=self._most_further[group], most_long_rows=self._most_long[group],
        )  # fmt: skip
        buffer.share()
        kernels.step_shared(
            inputs, cold_lists, self._layout.groups[group].num_hot_rows, bank.weight, bank.state, buffer.pointers,
            optimizer.eps, optimizer.betas, most_rows=self._most_rows[group], decays=optimizer.weight_decay > 0,
        )  # fmt: skip
