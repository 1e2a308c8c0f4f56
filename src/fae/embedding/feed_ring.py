"""A ring of feeds: batches from mapped files to the device, ahead of the step, on a stream of their own.

Place in the flow: threads copy packed batches into pinned buffers, each thread every so many batches, and start one
copy to the device; the consumer gets it when the computing stream has been told to wait for it. Invariant: a buffer is
written again only when the copy out of it (pinned) or the step that reads it (device) is done; positions decide, never
timing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial

import torch
from torch import Tensor

from fae.core.threads import num_threads
from fae.core.worker import Worker
from fae.embedding.batch import FeedSlot
from fae.kernels.feed import FeedLayout, FeedViews
from fae.packing.dataset import BatchSet, PackedBatch


class FeedRing:
    """Buffers of `depth` feeds.

    Attributes
    ----------
    generation
        Grows when the buffers are replaced by larger ones.
    """

    def __init__(self, layout: FeedLayout, depth: int, device: torch.device) -> None:
        self.layout, self._depth, self._device, self._on_gpu = layout, depth, device, device.type == "cuda"
        self.generation, self._num_words = 0, 0
        # A thread copies some 8 GB/s; the batch of 10 MB of a step of half a millisecond wants four of them.
        self._num_threads = max(1, min(4, num_threads() // 4)) if self._on_gpu else 1
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
        """Bytes of the buffers on the device."""
        return 4 * self._num_words * self._depth

    def run(
        self,
        batches: BatchSet,
        order: Sequence[int],
        shifts: Callable[[int], Sequence[int]],
        rate: Callable[[int], float],
    ) -> Generator[tuple[PackedBatch, FeedSlot], None, None]:
        """Yield each batch with its feed; asking for the next one says that this one's work has been launched.

        Parameters
        ----------
        shifts, rate
            Of a position in `order`: what `FeedLayout.fill` writes beside the batch.
        """
        worker = Worker("fae-feed")

        def fill(first: int) -> None:
            for position in range(first, len(order), self._num_threads):
                slot = position % self._depth
                worker.wait("consumed", position - self._depth + 1)
                if self._on_gpu:
                    self._arrived[slot].synchronize()  # the last copy out of the pinned buffer
                packed = batches.batch(int(order[position]))
                words = self.layout.fill(self._host[slot], packed, shifts=shifts(position), rate=rate(position))
                worker.wait("fed", position)  # batches leave in order
                self._send(slot, words)
                worker.reached("fed", position + 1)

        for first in range(self._num_threads):
            worker.start(partial(fill, first))
        try:
            for position, index in enumerate(order):
                slot = position % self._depth
                worker.wait("fed", position + 1)
                if self._on_gpu:
                    torch.cuda.current_stream(self._device).wait_event(self._arrived[slot])
                try:
                    yield (
                        batches.batch(int(index)),
                        FeedSlot(views=self._views[slot], index=slot, generation=self.generation),
                    )
                finally:
                    if self._on_gpu:
                        self._consumed[slot].record(torch.cuda.current_stream(self._device))
                    worker.reached("consumed", position + 1)
        finally:
            worker.stop()

    def _send(self, slot: int, words: int) -> None:
        target, source = self._views[slot].words[:words], self._host[slot][:words]
        if not self._on_gpu:
            target.copy_(source)
            return
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._consumed[slot])
            target.copy_(source, non_blocking=True)
            self._arrived[slot].record(self._stream)
