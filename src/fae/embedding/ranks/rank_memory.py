"""Memory of slices on a GPU, as a bound: how they share rows is known only when they are cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fae.artifacts.batch_arrays import BatchSizes
from fae.artifacts.stored.order_planes import order_bytes
from fae.distributed.rank_batches import SEGMENT_LOOKUPS
from fae.distributed.slice_plan import SlicePlan
from fae.kernels.geometry import GroupGeometry
from fae.kernels.input_views import BLOCK_ROWS


@dataclass(frozen=True)
class SliceSizes:
    """The sizes of the slices of a split, none smaller than they can be (`fae.artifacts.batch_arrays.BatchSizes`).

    Attributes
    ----------
    whole
        The split.
    geometries
        Shapes of the groups of tables.
    slice_size
        B / S.
    plan
        S, and the slices of a rank.
    with_places
        Whether input buffers have the places of a batch's cold rows.
    """

    whole: BatchSizes
    geometries: Sequence[GroupGeometry]
    slice_size: int
    plan: SlicePlan
    with_places: bool = False

    @property
    def num_batches(self) -> int:
        """Batches of the split."""
        return self.whole.num_batches

    @property
    def num_dense(self) -> int:
        """K: dense features of an input."""
        return self.whole.num_dense

    @property
    def is_weighted(self) -> bool:
        """Whether inputs have weights."""
        return self.whole.is_weighted

    @property
    def most_segments(self) -> tuple[tuple[int, int], ...]:
        """Per group: most rows, and most long rows, of a slice."""
        return tuple(
            (min(rows, lookups), min(long_rows, lookups // SEGMENT_LOOKUPS))
            for (rows, long_rows), lookups in zip(self.whole.most_segments, self._lookups, strict=False)
        )

    @property
    def most_cold_rows(self) -> tuple[int, ...]:
        """Per group: most unique cold rows of a whole batch."""
        return self.whole.most_cold_rows

    @property
    def most_shared(self) -> tuple[tuple[int, int, int, int], ...]:
        """Per group: most rows of all slices, counts of their blocks, further segments of long rows, and places."""
        lookups = self._lookups
        segments = self.whole.most_segments or ((0, 0),) * len(lookups)
        most_further = [each // SEGMENT_LOOKUPS if self.whole.most_segments else 0 for each in lookups]
        places = self.whole.most_cold_rows if self.with_places else (0,) * len(lookups)
        columns = self.plan.num_slices + (self.plan.num_hosts if self.plan.num_hosts > 1 else 0)
        return tuple(
            (rows, -(-rows // BLOCK_ROWS) * columns, further, cold)
            for (rows, _), further, cold in zip(segments, most_further, places, strict=True)
        )

    @property
    def _lookups(self) -> list[int]:
        return [self.slice_size * len(geometry.slots) for geometry in self.geometries]

    @property
    def num_bytes(self) -> int:
        """Bytes of host memory that the slices of a rank take: order and lists of training, and places."""
        places = 12 * sum(self.whole.most_cold_rows) if self.with_places else 0  # and the own cold rows
        if not self.whole.most_segments:
            return self.num_batches * places
        own = shared = 0
        for (rows, long_rows), (rows_of_all, counts, further, _) in zip(
            self.most_segments, self.most_shared, strict=True
        ):
            own += 8 * rows + 8 * long_rows + 8 * further
            shared += 5 * rows_of_all + 4 * counts
        return self.num_batches * (len(self.plan.own) * (order_bytes(sum(self._lookups)) + own) + shared + places)

    @property
    def sum_bytes(self) -> int:
        """Bytes of the GPU that the sums of the slices of a rank take, which other ranks read in place."""
        return len(self.plan.own) * sum(
            4 * geometry.embedding_dim * (rows + further)
            for geometry, (rows, _), (_, _, further, _) in zip(
                self.geometries, self.most_segments, self.most_shared, strict=False
            )
        )

    @property
    def host_sum_bytes(self) -> int:
        """Bytes of the GPU that its part of the sums of hosts takes, its own host's and those of all; 0 without."""
        if self.plan.num_hosts == 1:
            return 0
        total = 0
        for geometry, (rows, _, _, _) in zip(self.geometries, self.most_shared, strict=True):
            blocks = -(-rows // BLOCK_ROWS)
            part = -(-blocks // self.plan.host_ranks) * BLOCK_ROWS
            total += 4 * geometry.embedding_dim * part * (1 + self.plan.num_hosts)
        return total
