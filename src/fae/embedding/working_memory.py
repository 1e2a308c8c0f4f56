"""Bytes of what is allocated beside rows and state while batches are streamed: buffers, lookups, tables.

`fae.embedding.memory_request` adds them up. Each function counts the allocations of the module or class that it names;
tests compare the sums with what a training really holds. What a step makes and drops again (activations) is not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fae.artifacts.batch_arrays import BatchSizes
from fae.artifacts.row_layout import RowLayout
from fae.core.pooling import POOLING_CODE
from fae.distributed.slice_plan import SlicePlan
from fae.kernels.geometry import GroupGeometry
from fae.kernels.input_views import group_field
from fae.streaming.counters import new_counters
from fae.streaming.input_layout import InputLayout
from fae.streaming.workers import MOST_COUNTERS

INPUT_RING_DEPTH = 8
"""Input buffers on their way to a GPU or in use there."""
ROUNDED = 512
"""Torch rounds what it allocates on a GPU to a multiple of this."""
_LOCATION_BYTES = 8
_COMMAND_BYTES = 40  # five int64
_FIXED_PIECES, _GROUP_PIECES = 5, 4  # pieces of a batch, and of each group in it: `InputTable.pieces`


class HotSetSizes(Protocol):
    """The facts of a hot set that memory depends on."""

    @property
    def batch_size(self) -> int:
        """Inputs of a batch."""
        ...

    @property
    def ring_depth(self) -> int:
        """Staging slots."""
        ...

    @property
    def staging_rows(self) -> tuple[int, ...]:
        """Most unique cold rows of a batch, per group."""
        ...

    @property
    def layout(self) -> RowLayout:
        """Tables, storage order and hot prefixes."""
        ...


def pinned(num_bytes: int) -> int:
    """Bytes that torch takes for `num_bytes` of page-locked memory: the next power of two.

    >>> [pinned(size) for size in (0, 1, 4096, 4097)]
    [0, 1, 4096, 8192]
    """
    return 1 << (num_bytes - 1).bit_length() if num_bytes else 0


def _has_mean(geometry: GroupGeometry) -> bool:
    return bool((geometry.pooling == POOLING_CODE["mean"]).any())


def gpu_lookups(geometries: Sequence[GroupGeometry], batch_size: int, splits: Sequence[BatchSizes]) -> int:
    """Bytes of `GpuRows` and its kernels: outputs, gradients, partial sums, shapes, lengths, addresses and order."""
    segments = [split.most_segments for split in splits if split.num_batches and split.most_segments]
    total = 2 * (4 * batch_size * geometries[0].num_slots + ROUNDED) if segments else 0
    for group, geometry in enumerate(geometries):
        features = len(geometry.length)
        outputs = 2 * 4 * batch_size * geometry.width
        if len(geometries) == 1:
            outputs += 2 * batch_size * geometry.width  # gradients of the fused kernels, bfloat16
        shapes = 4 * (4 * features + 2 * geometry.num_slots + geometry.lookup_pieces.size)
        counts = 4 * features * (batch_size if _has_mean(geometry) else 1)
        most = max((of_split[group][0] for of_split in segments), default=0)
        has_long = any(of_split[group][1] for of_split in segments)
        partial = 4 * geometry.embedding_dim * most if has_long else 0
        kept = geometry.length[geometry.pooling == POOLING_CODE["none"]]
        lengths = batch_size * int((8 + kept).sum())
        total += outputs + shapes + counts + partial + lengths + ROUNDED * (12 + 2 * len(kept))
    return total


def cpu_lookups(geometries: Sequence[GroupGeometry], batch_size: int) -> int:
    """Bytes of `CpuRows` and its kernels: outputs, their gradients, order, addresses, and these as rows, shapes."""
    total = 2 * 4 * batch_size * geometries[0].num_slots
    for geometry in geometries:
        features, slots = len(geometry.length), geometry.num_slots
        kept = int((geometry.pooling == POOLING_CODE["none"]).sum())
        total += batch_size * (2 * 4 * geometry.width + 8 * slots + 4 * features + 8 * kept) + 16 * slots
    return total


def row_exchanges(geometries: Sequence[GroupGeometry], batch_size: int, plan: SlicePlan, *, is_shared: bool) -> int:
    """Bytes of `RankRows`: sums that a rank sends, a row a lookup at most, and what it gets of each of several.

    Where ranks share the memory of a host (`is_shared`), those of others are read where they are.
    """
    if not plan.is_cut:
        return 0
    buffers = plan.world + 1 if plan.world > 1 and not is_shared else 1
    lookups = len(plan.own) * (batch_size // plan.num_slices)
    return sum(4 * buffers * lookups * len(each.slots) * each.embedding_dim for each in geometries)


def hybrid_lookups(geometries: Sequence[GroupGeometry], batch_size: int) -> tuple[int, int]:
    """Bytes of `HybridEmbeddings` on a GPU, and on the host, where outputs and gradients are page-locked."""
    sizes = [4 * batch_size * geometry.width for geometry in geometries]
    on_gpu = sum(2 * (size + ROUNDED) for size in sizes)
    on_host = cpu_lookups(geometries, batch_size) - 2 * sum(sizes) + 2 * sum(map(pinned, sizes))
    return on_gpu, on_host


def loose_batches(batch_size: int, num_dense: int) -> int:
    """Bytes of `make_ready`: dense features and labels of this batch and of the next one."""
    return 2 * (4 * batch_size * (num_dense + 2) + 3 * ROUNDED)


def rounded_bytes(num_inputs: int, num_dense: int) -> int:
    """Bytes of `BatchArrays.rounded_dense`, padded inputs among them."""
    return 2 * num_inputs * num_dense


def input_buffer_bytes(layout: InputLayout, splits: Sequence[BatchSizes]) -> int:
    """Bytes of one input buffer that is large enough for any batch."""
    return 4 * max((layout.num_words(split) for split in splits if split.num_batches), default=0)


def input_tables(num_groups: int, num_batches: int) -> int:
    """Bytes on the host of an `InputTable` of `num_batches`, and of what an `InputSource` makes of it."""
    header, pieces = 4 * group_field(num_groups), _FIXED_PIECES + _GROUP_PIECES * num_groups
    of_table = num_batches * (header + 24 * pieces + 8)
    return counters() + of_table + pinned(num_batches * header) + num_batches * _COMMAND_BYTES * (pieces + 3)


def locations(hot_set: HotSetSizes) -> int:
    """Bytes of the list that says where staged rows are: 8 a row of a slot."""
    return _LOCATION_BYTES * hot_set.ring_depth * sum(hot_set.staging_rows)


def transfer_buffers(hot_set: HotSetSizes, row_floats: Sequence[tuple[int, int]], *, on_gpu: bool) -> int:
    """Bytes of `TransferBuffers`: weight and state up and down, and the locations; each page-locked by itself.

    Parameters
    ----------
    row_floats
        Floats of a row's weight and of its state, per group.
    """
    total = 0
    for rows, widths in zip(hot_set.staging_rows, row_floats, strict=True):
        slots = hot_set.ring_depth * rows
        sizes = [4 * slots * width for width in widths for _ in range(2)] + [_LOCATION_BYTES * slots]
        total += sum(map(pinned, sizes) if on_gpu else sizes)
    return total


def pass_tables(hot_set: HotSetSizes, num_batches: int) -> int:
    """Bytes of a `Pass` on the host: counters of the worker threads, ends of the lists, commands of a GPU."""
    groups = len(hot_set.staging_rows)
    return counters() + num_batches * (16 * groups + 24 + _COMMAND_BYTES * (5 * groups + 4))


def marks(num_cold_rows: int) -> int:
    """Bytes of the streaming pipeline's marks: 4 a cold row, which say which batch listed it last."""
    return 4 * num_cold_rows


def counters() -> int:
    """Bytes of the counters of one stream."""
    return int(new_counters(MOST_COUNTERS, 0, 0).nbytes)
