"""The embeddings of a model, whatever their placement: stream batches, look up, update, export, import.

::

    for batch in embeddings.stream(packed.train, order):
        features = embeddings.lookup(batch)           # leaf tensors, one buffer a group
        loss = loss_of(model(batch.dense, features), batch)
        loss.backward()
        embeddings.update(batch)                      # reads the leaves' gradients

Invariant: placement never changes the mathematics. Subclasses say only where rows live and how a batch's cold rows
come within reach; lookup and update are written once, here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.artifacts.columnar_log import first_slots
from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.core.errors import DeviceError
from fae.core.threads import num_threads
from fae.embedding.features import FeatureEmbeddings, FeatureViews, SequenceLengths
from fae.kernels.cpu import CpuGroupKernels
from fae.kernels.geometry import GroupGeometry, group_geometries
from fae.kernels.reference import ReferenceGroupKernels
from fae.streaming.huge_pages import host_zeros
from fae.streaming.ready_batch import ReadyBatch, make_ready, ready_from_buffer
from fae.streaming.row_store import RowOptimizer, RowStore, initial_chunks, initial_rows

if TYPE_CHECKING:
    from fae.embedding.gpu_rows import GpuRows

Engine = Literal["cpu", "reference", "triton"]
ReadyBatches = Generator[ReadyBatch, None, None]


def make_gpu_rows(
    layout: RowLayout,
    geometries: Sequence[GroupGeometry],
    optimizer: RowOptimizer,
    batch_size: int,
    device: torch.device,
    *,
    staged: bool,
) -> GpuRows:
    """The GPU engine; imported here because Triton is not everywhere where a CPU is.

    Raises
    ------
    DeviceError
        If there is no Triton.
    """
    try:
        from fae.embedding.gpu_rows import GpuRows
    except ImportError as error:
        raise DeviceError(
            f"the GPU engine needs Triton, which comes with torch's CUDA builds on Linux ({error}); "
            "run `pip install triton`, or choose --device cpu"
        ) from error

    return GpuRows(layout, geometries, optimizer, batch_size, device, staged=staged)


class Embeddings(ABC):
    """All tables of a model, with their optimizer.

    Parameters
    ----------
    layout
        Tables, storage order and hot prefixes.
    optimizer
        Of the rows.
    batch_size
        B of every batch that will be streamed.
    device
        Where lookups happen and gradients come from.
    engine
        ``cpu`` (numba), ``reference`` (plain torch) or ``triton``; by default what `device` is made for.
    staged
        Whether a batch's cold rows are in staging slots of the bank, not where their numbers say.

    Attributes
    ----------
    steps
        Batches that have updated rows; Adam's one step count. Saved in checkpoints.
    """

    def __init__(
        self,
        layout: RowLayout,
        optimizer: RowOptimizer,
        batch_size: int,
        device: torch.device,
        *,
        engine: Engine | None = None,
        staged: bool = False,
    ) -> None:
        self.layout, self.optimizer, self.batch_size, self.device = layout, optimizer, batch_size, device
        self.steps = 0
        self._staging_rows: tuple[int, ...] = tuple(0 for _ in layout.groups)
        self.geometries = group_geometries(
            [feature.length for feature in layout.features],
            [feature.pooling for feature in layout.features],
            layout.embedding_dims,
        )
        engine = engine or ("triton" if device.type == "cuda" else "cpu")
        self._gpu: GpuRows | None = None
        self._kernels: list[CpuGroupKernels | ReferenceGroupKernels] = []
        self._outputs: list[Tensor] = []
        if engine == "triton":
            self._gpu = make_gpu_rows(layout, self.geometries, optimizer, batch_size, device, staged=staged)
        for geometry in self.geometries if self._gpu is None else ():
            self._kernels.append(
                CpuGroupKernels(geometry, batch_size, optimizer.name)
                if engine == "cpu"
                else ReferenceGroupKernels(geometry, batch_size, optimizer.name, device)
            )
            self._outputs.append(
                host_zeros(batch_size, geometry.width)
                if device.type == "cpu"
                else torch.zeros((batch_size, geometry.width), device=device)
            )
        self._views = FeatureViews(
            [feature.name for feature in layout.features], [group.tables for group in layout.groups], self.geometries
        )
        self._sequences = SequenceLengths(
            [
                (feature.name, first, feature.length)
                for feature, first in zip(layout.features, first_slots(layout.features), strict=False)
                if feature.pooling == "none"
            ]
        )

    @abstractmethod
    def stream(self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64]) -> ReadyBatches:
        """Yield the batches of a training split, in this order; when the iterator ends, every update is in place."""

    @abstractmethod
    def stream_frozen(self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64]) -> ReadyBatches:
        """The same for evaluation: rows are read and not written back."""

    @abstractmethod
    def _bank(self, group: int) -> RowStore:
        """Rows that lookups of a group address."""

    @abstractmethod
    def _cold_rows(self, batch: ReadyBatch, group: int) -> tuple[int, npt.NDArray[np.int64]]:
        """How a cold address becomes a row of the bank: ``(shift, list)``; see `CpuGroupKernels.lookup`."""

    @abstractmethod
    def _read_rows(self, group: int, rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Weight and state of these row numbers, on the host."""

    @abstractmethod
    def _write_rows(self, group: int, rows: npt.NDArray[np.int64], weight: Tensor, state: Tensor) -> None:
        """The inverse of `_read_rows`."""

    @property
    @abstractmethod
    def device_bytes(self) -> int:
        """Bytes of rows, state and staging on the device."""

    def graph_key(self, batch: ReadyBatch) -> int | None:
        """What a captured graph of this batch's step depends on besides its feed slot; None: it cannot be captured."""
        return None

    def computes_on_host(self, batch: ReadyBatch) -> bool:
        """Whether the CPU looks up and updates this batch's rows although the model is on a GPU."""
        return False

    def _ready(
        self,
        batches: BatchSet,
        order: Sequence[int] | npt.NDArray[np.int64],
        slots: npt.NDArray[np.int64] | None = None,
    ) -> ReadyBatches:
        """Batches on the device, in this order: through the feeds where kernels read them there.

        Parameters
        ----------
        slots
            int64 ``[n]``: staging slot of each batch, -1 for none; by default none.
        """
        numbers = np.asarray(order, np.int64)
        if slots is None:
            slots = np.full(len(numbers), -1)
        places = np.maximum(slots, 0).tolist()
        if self._gpu is None:
            for index, slot in zip(numbers.tolist(), places, strict=True):
                yield make_ready(batches.batch(index), self.device, slot)
            return
        with closing(self._gpu.feeds(batches, numbers, slots, self._staging_rows, self.steps + 1)) as feeds:
            expected = self.steps
            for (packed, feed), slot in zip(feeds, places, strict=True):
                if self.steps != expected and packed.is_ordered:  # a batch before was not updated
                    self._gpu.set_step(feed, self.steps + 1)
                expected += 1
                yield ready_from_buffer(packed, feed, slot)

    @property
    def traffic(self) -> dict[str, int]:
        """What a placement counts of its moves between host and device; empty where it counts nothing."""
        return {}

    @property
    def seconds(self) -> dict[str, float]:
        """What a placement times of its own work, by name; empty where it times nothing."""
        return {}

    def lookup(self, batch: ReadyBatch, *, requires_grad: bool = True) -> FeatureEmbeddings:
        """Read and pool the rows of a batch.

        Returns
        -------
        FeatureEmbeddings
            Views of leaf tensors; valid until the next lookup.
        """
        if self._gpu is not None:
            banks = [self._bank(group) for group in range(len(self.geometries))]
            return self._gpu.lookup(batch, banks, self._views, self._sequences, requires_grad=requires_grad)
        leaves = []
        for group, (kernels, output) in enumerate(zip(self._kernels, self._outputs, strict=True)):
            output.requires_grad_(False).grad = None
            shift, cold_rows = self._cold_rows(batch, group)
            kernels.lookup(
                batch.packed.addresses,
                self.layout.groups[group].num_hot_rows,
                self._bank(group).weight,
                output,
                shift=shift,
                cold_rows=cold_rows,
            )
            leaves.append(output.requires_grad_(requires_grad))
        return self._features(batch, leaves)

    def _features(self, batch: ReadyBatch, leaves: Sequence[Tensor]) -> FeatureEmbeddings:
        return FeatureEmbeddings(self._views, leaves, self._sequences.read(batch.packed.addresses, leaves[0].device))

    def update(self, batch: ReadyBatch) -> None:
        """Apply the optimizer to the rows of the batch that was looked up last, from the gradients of its leaves."""
        order = batch.packed.order
        assert order is not None, "batches of this split carry no order; they are for evaluation"
        optimizer = self.optimizer
        self.steps += 1
        if self._gpu is not None:
            self._gpu.update(batch, [self._bank(group) for group in range(len(self.geometries))])
            return
        for group, (kernels, output) in enumerate(zip(self._kernels, self._outputs, strict=True)):
            if output.grad is None:  # the model did not use the group
                continue
            geometry, bank = self.geometries[group], self._bank(group)
            start = self.batch_size * geometry.order_start
            part = order[start : start + self.batch_size * len(geometry.slots)]
            gradient = output.grad.detach()
            kernels.update(
                bank.weight, bank.state, part, gradient, optimizer.learning_rate, optimizer.eps,
                betas=optimizer.betas, step=self.steps,
            )  # fmt: skip

    def initialise(self, seed: int) -> None:
        """Give every row its first value (`fae.streaming.row_store.initial_rows`) and zero state."""
        self.steps = 0
        for table, feature in enumerate(self.layout.features):
            dim, rows = self.layout.embedding_dims[table], self.layout.row_numbers(table)
            width = self.optimizer.state_width(dim)
            # All threads draw, then all write: chunk by chunk, 48 GB of rows took minutes.
            ranges = initial_chunks(feature.num_embeddings, num_threads())
            buffer = np.empty((max((stop - start for start, stop in ranges), default=0), dim), np.float32)
            for start, stop in ranges:
                weight = initial_rows(
                    seed, feature.name, feature.num_embeddings, dim, start, stop, out=buffer[: stop - start]
                )
                self._write_rows(
                    int(self.layout.group_of_table[table]),
                    rows[start:stop],
                    torch.from_numpy(weight),
                    torch.zeros((stop - start, width)),
                )

    def export_table(self, table: int) -> tuple[Tensor, Tensor]:
        """Weight ``[num_embeddings, D]`` and state ``[num_embeddings, width]`` in vocabulary order, on the host."""
        return self._read_rows(int(self.layout.group_of_table[table]), self.layout.row_numbers(table))

    def import_table(self, table: int, weight: Tensor, state: Tensor) -> None:
        """The inverse of `export_table`."""
        self._write_rows(int(self.layout.group_of_table[table]), self.layout.row_numbers(table), weight, state)
