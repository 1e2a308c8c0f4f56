"""The streaming pipeline: cold rows fetched before their batch, written back after it, forwarded in between.

Only batches with cold rows take part; they are numbered c = 0, 1, 2, ... in training order and use slot ``c % k``.
Worker threads (`fae.streaming.row_loops`) gather host rows into transfer buffers, or note which batch in flight holds
them, and scatter buffers to host rows; a `Transfer` copies between buffers and slots, with worker threads of its own.
The consumer computes; it is the only thread that runs Python. Each gather thread and each scatter thread has a range of
all cold rows, so a row's updates, and the marks that say which batch listed it last, stay in order.

Invariants, whatever threads and streams do:

1. The host gather of c starts only after the scatter of c - r is complete, r <= k; a row's scatters run in order.
2. A row of c that was last listed by a batch j, c - r < j < c, is not taken from the host: it is read in j's slot,
   where the update of j left it. Kernels read it there and write it to c's slot (`by_location`), or it is copied to
   c's slot before c is looked up. Positions decide, never timing.
3. A slot is written again only when its write-back is done and no batch reads it any more. Where rows are copied, r = k
   and the last reader's copy is that at the start of c - 1; by location r = k - 1 and the last reader is c - 2, so that
   c's rows may arrive while c - 1 is computed.
4. The iterator returns only when every write-back is complete (the pipeline is drained).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fae.artifacts.packed import BatchSet, ColdLists, PackedBatch
from fae.core.threads import num_threads
from fae.streaming.huge_pages import host_zeros
from fae.streaming.row_loops import MOST_SLOTS, PLACE_BITS, gather_loop, scatter_loop
from fae.streaming.transfer import (
    NO_FAULTS,
    FaultInjection,
    HostTransfer,
    Pass,
    TierPair,
    Transfer,
    TransferBuffers,
)
from fae.streaming.workers import WorkerGroup

__all__ = ["NO_FAULTS", "FaultInjection", "WorkerCounts", "StagingPipeline"]

_SAMPLED_ROWS = 2**12  # listed rows that `equal_ranges` looks at


@dataclass(frozen=True, kw_only=True)
class WorkerCounts:
    """Numbers of threads for one group.

    Attributes
    ----------
    gather
        Threads that gather; a row costs one core 13 to 20 ns.
    scatter
        Threads that scatter; a row costs one core 10 to 15 ns.
    """

    gather: int
    scatter: int

    @classmethod
    def of_machine(cls, num_groups: int) -> WorkerCounts:
        """Five eighths of the cores for all groups; the others fill input buffers and compute."""
        gather, scatter = 3 * num_threads() // (8 * num_groups), num_threads() // (4 * num_groups)
        return cls(gather=max(1, min(6, gather)), scatter=max(1, min(4, scatter)))


def make_transfer(
    tiers: Sequence[TierPair],
    buffers: Sequence[TransferBuffers],
    depth: int,
    device: torch.device,
    faults: FaultInjection,
    *,
    by_location: bool,
) -> Transfer:
    """The `Transfer` for banks on `device`."""
    if device.type == "cuda":
        from fae.streaming.gpu_transfer import GpuTransfer

        return GpuTransfer(tiers, buffers, depth, device, faults, by_location=by_location)
    return HostTransfer(tiers, buffers, depth, faults, by_location=by_location)


def equal_ranges(lists: ColdLists, parts: int) -> list[int]:
    """Bounds that cut row numbers into `parts` ranges with about as many listed rows in each; ``parts + 1`` numbers."""
    first, last = int(lists.begins.min()), int(lists.ends.max())
    sample = np.sort(lists.rows[first : last : max(1, (last - first) // _SAMPLED_ROWS)])
    inner = [int(sample[len(sample) * part // parts]) if len(sample) else 0 for part in range(1, parts)]
    return [0, *inner, np.iinfo(np.int64).max]


class StagingPipeline:
    """Passes over batches, one at a time: ``for packed, slot in pipeline.run(batches, order, write_back=True)``.

    Parameters
    ----------
    tiers
        One pair per group.
    depth
        Number of slots k, at least 2.
    device
        The device of the banks.
    by_location
        Whether kernels read a batch's cold rows where `slot_locations` says, so that nothing needs to be copied.

    Attributes
    ----------
    counts
        Numbers of threads for a group.
    workers
        The threads of the latest pass.
    """

    def __init__(
        self,
        tiers: Sequence[TierPair],
        depth: int,
        device: torch.device,
        faults: FaultInjection = NO_FAULTS,
        *,
        by_location: bool = False,
    ) -> None:
        assert 2 <= depth <= MOST_SLOTS, f"{depth} slots; a batch is computed in one while the next one's rows arrive"
        assert all(tier.slot_rows <= 2**PLACE_BITS for tier in tiers), "a slot has more rows than a mark can name"
        self._tiers, self._depth, self._faults = list(tiers), depth, faults
        self.counts = WorkerCounts.of_machine(len(tiers))
        # By location the next batch, too, may be copied up before the current one is computed.
        self._reach_back = depth - 1 if by_location else depth
        self._buffers = [TransferBuffers(tier, depth, pinned=device.type == "cuda") for tier in tiers]
        # On huge pages like the rows, since marks are read at the same random places.
        self._marks = [host_zeros(len(tier.host.weight), 1).view(-1).numpy().view(np.uint32) for tier in tiers]
        self.workers, self._is_running = WorkerGroup("staging"), False
        self._transfer = make_transfer(tiers, self._buffers, depth, device, faults, by_location=by_location)

    @property
    def slot_locations(self) -> list[torch.Tensor]:
        """Per group, int64 ``[k, slot_rows]`` beside the bank: where each slot's batch reads its rows."""
        return self._transfer.slot_locations

    def require_idle(self) -> None:
        """Refuse what must not meet rows in slots: another pass, or reading and writing of whole tables.

        Raises
        ------
        RuntimeError
            While a pass runs.
        """
        if self._is_running:
            raise RuntimeError(
                "a stream of these embeddings is still open, and slots hold its rows; end it, or close it (stream."
                "close()), before the next stream, an evaluation, and before tables are read or written"
            )

    def run(
        self, batches: BatchSet, order: Sequence[int] | npt.NDArray[np.int64], *, write_back: bool
    ) -> Generator[tuple[PackedBatch, int], None, None]:
        """Yield each batch with its slot once its rows are there; drained when the iterator ends or is closed.

        By taking the next batch the consumer says that the update of this one is done (on a GPU: launched).
        """
        numbers = np.asarray(order, np.int64)
        cold = numbers[batches.has_cold_rows[numbers]]
        self.require_idle()
        workers, transfer = WorkerGroup("staging"), self._transfer
        self.workers, self._is_running = workers, True
        position = 0
        try:
            this = self._begin(workers, batches.cold_lists(cold), write_back)
            for index in numbers.tolist():
                packed = batches.batch(index)
                if not packed.has_cold_rows:
                    yield packed, 0
                    continue
                transfer.acquire(position)
                position += 1
                try:
                    yield packed, (position - 1) % self._depth
                finally:
                    transfer.release(position - 1)  # also if the consumer stops here: it may have updated the batch
            self._drain(this, position)
        except GeneratorExit:
            self._drain(this, position)
            raise
        finally:
            workers.stop()
            self._is_running = False
            transfer.end()

    def _drain(self, this: Pass, position: int) -> None:
        ends = np.concatenate(this.scattered) if this.write_back else this.copied_down
        this.workers.wait(ends, position)

    def _begin(self, workers: WorkerGroup, lists: tuple[ColdLists, ...], write_back: bool) -> Pass:
        counts, groups = self.counts, range(len(self._tiers))
        this = Pass(
            workers=workers,
            lists=lists,
            write_back=write_back,
            gathered=tuple(workers.add_counters(counts.gather) for _ in groups),
            scattered=tuple(workers.add_counters(counts.scatter) for _ in groups),
            copied_down=workers.add_counters(len(self._tiers)),
        )
        if not len(lists[0].begins):
            return this
        for group in groups:
            self._start_workers(this, group)
        self._transfer.begin(this)
        return this

    def _start_workers(self, this: Pass, group: int) -> None:
        tier, buffers, lists, workers = self._tiers[group], self._buffers[group], this.lists[group], this.workers
        counts, reach_back, longest = self.counts, self._reach_back, self._faults.longest
        where, count, of_group = (lists.rows, lists.begins, lists.ends), len(lists.begins), f"of group {group}"
        host = (tier.host.weight.numpy(), tier.host.state.numpy())
        widths = tuple(each.shape[1] for each in host)
        seeds = iter(range(1000 * (self._faults.seed + 1) + 100 * group, 2**62))
        # Where nothing is updated, every row is read from the host.
        plan_back = reach_back if this.write_back else 1
        written_back = this.scattered[group] if this.write_back else this.copied_down[group : group + 1]
        up, down = ([each.numpy() for each in tensors] for tensors in (buffers.up, buffers.down))
        cuts = equal_ranges(lists, counts.gather)
        for part, counter in enumerate(this.gathered[group].tolist()):
            workers.start(
                f"gather {part} {of_group}", gather_loop(*widths), counter, written_back, cuts[part], cuts[part + 1],
                *where, reach_back, plan_back, tier.num_hot_rows, *host, self._marks[group], buffers.locations.numpy(),
                *up, self._faults.fill_with_nan, longest, next(seeds), end=count,
            )  # fmt: skip
        if not this.write_back:
            return
        cuts = equal_ranges(lists, counts.scatter)
        for part, counter in enumerate(this.scattered[group].tolist()):
            workers.start(
                f"scatter {part} {of_group}", scatter_loop(*widths), counter, int(this.copied_down[group]), cuts[part],
                cuts[part + 1], *where, tier.num_hot_rows, *host, *down, longest, next(seeds), end=count,
            )  # fmt: skip
