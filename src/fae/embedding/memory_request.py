"""What the memory of any placement depends on, and the parts that several placements share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from fae.artifacts.batch_arrays import BatchSizes
from fae.core.optimizers import row_bytes, state_width
from fae.distributed.group import Group
from fae.distributed.slice_plan import SlicePlan
from fae.embedding.ranks.rank_memory import SliceSizes
from fae.embedding.working_memory import (
    INPUT_RING_DEPTH,
    ROUNDED,
    HotSetSizes,
    cpu_lookups,
    gpu_lookups,
    hybrid_lookups,
    input_buffer_bytes,
    input_tables,
    loose_batches,
    pinned,
    rounded_bytes,
    row_exchanges,
)
from fae.kernels.geometry import GroupGeometry, group_geometries
from fae.streaming.input_layout import InputLayout


@dataclass(frozen=True, kw_only=True)
class InputMemory:
    """Bytes for batches on their way to a GPU; all 0 where there is none.

    Attributes
    ----------
    device
        Input buffers on the device.
    host
        Page-locked buffers of the same number in host memory, the slices of one of several ranks, and dense features
        in bfloat16.
    tables
        Tables of a stream in host memory.
    """

    device: int = 0
    host: int = 0
    tables: int = 0


@dataclass(frozen=True, kw_only=True)
class MemoryRequest:
    """What the memory of any placement depends on, and the parts that several placements share.

    Attributes
    ----------
    optimizer
        Name of the row optimizer.
    splits
        The batches that will be streamed; the largest one sizes the input buffers.
    on_gpu
        Whether the device is a GPU, whose batches go through input buffers.
    dense_bytes
        Bytes of the dense weights, their gradients and optimizer state: `fae.training.dense.dense_bytes`.
    world
        Ranks that train together, each on its slices of a batch; what is planned is that of one of them.
    num_hosts
        Hosts whose sums go to one another as wholes (`fae.distributed.slice_plan.SlicePlan`).
    reproducible
        Whether a batch has 8 slices.
    have_rows_together
        Whether ranks of a host have the cold rows together on GPUs (`fae.embedding.tiered.shares_cold_rows`).
    rounds_dense
        Whether dense features go to a GPU in bfloat16, rounded before in host memory.
    shares_host
        Whether all ranks are processes of one host that share its memory (`fae.distributed.group.Group.meeting`).
    """

    hot_set: HotSetSizes
    optimizer: str
    splits: Sequence[BatchSizes]
    on_gpu: bool
    dense_bytes: int = 0
    world: int = 1
    num_hosts: int = 1
    reproducible: bool = False
    have_rows_together: bool = True
    shares_host: bool = True
    rounds_dense: bool = False

    @cached_property
    def geometries(self) -> tuple[GroupGeometry, ...]:
        """Shape of the lookups of each group."""
        layout = self.hot_set.layout
        return group_geometries(
            [feature.length for feature in layout.model_features],
            [feature.pooling for feature in layout.model_features],
            layout.feature_dims,
        )  # fmt: skip

    @property
    def most_batches(self) -> int:
        """Batches of the largest split."""
        return max(split.num_batches for split in self.splits)

    @property
    def row_floats(self) -> list[tuple[int, int]]:
        """Floats of a row's weight and of its state, per group."""
        dims = [group.embedding_dim for group in self.hot_set.layout.groups]
        return [(dim, state_width(self.optimizer, dim)) for dim in dims]

    def _rows(self, counts: Sequence[int]) -> int:
        groups = self.hot_set.layout.groups
        return sum(
            row_bytes(self.optimizer, group.embedding_dim) * rows for group, rows in zip(groups, counts, strict=True)
        )

    @property
    def hot_rows(self) -> int:
        """Bytes of the hot rows with their state."""
        return self._rows([group.num_hot_rows for group in self.hot_set.layout.groups])

    @property
    def cold_rows(self) -> int:
        """Bytes of the cold rows with their state."""
        return self._rows([group.num_cold_rows for group in self.hot_set.layout.groups])

    @property
    def staging_slots(self) -> int:
        """Bytes of the staging slots with their state."""
        return self._rows([self.hot_set.ring_depth * rows for rows in self.hot_set.staging_rows])

    @property
    def pulled_rows(self) -> int:
        """Bytes of the most cold rows of a batch, without state."""
        groups = self.hot_set.layout.groups
        return sum(4 * part.embedding_dim * rows for part, rows in zip(groups, self.hot_set.staging_rows, strict=True))

    def of_host(self, size: int) -> int:
        """Bytes of a rank's part in what all ranks of a host have once; `size` where each has it."""
        return -(-size // self.world) if self.shares_host else size

    @property
    def _exchanges(self) -> int:
        return row_exchanges(self.geometries, self.hot_set.batch_size, self._plan, is_shared=self.shares_host)

    @property
    def cpu_work(self) -> int:
        """Bytes of lookups by the CPU kernels, of one slice after the other, and of what ranks exchange."""
        size = self.hot_set.batch_size // self._plan.num_slices
        return cpu_lookups(self.geometries, size) + self._exchanges

    @property
    def loose_batches(self) -> int:
        """Bytes of batches that do not go through input buffers."""
        return loose_batches(len(self._plan.own) * self._slice_size, self.splits[0].num_dense)

    @property
    def device_work(self) -> int:
        """Bytes on the device of lookups that its own kernels do, and of the dense weights."""
        if not self.on_gpu:
            return self.dense_bytes + self.cpu_work + self.loose_batches
        of_rings = ROUNDED * (len(self._plan.own) * INPUT_RING_DEPTH + 3 * len(self.geometries))
        sums = sum(split.sum_bytes for split in self._slices)
        if self.num_hosts > 1:
            sums += sum(split.host_sum_bytes for split in self._slices) + 2 * ROUNDED * len(self.geometries)
        return self.dense_bytes + gpu_lookups(self.geometries, self._slice_size, self._own_splits) + of_rings + sums

    @property
    def host_ranks(self) -> int:
        """Ranks of a host."""
        return self.world // self.num_hosts

    @property
    def gathered_sums(self) -> int:
        """Bytes on the device of the row sums of all ranks, where a collective copies them (`Group.wire`)."""
        return self.world * sum(split.sum_bytes for split in self._slices)

    @property
    def _plan(self) -> SlicePlan:
        return replace(Group(world=self.world, reproducible=self.reproducible).slices, num_hosts=self.num_hosts)

    @property
    def _slice_size(self) -> int:
        return self.hot_set.batch_size // self._plan.num_slices

    @property
    def _slices(self) -> list[SliceSizes]:
        """Sizes of the slices of each split; empty where batches are whole."""
        if not self._plan.is_cut:
            return []
        return [SliceSizes(split, self.geometries, self._slice_size, self._plan) for split in self.splits]

    @property
    def _own_splits(self) -> Sequence[BatchSizes]:
        return self._slices or self.splits

    @property
    def _rounded_bytes(self) -> int:
        """Bytes of host memory of the dense features in bfloat16 that this rank sends."""
        if not self.rounds_dense:
            return 0
        inputs = len(self._plan.own) * self._slice_size * sum(split.num_batches for split in self.splits)
        return rounded_bytes(inputs, self.splits[0].num_dense)

    @property
    def hybrid_work(self) -> tuple[int, int]:
        """Bytes on the device and on the host of lookups by the CPU for a model on the device, and of exchanges."""
        if not self.on_gpu:
            return 0, self.cpu_work
        on_gpu, on_host = hybrid_lookups(self.geometries, self._slice_size)
        return on_gpu, on_host + self._exchanges

    def input_memory(self, *, with_cold_lists: bool, with_places: bool = False) -> InputMemory:
        """What batches on their way take, with the lists of their cold rows, with the places of these, or without."""
        if not self.on_gpu:
            return InputMemory()
        layout = InputLayout(
            batch_size=self._slice_size,
            num_slots=self.hot_set.layout.num_slots,
            num_dense=self.splits[0].num_dense,
            num_groups=len(self.geometries),
            with_cold_lists=with_cold_lists,
            with_weights=self.splits[0].is_weighted,
            of_slices=self._plan.is_cut,
            rounds_dense=self.rounds_dense,
        )
        of_ranks = [replace(split, with_places=with_places) for split in self._slices]
        size, slices = input_buffer_bytes(layout, of_ranks or self.splits), sum(split.num_bytes for split in of_ranks)
        own = len(self._plan.own)
        return InputMemory(
            device=own * INPUT_RING_DEPTH * size,
            host=own * INPUT_RING_DEPTH * pinned(size) + slices + self._rounded_bytes,
            tables=own * input_tables(len(self.geometries), self.most_batches),
        )
