"""What embeddings do on a GPU where batches are cut into slices, over ranks or on one: cut them, sum rows over slices.

Each rank sums the gradients of its own slices into a buffer that all can read; each reads those of all, or the sums of
whole hosts, adds them in one tree, and steps the rows of the batch in its own bank: all, or of cold rows those that it
owns. On up to 4 GPUs that moves no more bytes than one owner of each row would, which read the sums of all and wrote
the new row to all; and no state is moved.

Rows are stepped when the next step begins, beside the dense layers that come before the first lookup: at the end of
their own step nothing is left to compute beside them (docs/internals/distributed.md has what both took in a trial).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fae.artifacts.packed import BatchSet
from fae.artifacts.row_layout import RowLayout
from fae.distributed.group import Group
from fae.distributed.peers.host_parts import PartsOfHosts
from fae.distributed.peers.peer_buffers import PeerBuffer, aligned_size, peer_buffer
from fae.distributed.rank_batches import SEGMENT_LOOKUPS, Owned, RankBatches
from fae.distributed.slice_plan import KeptSlices
from fae.embedding.ranks.cold_owners import ColdOwners
from fae.kernels.geometry import GroupGeometry
from fae.kernels.input_views import InputViews
from fae.kernels.triton_rows import RowPart, SharedSums, TritonGroupKernels
from fae.kernels.triton_shared import require_slices
from fae.streaming.row_store import RowOptimizer, RowStore


class SlicedSums:
    """Sums of rows of one group of tables, by slice, which all ranks read.

    Parameters
    ----------
    buffer
        Holds the slices of this rank, one behind the other.
    num_own
        Slices of a rank.
    parts
        Where the sums of hosts are; None where ranks read those of all slices.

    Attributes
    ----------
    own
        float32 ``[size]`` for each slice of this rank.
    pointers
        int64 ``[S]`` on the device: where the sums of each slice of a batch are, at multiples of 16 bytes; with `parts`
        of the slices of this host.
    """

    def __init__(self, buffer: PeerBuffer, num_own: int, parts: PartsOfHosts | None) -> None:
        self.buffer, self.own, self.parts = buffer, list(buffer.own.view(num_own, -1)), parts
        offsets = 4 * self.own[0].numel() * torch.arange(num_own, device=buffer.pointers.device)
        self.pointers = (buffer.pointers[:, None] + offsets[None, :]).view(-1).contiguous()

    @property
    def summed(self) -> Tensor:
        """Where is what the sums of a batch are added from: those of slices, or of hosts ``[parts, hosts]``."""
        return self.pointers if self.parts is None else self.parts.pointers

    def await_all(self) -> None:
        """From here on all that is added is there, in the order of the current stream."""
        (self.buffer if self.parts is None else self.parts).await_all()


@dataclass(frozen=True)
class BankRows:
    """The rows of one group of tables in one batch, and what computes with them.

    Attributes
    ----------
    kernels
        Those of the group.
    inputs
        The input buffer of the batch.
    cold_lists
        As `TritonGroupKernels.update` takes it.
    bank
        All rows of the group.
    """

    kernels: TritonGroupKernels
    inputs: InputViews
    cold_lists: Tensor
    bank: RowStore


class GpuRankRows:
    """The part of one rank in the batches of one layout, on a GPU.

    Parameters
    ----------
    group
        The ranks; each has one slice of a batch, or several.
    staged
        Whether a batch's cold rows are in staging slots.

    Attributes
    ----------
    first_slice
        Number of the first slice of this rank.
    slices
        Those of the batch that is trained, of this rank, which are summed.
    steps_end_together
        Whether all ranks wait for one another at the end of each step, as they do for dense gradients.

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
        *,
        staged: bool,
    ) -> None:
        self._plan = group.slices
        require_slices(self._plan.num_slices)
        self.first_slice = self._plan.own[0]
        self._group, self._layout, self._geometries, self._optimizer = group, layout, geometries, optimizer
        self._device = device
        self._group_slots = [len(geometry.slots) for geometry in geometries]
        self._hot_rows = [part.num_hot_rows for part in layout.groups]
        self._batches = self._cutters("")
        self._owners: ColdOwners | None = None
        self.slices = KeptSlices(self._plan)
        self._is_unfinished = False  # sums are there of a batch that is not updated
        self._waiting_rows: Sequence[BankRows] = ()  # of a batch whose staged cold rows are not stepped yet
        self._staged, self.steps_end_together = staged, False
        self._waiting = torch.zeros(len(geometries), dtype=torch.int32, device=device)
        self._sums: list[SlicedSums] = []
        none = [0] * len(geometries)
        self._most_own, self._most_further, self._most_long, self._most_rows = none[:], none[:], none[:], none[:]
        self._most_of_part = none[:]

    def leave_cold_rows_to(self, owners: ColdOwners) -> None:
        """Have each cold row stepped by its owner alone."""
        self._owners = owners
        self._batches = self._cutters(owners.owned)

    def _cutters(self, owned: Owned) -> list[RankBatches]:
        """What cuts each slice of this rank."""
        found: list[RankBatches] = []
        for number in self._plan.own:
            found.append(
                RankBatches(
                    number, self._plan.num_slices, self._group_slots, self._hot_rows, owned=owned, plan=self._plan,
                    first=found[0] if found else None,
                )
            )  # fmt: skip
        return found

    def cut(self, batches: BatchSet) -> list[BatchSet]:
        """The slices of this rank of a split."""
        return [each.of(batches) for each in self._batches]

    def largest(self, words: int) -> int:
        """Words of an input buffer, on all ranks where a collective is in their graphs: they capture them together."""
        if self._group.wire not in ("gather", "hosts"):
            return words
        every: list[int] = self._group.gather_json(words, "the size of an input buffer")
        return max(every)

    def reserve(self, slices: Sequence[BatchSet]) -> bool:
        """Make room for the sums of the slices of a split (`cut`); all ranks call it together.

        Returns
        -------
        Whether graphs that were captured before are out of date.
        """
        shared = slices[0].arrays.shared
        if shared is None or shared.offsets is None:
            return False
        before = self._most
        own = [
            [
                max(each.most_shared[group][2] for each in slices),
                max(each.most_segments[group][1] for each in slices),
            ]
            for group in range(len(self._geometries))
        ]
        # The same on all ranks: buffers have one size, and all or none capture their graphs again.
        every = self._group.gather_json(own, "the most further segments and long rows")
        for group, (rows, _, _, _) in enumerate(slices[0].most_shared):
            self._most_rows[group] = max(self._most_rows[group], rows)
            self._most_own[group] = max(self._most_own[group], shared.most_own_rows[group])
            self._most_of_part[group] = max(self._most_of_part[group], shared.most_part_rows[group])
            self._most_further[group] = max(self._most_further[group], *(most[group][0] for most in every))
            self._most_long[group] = max(self._most_long[group], *(most[group][1] for most in every))
        changed = before != self._most
        # Sizes that are the same on all ranks decide, so that all make buffers or none does. There is always one: by it
        # ranks wait for each other.
        if not self._sums or before[:3] != self._most[:3]:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            self._group.barrier("the end of what reads row sums")
            self._sums = []
            self._sums = [self._room_for_sums(group) for group in range(len(self._geometries))]
        return changed

    @property
    def _most(self) -> tuple[list[int], ...]:
        sizes = (self._most_own, self._most_further, self._most_of_part, self._most_long, self._most_rows)
        return tuple(each[:] for each in sizes)

    def _room_for_sums(self, group: int) -> SlicedSums:
        num_own, dim, what = (
            len(self._plan.own),
            self._geometries[group].embedding_dim,
            f"the row sums of group {group}",
        )
        size = aligned_size((self._most_own[group] + self._most_further[group]) * dim)
        buffer = peer_buffer(self._group.neighbours, num_own * size, self._device, channel=group, what=what)
        parts = None
        if self._group.parts is not None:
            most = self._most_of_part[group] * dim
            parts = PartsOfHosts(self._group, most, self._device, channel=group, what=f"{what}, of hosts")
        return SlicedSums(buffer, num_own, parts)

    def begin_step(self, rows: Sequence[BankRows]) -> None:
        """Step, on the current stream, the rows whose sums of the step before wait; `rows` are of its batch."""
        if self._is_unfinished:
            self.drop_sums()
        if not self.steps_end_together:
            self.await_all()
        for group in range(len(self._sums)):
            self._step(group, rows[group], "hot" if self._staged or self._owners is not None else "all")
            if self._owners is not None and not self._staged:
                self._step(group, rows[group], "cold")

    def await_readers(self) -> None:
        """Wait, on the current stream, until all ranks have read what this one wrote in the step before."""
        self.drop_sums()
        self.await_all()

    def await_all(self) -> None:
        """Wait, on the current stream, until all ranks have done what they had launched before."""
        self._sums[0].await_all()

    def drop_sums(self) -> None:
        """Have no rows stepped by the sums that are there, on the current stream."""
        self._is_unfinished = False
        self._waiting.zero_()

    def finish(self, rows: Sequence[BankRows]) -> None:
        """Step, on the current stream, the rows whose sums still wait behind the last step."""
        if self._sums:
            self.begin_step(rows)
            self.drop_sums()

    def update(self, group: int, rows: BankRows, gradient: Tensor, number: int) -> None:
        """Sum the gradients of a slice by row; `begin_step` sums over slices and steps the rows.

        Cold rows that are in a staging slot are on their way to the host when the next step begins: behind the last
        slice of this rank they are stepped at once, or by `step_staged_rows` where steps end together.

        Parameters
        ----------
        group
            Number of the group of tables.
        gradient
            As `TritonGroupKernels.update` takes it.
        number
            The slice, among those of the batch.
        """
        if not self._most_rows[group]:  # on any rank
            return
        sums, own = self._sums[group], self._plan.own
        rows.kernels.sum_slice(
            rows.inputs, gradient, sums.own[number - own.start], self._waiting[group : group + 1],
            segment_lookups=SEGMENT_LOOKUPS,
            most_rows=self._most_own[group], most_further=self._most_further[group],
            most_long_rows=self._most_long[group],
        )  # fmt: skip
        if number != own[-1]:
            return
        sums.buffer.send()
        if sums.parts is not None:
            sums.buffer.await_all()
            plan = self._plan
            rows.kernels.sum_host(
                rows.inputs, sums.pointers, sums.parts.own, self._most_rows[group],
                part=(self._group.neighbours.rank, plan.host_ranks), host=(plan.host, plan.num_hosts),
            )  # fmt: skip
            sums.parts.send()
        if self._staged and not self.steps_end_together:
            sums.await_all()
            self._step(group, rows, "cold")

    def begin_sums(self, rows: Sequence[BankRows]) -> None:
        """Note that a slice of a batch is summed from here on; `rows` are of its input buffer."""
        self._is_unfinished = True
        if self._staged and self.steps_end_together:
            self._waiting_rows = rows

    def settle(self) -> None:
        """The batch that is summed is updated: its rows are stepped when the next step begins."""
        self._is_unfinished = False
        self.slices.drop()

    def forget(self) -> None:
        """What was noted last has not been done: it was captured, or its capture has failed."""
        self._is_unfinished, self._waiting_rows = False, ()
        self.slices.drop()

    def step_staged_rows(self) -> None:
        """Step, on the current stream, the cold rows of a batch where all ranks have met behind its sums."""
        rows, self._waiting_rows = self._waiting_rows, ()
        for group, each in enumerate(rows):  # nothing where no sums wait, as the model has not used the group
            self._step(group, each, "cold")

    def end_batch(self) -> None:
        """The turn of an updated batch is over: step its staged rows where no dense update has done so."""
        if self._waiting_rows:
            self.await_all()
            self.step_staged_rows()

    def _step(self, group: int, rows: BankRows, part: RowPart) -> None:
        if not self._most_rows[group]:
            return
        optimizer, store, owner = self._optimizer, rows.bank, None
        if self._owners is not None and part == "cold":
            if self._owners.places_end[group] == self._hot_rows[group]:
                return  # no batch has a cold row of this group
            neighbours = self._group.neighbours
            store, owner = self._owners.stores[group], (neighbours.rank, neighbours.world)
        sums = SharedSums(
            pointers=self._sums[group].summed, waiting=self._waiting[group : group + 1],
            most_rows=self._most_rows[group], owner=owner,
            host_slices=1 if self._group.parts is None else self._plan.host_slices,
        )  # fmt: skip
        rows.kernels.step_shared(
            rows.inputs, rows.cold_lists, self._hot_rows[group], store.weight, store.state, sums,
            optimizer.eps, optimizer.betas, decays=optimizer.weight_decay > 0, part=part,
        )  # fmt: skip
