"""The embeddings of a model, whatever their placement: stream batches, look up, update, export, import.

::

    for batch in embeddings.stream(packed.train, order):
        features = embeddings.lookup(batch)           # leaf tensors, one buffer a group
        loss = loss_of(model(batch.dense, features), batch)
        loss.backward()
        embeddings.update(batch)                      # reads the leaves' gradients

Placement never changes the mathematics: lookup and update are written once, here. A subclass says only where rows live
and how the kernels find the cold rows of a batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.distributed.group import Group
from fae.embedding.cpu_rows import CpuRows
from fae.embedding.engines import make_gpu_rows, slice_size
from fae.embedding.features import FeatureEmbeddings, FeatureViews, sequences_of
from fae.embedding.row_tables import RowTables
from fae.kernels.geometry import group_geometries
from fae.streaming.batch_turn import BatchTurn
from fae.streaming.ready_batch import ReadyBatch, make_ready, ready_from_buffers
from fae.streaming.row_store import RowOptimizer, RowStore, rows_in_words
from fae.streaming.staging import NO_FAULTS, FaultInjection

if TYPE_CHECKING:
    from fae.artifacts.hot_set import HotSet
    from fae.embedding.gpu_rows import GpuRows
    from fae.embedding.memory_plan import MemoryPlan
    from fae.embedding.memory_request import MemoryRequest
    from fae.embedding.ranks.rank_rows import RankRows

Engine = Literal["cpu", "reference", "triton"]
ReadyBatches = Generator[ReadyBatch, None, None]


class Embeddings(RowTables):
    """All tables of a model, with their optimizer.

    Parameters
    ----------
    layout
        Tables, storage order and hot prefixes.
    optimizer
        Optimizer of the rows.
    batch_size
        B of every batch that will be streamed; of the whole batch, where it is cut into slices.
    device
        Where lookups happen and gradients come from.
    engine
        ``cpu`` (numba), ``reference`` (plain torch) or ``triton``; by default the one made for `device`.
    staged
        Whether a batch's cold rows are in staging slots of the bank, not where their numbers say.
    group
        The ranks that train together; None is this process alone.

    Attributes
    ----------
    placement
        Name of the placement they were made by; empty where a class was called directly.
    batch_size
        Inputs of a batch, B; of a slice, B / S, where batches are cut.
    steps
        Number of batches that have updated rows; Adam's one step count. Saved in checkpoints.
    group
        The ranks that train together. Where batches are cut, `stream` yields this rank's slices of each batch.
    """

    placement = ""
    _ranks: RankRows | None = None

    def __init__(
        self,
        layout: RowLayout,
        optimizer: RowOptimizer,
        batch_size: int,
        device: torch.device,
        *,
        engine: Engine | None = None,
        staged: bool = False,
        group: Group | None = None,
    ) -> None:
        engine = engine or ("triton" if device.type == "cuda" else "cpu")
        self.group = group or Group()
        batch_size = slice_size(batch_size, self.group, engine)
        self.layout, self.optimizer, self.batch_size, self.device = layout, optimizer, batch_size, device
        self.steps = self._lookups = 0
        self._rate_factor: Callable[[int], float] | None = None
        self._looked_up: BatchTurn | None = None  # of the batch whose gradients the leaves take
        self._staging_rows: tuple[int, ...] = tuple(0 for _ in layout.groups)
        features = layout.model_features
        self.geometries = group_geometries(
            [feature.length for feature in features], [feature.pooling for feature in features], layout.feature_dims
        )
        self._gpu: GpuRows | None = None
        self._cpu: CpuRows | None = None
        self._outputs: list[Tensor] = []
        if engine == "triton":
            self._gpu = make_gpu_rows(layout, self.geometries, optimizer, batch_size, device, staged=staged)
        else:
            self._cpu = CpuRows(layout, self.geometries, optimizer, batch_size, device, engine=engine)
            self._outputs = self._cpu.outputs
        self._views = FeatureViews([feature.name for feature in features], layout.group_features, self.geometries)
        self._sequences = sequences_of(features)
        if self.group.slices.is_cut:
            self._train_with(self.group)

    def _train_with(self, group: Group) -> None:
        """Train slices of batches, of `batch_size` inputs each, together with other ranks."""
        if self._gpu is not None:
            self._gpu.follow(group)
        else:
            from fae.embedding.ranks.rank_rows import RankRows

            self._ranks = RankRows(group, self.geometries, self.batch_size)

    @classmethod
    def from_hot_set(
        cls,
        hot_set: HotSet,
        optimizer: RowOptimizer,
        device: torch.device,
        *,
        engine: Engine | None = None,
        faults: FaultInjection = NO_FAULTS,
        group: Group | None = None,
    ) -> Embeddings:
        """Embeddings of a hot set, rows not initialised yet; `faults` matters where rows are staged."""
        return cls(hot_set.layout, optimizer, hot_set.batch_size, device, engine=engine, group=group)

    @staticmethod
    @abstractmethod
    def plan_memory(request: MemoryRequest) -> MemoryPlan:
        """What these embeddings will take of the device and of host memory."""

    def __repr__(self) -> str:
        return (
            f"<{self.placement or type(self).__name__}: {len(self.layout.features)} tables, {self.optimizer.name}, "
            f"batches of {self.batch_size:,}; {rows_in_words(self.device_stores, str(self.device))}, "
            f"{rows_in_words(self.host_stores, 'the host')}>"
        )

    @abstractmethod
    def stream(self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64]) -> ReadyBatches:
        """Yield the batches of a training split in this order; when the iterator ends, every update is in place.

        A batch is good for its turn, until the next one is requested or the iterator is closed: `lookup` any number of
        times, `update` once, which ends the turn.

        Raises
        ------
        RuntimeError
            Where another stream is open that stages rows in the same slots.
        """

    @abstractmethod
    def stream_frozen(self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64]) -> ReadyBatches:
        """Yield batches for evaluation: rows are read and not written back."""

    @abstractmethod
    def _bank(self, group: int) -> RowStore:
        """The rows that lookups of a group address."""

    @property
    def _all_banks(self) -> list[RowStore]:
        return [self._bank(group) for group in range(len(self.geometries))]

    @abstractmethod
    def _cold_rows(self, batch: ReadyBatch, group: int) -> tuple[int, npt.NDArray[np.int64]]:
        """How a cold address becomes a row of the bank: ``(shift, list)``; see `CpuGroupKernels.lookup`."""

    @property
    @abstractmethod
    def device_stores(self) -> Sequence[RowStore]:
        """Rows, with state and staging slots, on `device`, one store a group; empty where the CPU alone has them."""

    @property
    @abstractmethod
    def host_stores(self) -> Sequence[RowStore]:
        """Rows with state in host memory beside `device_stores`, one store a group; empty where there are none."""

    @property
    def device_bytes(self) -> int:
        """Bytes of rows, state and staging on the device."""
        return sum(store.num_bytes for store in self.device_stores)

    @property
    def host_bytes(self) -> int:
        """Bytes of rows and state in host memory beside those on the device."""
        return sum(store.num_bytes for store in self.host_stores)

    def graph_key(self, batch: ReadyBatch) -> int | None:
        """What a captured graph of this step depends on besides the input buffer; None where it cannot be captured."""
        return None if self._gpu is None else self._gpu.generation

    def computes_on_host(self, batch: ReadyBatch) -> bool:
        """Whether the CPU looks up and updates this batch's rows although the model is on a GPU."""
        return False

    def _ready(
        self,
        batches: BatchSet,
        order: Sequence[int] | npt.NDArray[np.int64],
        slots: npt.NDArray[np.int64] | None = None,
        *,
        frozen: bool,
    ) -> ReadyBatches:
        """Yield batches on the device, in this order; through input buffers where the kernels read those.

        Parameters
        ----------
        slots
            int64 ``[n]``: staging slot of each batch, -1 for none; by default -1 for all.
        frozen
            Whether they are for evaluation, so that `update` refuses them.
        """
        numbers = np.asarray(order, np.int64)
        slots = np.full(len(numbers), -1) if slots is None else slots
        places = np.maximum(slots, 0).tolist()
        if self._gpu is None:
            whole = ([batches.batch(index)] for index in numbers.tolist())
            with closing(whole if self._ranks is None else self._ranks.cut_ahead(batches, numbers.tolist())) as cut:
                for parts, slot in zip(cut, places, strict=True):
                    with BatchTurn(self, frozen=frozen) as turn:
                        yield make_ready(parts[0], self.device, slot, turn, parts[1:])
            return
        with closing(self._gpu.buffered(batches, numbers, slots, self._staging_rows, self.steps + 1)) as buffered:
            expected, last, updated = self.steps, self.steps + len(numbers), None
            for filled, slot in zip(buffered, places, strict=True):
                for packed, buffer in filled:
                    if self.steps != expected and packed.is_ordered:  # a batch before was not updated
                        self._gpu.step_rates.correct(buffer.views, self.steps + 1)
                expected += 1
                before, is_over = self.steps, True
                try:
                    with BatchTurn(self, frozen=frozen) as turn:
                        yield ready_from_buffers(filled, slot, turn)
                    is_over = expected == last
                finally:
                    if self.steps != before:
                        updated = filled[0][1]
                    else:  # the next lookup takes the rows to step from the buffer before its own
                        is_over = True
                    if is_over and updated is not None:
                        self._gpu.finish(updated, self._all_banks)
                        updated = None

    @property
    def traffic(self) -> dict[str, int]:
        """Bytes and swaps between host and device that the placement counts, by name; empty where it counts nothing."""
        return {}

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of its own work that the placement measures, by name; empty where it measures nothing."""
        return {}

    def lookup(self, batch: ReadyBatch, *, requires_grad: bool = True) -> FeatureEmbeddings:
        """Read and pool the rows of a batch in its turn.

        Returns
        -------
        FeatureEmbeddings
            Views of leaf tensors; valid until the next lookup.

        Raises
        ------
        RuntimeError
            If the turn of the batch is over (`fae.streaming.batch_turn`), or it is one of other embeddings.
        """
        batch.turn.require(self, "lookup")
        self._lookups += 1
        self._looked_up = batch.turn if requires_grad else None
        features = self._look_up(batch, requires_grad=requires_grad)
        lookup = self._lookups
        features.require_valid = lambda: self._require_latest(batch.turn, lookup)
        return features

    def round_dense(self, *, rounds: bool) -> None:
        """Send dense features in bfloat16 from the next stream on, to a model that rounds them first; or in float32."""
        if self._gpu is not None:
            self._gpu.round_dense(rounds=rounds)

    def await_lookup(self) -> None:
        """Have the device finish what a lookup began beside the model, before gradients are written."""
        if self._gpu is not None:
            self._gpu.await_side_work()

    def awaits_readers(self, batch: ReadyBatch) -> bool:
        """Whether the lookup of a batch has the device wait until all ranks have read what it wrote a step before."""
        return self._gpu is not None and self._gpu.ranks is not None

    def rely_on_ends_of_steps(self) -> Callable[[], AbstractContextManager[None]]:
        """Say that all ranks meet behind each backward pass; returns what to enter around the dense update then."""
        return nullcontext if self._gpu is None else self._gpu.rely_on_ends_of_steps()

    def _require_latest(self, turn: BatchTurn, lookup: int) -> None:
        turn.require(self, "reading features")
        if lookup != self._lookups:
            raise RuntimeError("these features are no longer there: another lookup has taken their memory; clone them")

    def _look_up(self, batch: ReadyBatch, *, requires_grad: bool) -> FeatureEmbeddings:
        """`lookup`, once the batch may be looked up."""
        if self._gpu is not None:
            return self._gpu.lookup(batch, self._all_banks, self._views, self._sequences, requires_grad=requires_grad)
        assert self._cpu is not None
        return self._features(self._cpu.lookup(batch, self._all_banks, self._cold_rows, requires_grad=requires_grad))

    def _features(self, leaves: Sequence[Tensor]) -> FeatureEmbeddings:
        assert self._cpu is not None
        return FeatureEmbeddings(self._views, leaves, self._sequences.read(self._cpu.addresses, leaves[0].device))

    def keep_gradients(self, part: ReadyBatch) -> None:
        """Keep the sums of a slice's rows, after its backward pass; `update` does it where ``batch.slices`` has one."""
        part.turn.require(self, "keep_gradients")
        self._keep(part)

    def _keep(self, part: ReadyBatch) -> None:
        if self._gpu is not None:
            self._gpu.keep(part, self._all_banks)
        elif self._cpu is not None and self._ranks is not None:
            self._cpu.keep(part, self._ranks)

    def update(self, batch: ReadyBatch, *, without_gradients: bool = False) -> None:
        """Apply the optimizer to the rows of the batch that was looked up last, from the gradients of its leaves.

        With `without_gradients` a batch whose features the model has detached is taken, too, and changes no row.

        Raises
        ------
        RuntimeError
            If the turn of the batch is over, as it is after an update; if the latest `lookup` was not this batch's; if
            the batch is of a split for evaluation, or looked up without gradients; or (where the CPU updates the rows)
            if no backward pass came to the features of that lookup; or if gradients of a slice are not kept.
        """
        batch.turn.require(self, "update")
        batch.require_update(self._looked_up)
        if not without_gradients and not self._has_gradients(batch):
            raise RuntimeError(
                "update of a batch to whose features no backward pass has come: call backward between the latest "
                "lookup and update (a lookup drops the gradients of the one before it)"
            )
        self._update(batch)
        self._looked_up = None
        batch.turn.end("update has trained it already")

    def _has_gradients(self, batch: ReadyBatch) -> bool:
        """Whether a backward pass came to the features of the latest lookup; taken for granted on a GPU."""
        return self._cpu is None or any(output.grad is not None for output in self._outputs)

    def _update(self, batch: ReadyBatch) -> None:
        """`update`, once the batch may be updated."""
        if not batch.others:
            self._keep(batch)
        ranks = self._ranks if self._gpu is None else self._gpu.ranks
        if ranks is not None and ranks.slices.are_missing:
            raise RuntimeError("update of a batch of several slices: for each of batch.slices call keep_gradients")
        self.steps += 1
        if self._gpu is not None:
            if self._gpu.ranks is not None:
                self._gpu.ranks.settle()
            return
        assert self._cpu is not None
        factor = 1.0 if self._rate_factor is None else self._rate_factor(self.steps)
        self._cpu.update(
            batch, self._all_banks, self._cold_rows, step=self.steps, rate_factor=factor, ranks=self._ranks
        )

    def follow_rates(self, factor: Callable[[int], float] | None) -> None:
        """Multiply the learning rate of every coming step by a factor; None leaves it constant.

        It is a function of the number of a step (what `steps` is after it), called when a stream begins, for all of its
        batches, or step by step, so it may change between streams.
        """
        self._rate_factor = factor
        if self._gpu is not None:
            self._gpu.step_rates.factor = factor

    def take_back(self, batch: ReadyBatch, steps: int) -> None:
        """Forget a step that was recorded and not made; `steps` is the number before it."""
        self.steps = steps
        self._looked_up = None
        if self._gpu is not None and self._gpu.ranks is not None:
            self._gpu.ranks.forget()
        batch.turn.reopen()
