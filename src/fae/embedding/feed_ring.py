"""A ring of feeds: batches from mapped files to the device, ahead of the step, on a stream of their own.

Place in the flow: compiled lanes copy packed batches into pinned buffers, each lane every so many batches; the consumer
starts one copy to the device for each that is full, and gets it when the computing stream has been told to wait for it.
Invariant: a buffer is written again only when the copy out of it (pinned) or the step that reads it (device) is done;
positions decide, never timing.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.core.lanes import Cells, Lanes
from fae.core.threads import num_threads
from fae.embedding.batch import FeedSlot
from fae.kernels.feed import FeedLayout, FeedTable, FeedViews, feed_lane
from fae.packing.dataset import BatchSet, PackedBatch


class FeedRing:
    """Buffers of `depth` feeds.

    Attributes
    ----------
    generation
        Grows when the buffers are replaced by larger ones.
    num_lanes
        Threads that copy.
    lanes
        Of the latest run.
    """

    def __init__(self, layout: FeedLayout, depth: int, device: torch.device) -> None:
        self.layout, self._depth, self._device, self._on_gpu = layout, depth, device, device.type == "cuda"
        self.generation, self._num_words = 0, 0
        # A thread copies some 8 GB/s; the batch of 10 MB of a step of half a millisecond wants three or four of them.
        self.num_lanes = max(1, min(4, num_threads() // 4)) if self._on_gpu else 1
        self.lanes = Lanes("fae-feed")
        self._host: list[Tensor] = []
        self._views: list[FeedViews] = []
        if self._on_gpu:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._arrived = [torch.cuda.Event() for _ in range(depth)]  # type: ignore[no-untyped-call]
            self._consumed = [torch.cuda.Event() for _ in range(depth)]  # type: ignore[no-untyped-call]

    def reserve(self, batches: BatchSet) -> None:
        """Make room for the largest of these batches."""
        words = self.layout.num_words(batches)
        if words <= self._num_words:
            return
        if self._on_gpu:
            torch.cuda.synchronize(self._device)
        self._num_words, self.generation = words, self.generation + 1
        self._host = [torch.zeros(words, dtype=torch.int32, pin_memory=self._on_gpu) for _ in range(self._depth)]
        self._views = [
            self.layout.views(torch.zeros(words, dtype=torch.int32, device=self._device)) for _ in range(self._depth)
        ]

    @property
    def device_bytes(self) -> int:
        """Bytes of the buffers on the device; as many are pinned on the host."""
        return 4 * self._num_words * self._depth

    def run(
        self, batches: BatchSet, order: npt.NDArray[np.int64], table: FeedTable
    ) -> Generator[tuple[PackedBatch, FeedSlot], None, None]:
        """Yield each batch with its feed; asking for the next one says that this one's work has been launched.

        Parameters
        ----------
        table
            Of the same batches: `FeedLayout.table`.
        """
        lanes = self.lanes = Lanes("fae-feed")
        fed, freed = lanes.cells(self.num_lanes), lanes.cells(1)
        buffers = np.array([host.data_ptr() for host in self._host], np.int64)
        this = _Run(lanes, fed, int(freed[0]), table.words.tolist())
        try:
            for first, cell in enumerate(fed.tolist()):
                lanes.start(
                    feed_lane, cell, this.freed, first, self.num_lanes, table.headers, table.pieces, buffers
                )  # fmt: skip
            for position, index in enumerate(order.tolist()):
                slot = position % self._depth
                self._send_full(this, position)
                if this.sent == position:
                    lanes.wait(fed[[position % self.num_lanes]], position + 1, lambda: self._free(this))
                    self._send(this)
                if self._on_gpu:
                    torch.cuda.current_stream(self._device).wait_event(self._arrived[slot])
                try:
                    feed = FeedSlot(views=self._views[slot], index=slot, generation=self.generation)
                    yield batches.batch(index), feed
                finally:
                    if self._on_gpu:
                        self._consumed[slot].record(torch.cuda.current_stream(self._device))
        finally:
            lanes.stop()
            if self._on_gpu:  # the next run writes the pinned buffers
                self._stream.synchronize()

    def _send_full(self, this: _Run, position: int) -> None:
        """Start the copies of all feeds that are full and whose place on the device is no longer needed."""
        self._free(this)
        while this.sent < min(len(this.words), position + self._depth) and this.lanes.have(
            this.fed[[this.sent % self.num_lanes]], this.sent + 1
        ):
            self._send(this)

    def _free(self, this: _Run) -> None:
        """Give buffers whose copies are done back to the lanes."""
        if not self._on_gpu:
            return
        before = this.free
        while this.free < this.sent and _is_done(self._arrived[this.free % self._depth]):
            this.free += 1
        if this.free > before:
            this.lanes.publish(this.freed, this.free)

    def _send(self, this: _Run) -> None:
        slot, words = this.sent % self._depth, this.words[this.sent]
        target, source = self._views[slot].words[:words], self._host[slot][:words]
        this.sent += 1
        if not self._on_gpu:
            target.copy_(source)
            this.free = this.sent
            this.lanes.publish(this.freed, this.free)
            return
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._consumed[slot])
            target.copy_(source, non_blocking=True)
            self._arrived[slot].record(self._stream)


def _is_done(event: torch.cuda.Event) -> bool:
    return bool(event.query())  # type: ignore[no-untyped-call]


class _Run:
    """Where one pass over the feeds stands."""

    def __init__(self, lanes: Lanes, fed: Cells, freed: int, words: list[int]) -> None:
        self.lanes, self.fed, self.freed, self.words = lanes, fed, freed, words
        self.sent = self.free = 0
