"""Lookup and update of all groups through the GPU kernels, for batches that are already on the device.

From the moment `GpuRows.buffered` yields a batch until the next one is requested, nothing here waits for the device or
reads host memory. So lookup, model, backward pass and update can be captured in one CUDA graph for each input buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from fae.artifacts.packed import BatchSet, PackedBatch
from fae.artifacts.row_layout import RowLayout
from fae.distributed.group import Group
from fae.distributed.rank_batches import RankBatch
from fae.embedding.derived_lookups import DerivedLookups
from fae.embedding.features import FeatureEmbeddings, FeatureViews, SequenceLengths
from fae.embedding.fused_interaction import FusedInteraction
from fae.embedding.ranks.cold_owners import ColdOwners, pull_whole_batch
from fae.embedding.ranks.gpu_rank_rows import BankRows, GpuRankRows
from fae.embedding.step_rates import StepRates
from fae.embedding.working_memory import INPUT_RING_DEPTH
from fae.kernels.geometry import GroupGeometry
from fae.kernels.input_views import InputViews
from fae.kernels.triton_interaction import InteractionKernels, can_fuse
from fae.kernels.triton_rows import TritonGroupKernels
from fae.streaming.input_layout import InputLayout
from fae.streaming.input_ring import InputRings
from fae.streaming.ready_batch import InputSlot, ReadyBatch
from fae.streaming.row_store import RowOptimizer, RowStore

Filled = tuple[PackedBatch, InputSlot]
"""A batch, or a slice of one, and its input buffer."""


class GpuRows:
    """Kernels, output buffers and input buffers of the groups of one layout.

    Parameters
    ----------
    staged
        Whether a batch's cold rows are in staging slots (`slot_locations`), not where their numbers say.

    Attributes
    ----------
    slot_locations
        With `staged`, per group int64 ``[k, slot_rows]``: the row of the bank of each cold row of a slot's batch.
    step_rates
        What a batch's input buffer says of its step. Buffers are sent before it is known which batches are updated.
    ranks
        Cuts batches and sums gradients where batches are trained in slices; None where they are whole.
    """

    def __init__(
        self,
        layout: RowLayout,
        geometries: Sequence[GroupGeometry],
        optimizer: RowOptimizer,
        batch_size: int,
        device: torch.device,
        *,
        staged: bool,
    ) -> None:
        self._layout, self._geometries, self._optimizer = layout, geometries, optimizer
        self._batch_size, self._device, self._staged = batch_size, device, staged
        self._kernels = [
            TritonGroupKernels(geometry, group, batch_size, optimizer.name, device, staged=staged)
            for group, geometry in enumerate(geometries)
        ]
        self.slot_locations: list[Tensor] = []
        self._outputs: list[Tensor | None] = [None] * len(geometries)
        self._interaction: InteractionKernels | None = None
        if len(geometries) == 1 and can_fuse(geometries[0]):
            self._interaction = InteractionKernels(geometries[0], 0, batch_size)
        self._row_gradients: Tensor | None = None
        self._derived = DerivedLookups(batch_size, layout.num_slots, device)
        self._side_work = False  # of the lookup, for which the current stream has not waited
        self._addresses_there: torch.cuda.Event | None = None  # before the rest of it
        self._interacted = self._has_read = self._updated_on_side = False
        self._rings: InputRings | None = None
        self._rounds_dense = False
        self._times_reserved = 0
        self.ranks: GpuRankRows | None = None
        self._owners: ColdOwners | None = None
        self.step_rates = StepRates(optimizer)
        # Row updates wait for memory while the rest of the backward pass computes, so they run beside each other; and
        # so do addresses beside the dense layers before an interaction.
        self._side_stream = (
            torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            if device.type == "cuda"
            else None
        )

    def follow(self, group: Group) -> None:
        """Train slices of batches, together with other ranks where there are any."""
        self.ranks = GpuRankRows(
            group, self._layout, self._geometries, self._optimizer, self._device, staged=self._staged
        )  # fmt: skip

    def leave_cold_rows_to(self, owners: ColdOwners) -> None:
        """Take cold rows from the ranks that own them, where `follow` has been called."""
        assert self.ranks is not None
        self._owners = owners
        self.ranks.leave_cold_rows_to(owners)

    def round_dense(self, *, rounds: bool) -> None:
        """Send dense features in bfloat16, or in float32, from the next stream on."""
        if rounds != self._rounds_dense and self._rings is not None:
            self._times_reserved += 1 + self._rings.generation
            self._rings = None
        self._rounds_dense = rounds

    @property
    def generation(self) -> int:
        """Grows whenever buffers that a captured graph may hold have been replaced."""
        return self._times_reserved + (0 if self._rings is None else self._rings.generation)

    def buffered(
        self,
        batches: BatchSet,
        order: npt.NDArray[np.int64],
        slots: npt.NDArray[np.int64],
        slot_rows: Sequence[int],
        first_step: int,
    ) -> Generator[tuple[Filled, ...], None, None]:
        """Yield each batch with its input buffer; requesting the next one says that this one's work has been launched.

        Where batches are cut it is each slice of this rank, with a buffer of its own.

        Parameters
        ----------
        slots
            int64 ``[n]``: staging slot of each batch, -1 for none.
        slot_rows
            Rows of a staging slot, per group.
        first_step
            Step number of the first batch, from 1, for Adam; the following ones count on from it. Where a batch is not
            updated, `StepRates.correct` is for the next one.
        """
        parts = [batches] if self.ranks is None else self.ranks.cut(batches)
        if self._rings is None:
            layout = InputLayout(
                batch_size=self._batch_size, num_slots=self._layout.num_slots, num_dense=batches.num_dense,
                num_groups=len(self._layout.groups),
                with_cold_lists=not self._staged and self._owners is None, with_weights=batches.is_weighted,
                of_slices=self.ranks is not None, rounds_dense=self._rounds_dense,
            )  # fmt: skip
            held = int(self.ranks is not None)
            self._rings = InputRings(layout, INPUT_RING_DEPTH, self._device, held=held, count=len(parts))
        self._rings.reserve(parts, None if self.ranks is None else self.ranks.largest)
        self._times_reserved += self._reserve(parts) | self._derived.reserve(parts[0].arrays.order)
        rates = self.step_rates.rates(first_step, len(order))
        kept = self.step_rates.kept_shares(first_step, len(order))
        tables = [
            self._rings.layout.table(part, order, slots=slots, slot_rows=slot_rows, rates=rates, kept_shares=kept)
            for part in parts
        ]
        return self._rings.run(parts, order, tables)

    def _reserve(self, parts: Sequence[BatchSet]) -> bool:
        """Make room for sums of gradients; returns whether captured graphs are out of date."""
        if self.ranks is not None:
            return self.ranks.reserve(parts)
        sizes = parts[0].most_segments
        grown = [kernels.reserve(*most) for kernels, most in zip(self._kernels, sizes, strict=bool(sizes))]
        return any(grown)

    def _output(self, group: int) -> Tensor:
        output = self._outputs[group]
        if output is None:
            width = self._geometries[group].width
            output = self._outputs[group] = torch.zeros((self._batch_size, width), device=self._device)
        return output

    def lookup(
        self,
        batch: ReadyBatch,
        banks: Sequence[RowStore],
        views: FeatureViews,
        sequences: SequenceLengths,
        *,
        requires_grad: bool,
    ) -> FeatureEmbeddings:
        """Embeddings of a batch; the rows of a group are read when the model first reads one of its features."""
        buffer = batch.buffer
        assert buffer is not None
        inputs = self._with_addresses(batch, banks)
        self._interacted = self._has_read = self._updated_on_side = False
        for output in self._outputs:
            if output is not None:
                output.requires_grad_(False).grad = None

        def read() -> list[Tensor]:
            self._await_addresses()
            self._has_read = True
            leaves = []
            for group, kernels in enumerate(self._kernels):
                output = self._output(group)
                cold_lists, first = self._cold_lists(buffer.views, group), self._first_listed(group)
                kernels.lookup(inputs, cold_lists, first, banks[group].weight, output)
                increment_version(output)  # a backward pass of an earlier lookup must not use it
                leaves.append(output.requires_grad_(requires_grad))
            return leaves

        def interact(dense: Tensor) -> Tensor | None:
            if self._interaction is None or dense.dtype != torch.bfloat16:
                return None
            self._await_addresses()
            if self._row_gradients is None and requires_grad:
                width = self._geometries[0].width
                self._row_gradients = torch.zeros((self._batch_size, width), dtype=torch.bfloat16, device=self._device)
            self._interacted = requires_grad
            joined: Tensor = FusedInteraction.apply(  # type: ignore[no-untyped-call]
                dense, self._interaction,
                (inputs, self._cold_lists(buffer.views, 0), self._first_listed(0), banks[0].weight),
                self._row_gradients, lambda: self._update_on_side_stream(batch, banks),
            )  # fmt: skip
            return joined

        if sequences:
            self._await_addresses()
        return FeatureEmbeddings(views, read, sequences.read(inputs.addresses, self._device), interact)

    def _with_addresses(self, batch: ReadyBatch, banks: Sequence[RowStore]) -> InputViews:
        """Views of the batch's input buffer with its addresses, which are derived meanwhile where it has an order.

        Rows of the batch before that wait for the sums of other ranks are stepped first.
        """
        assert batch.buffer is not None
        views = batch.buffer.views
        is_first = self._is_first(batch)
        if not batch.packed.is_ordered:
            if self._owners is not None and is_first:
                pull_whole_batch(self._owners, self._kernels, views, self._every_cold_list(views), banks)
            return views
        with self._on_side_stream():
            self._begin_slice(batch.buffer, banks, is_first=is_first)
        self._side_work = self._side_stream is not None
        return self._derived.views(views)

    def _is_first(self, batch: ReadyBatch) -> bool:
        """Whether it is the first slice of this rank, or a whole batch."""
        return self.ranks is None or _number(batch) == self.ranks.first_slice

    def _begin_slice(self, buffer: InputSlot, banks: Sequence[RowStore], *, is_first: bool) -> None:
        """Derive the addresses of a slice on the current stream; before the first, step rows of the batch before."""
        self._addresses_there = None
        if self.ranks is not None and is_first:
            assert self._rings is not None
            before = self._rings.views_before(buffer.index)
            self.ranks.begin_step([self._bank_rows(group, before, bank) for group, bank in enumerate(banks)])
        for group, kernels in enumerate(self._kernels):
            hot_rows = None if self._owners is None else self._layout.groups[group].num_hot_rows
            kernels.derive_addresses(self._derived.views(buffer.views), self._derived.addresses, hot_rows)
        if self._owners is not None:
            assert self.ranks is not None
            if is_first:
                self._owners.offer(self._kernels, buffer.views, self._every_cold_list(buffer.views))
                self.ranks.await_readers()  # and who steps or offers rows
            self._owners.pull(self._kernels, buffer.views, banks, of_slice=True)
        elif self.ranks is not None and is_first:
            if self._side_stream is not None:
                self._addresses_there = torch.cuda.Event()  # type: ignore[no-untyped-call]
                self._addresses_there.record(self._side_stream)
            self.ranks.await_readers()

    def _await_addresses(self) -> None:
        """Have the current stream wait for addresses that are derived on the other one."""
        if self._addresses_there is None:
            self.await_side_work()
        else:
            torch.cuda.current_stream(self._device).wait_event(self._addresses_there)

    def await_side_work(self) -> None:
        """Have the current stream wait for what a lookup began on the other one."""
        if self._side_work:
            assert self._side_stream is not None
            torch.cuda.current_stream(self._device).wait_stream(self._side_stream)
            self._side_work, self._addresses_there = False, None

    def finish(self, buffer: InputSlot, banks: Sequence[RowStore]) -> None:
        """Step the rows of the last batch of a stream, where they still wait for the sums of other ranks."""
        if self.ranks is not None:
            assert self._rings is not None
            self.await_side_work()  # which may have stepped them
            self.ranks.finish([self._bank_rows(group, buffer.views, bank) for group, bank in enumerate(banks)])
            self._rings.follow_steps()
            if self._owners is not None:
                self._owners.say_written()

    def _bank_rows(self, group: int, views: InputViews, bank: RowStore) -> BankRows:
        return BankRows(self._kernels[group], views, self._cold_lists(views, group), bank)

    def _first_listed(self, group: int) -> int:
        """The first address that is not the number of a row of the bank, but of the list of cold rows."""
        return self._layout.groups[group].num_hot_rows if self._owners is None else self._owners.places_end[group]

    def _every_cold_list(self, views: InputViews) -> list[Tensor]:
        return [self._cold_lists(views, group) for group in range(len(self._kernels))]

    def _cold_lists(self, views: InputViews, group: int) -> Tensor:
        return self.slot_locations[group].view(-1) if self._staged else views.longs

    def _update_on_side_stream(self, batch: ReadyBatch, banks: Sequence[RowStore]) -> None:
        """Update on a separate stream; called in the backward pass once all gradients of rows are there."""
        if self._side_stream is None or self._has_read or len(self._kernels) > 1:
            return
        with self._on_side_stream():
            self.update(batch, banks)
        self._updated_on_side = True

    def keep(self, part: ReadyBatch, banks: Sequence[RowStore]) -> None:
        """Sum the gradients of a slice, or of a whole batch, behind its backward pass; a whole batch is stepped too."""
        if self.ranks is not None:
            self.ranks.slices.begin(_number(part))
        self.update(part, banks)

    def update(self, batch: ReadyBatch, banks: Sequence[RowStore]) -> None:
        """Sum the gradients of what was looked up last, and step its rows unless `ranks` does."""
        assert batch.buffer is not None
        self.await_side_work()
        views = self._derived.views(batch.buffer.views)
        if self.ranks is not None:
            self.ranks.begin_sums([self._bank_rows(group, views, bank) for group, bank in enumerate(banks)])
        if self._updated_on_side:
            assert self._side_stream is not None
            torch.cuda.current_stream(self._device).wait_stream(self._side_stream)
            return
        optimizer = self._optimizer
        for group, (kernels, bank) in enumerate(zip(self._kernels, banks, strict=True)):
            gradient = None if (output := self._outputs[group]) is None else output.grad
            if group == 0 and self._interacted:
                assert self._row_gradients is not None
                gradient = self._row_gradients if gradient is None else gradient + self._row_gradients
            if gradient is None:  # the model did not use the group
                self._carry_rows(group, views, bank)
            elif self.ranks is not None:
                rows = self._bank_rows(group, views, bank)
                self.ranks.update(group, rows, gradient.contiguous(), _number(batch))
            else:
                kernels.update(
                    views, self._cold_lists(views, group), self._layout.groups[group].num_hot_rows, bank.weight,
                    bank.state, gradient.contiguous(), optimizer.eps, optimizer.betas,
                    decays=optimizer.weight_decay > 0,
                )  # fmt: skip

    def rely_on_ends_of_steps(self) -> Callable[[], AbstractContextManager[None]]:
        """As `fae.embedding.base.Embeddings.rely_on_ends_of_steps`."""
        if self.ranks is None:
            return nullcontext
        self.ranks.steps_end_together = True
        return self._beside_dense_update if self._staged else nullcontext

    @contextmanager
    def _beside_dense_update(self) -> Iterator[None]:
        """Step the staged cold rows of the batch that was summed last beside what the block launches."""
        assert self.ranks is not None
        with self._on_side_stream():
            self.ranks.step_staged_rows()
        try:
            yield
        finally:
            if self._side_stream is not None:
                torch.cuda.current_stream(self._device).wait_stream(self._side_stream)

    @contextmanager
    def _on_side_stream(self) -> Iterator[None]:
        """Launch what is in the block behind the current stream's work, and beside what follows there."""
        if self._side_stream is None:
            yield
            return
        self._side_stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._side_stream):
            yield

    def carry(self, batch: ReadyBatch, banks: Sequence[RowStore]) -> None:
        """Copy the rows of a batch that is not updated to its staging slot, in place of `update`."""
        assert batch.buffer is not None
        for group, bank in enumerate(banks):
            self._carry_rows(group, batch.buffer.views, bank)

    def _carry_rows(self, group: int, views: InputViews, bank: RowStore) -> None:
        store = bank if self._owners is None else self._owners.stores[group]
        num_hot_rows = self._layout.groups[group].num_hot_rows
        self._kernels[group].carry(views, self._cold_lists(views, group), num_hot_rows, store.weight, store.state)


def _number(batch: ReadyBatch) -> int:
    """Number of a slice among those of its batch."""
    assert isinstance(batch.packed, RankBatch)
    return batch.packed.number
