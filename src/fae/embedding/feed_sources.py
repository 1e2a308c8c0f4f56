"""Where the bytes of a feed come from: pinned buffers that lanes fill, or the mapped file itself.

Place in the flow: `fae.embedding.feed_ring` asks whether a batch's bytes are there, starts its copy, and says when
copies are done. Copying straight from the file takes no core; it needs a driver that locks mapped pages, and memory for
all of them at once. Invariant: whatever the source, the device gets the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fae.core.lanes import Lanes, last_turn
from fae.kernels.driver import copy_function, start_copies
from fae.kernels.feed import FeedTable, feed_lane


class FeedSource(Protocol):
    """What a ring of feeds asks for; positions in order."""

    @property
    def waited(self) -> float:
        """Seconds that the consumer has waited for bytes."""

    def has(self, position: int) -> bool:
        """Whether the bytes of this batch are there."""

    def wait(self, position: int, meanwhile: Callable[[], None]) -> None:
        """Wait until they are."""

    def start_copy(self, position: int, target: Tensor) -> None:
        """Start the copy to `target` (int32 words) on the current stream."""

    def copied(self, count: int) -> None:
        """The copies of so many batches are done."""

    def stop(self) -> None:
        """End; copies may still be on their way."""


class LaneSource:
    """Lanes copy each batch into one of several host buffers (int32, pinned where the device is a GPU)."""

    def __init__(self, table: FeedTable, buffers: Sequence[Tensor], num_lanes: int) -> None:
        self._lanes, self._buffers, self._words = Lanes("feed"), buffers, table.words.tolist()
        self._fed, self._freed = self._lanes.cells(num_lanes), self._lanes.cell()
        addresses = np.array([buffer.data_ptr() for buffer in buffers], np.int64)
        try:
            for first, cell in enumerate(self._fed.tolist()):
                self._lanes.start(
                    f"feed {first}", feed_lane, cell, self._freed, first, num_lanes, table.headers, table.pieces,
                    addresses, end=last_turn(first, num_lanes, len(table.headers)),
                )  # fmt: skip
        except BaseException:  # nobody else knows of those that have started
            self._lanes.stop()
            raise

    @property
    def waited(self) -> float:
        """As `FeedSource.waited`."""
        return self._lanes.waited

    def has(self, position: int) -> bool:
        """As `FeedSource.has`."""
        return self._lanes.have(self._fed[[position % len(self._fed)]], position + 1)

    def wait(self, position: int, meanwhile: Callable[[], None]) -> None:
        """As `FeedSource.wait`."""
        self._lanes.wait(self._fed[[position % len(self._fed)]], position + 1, meanwhile)

    def start_copy(self, position: int, target: Tensor) -> None:
        """As `FeedSource.start_copy`."""
        words = self._words[position]
        target[:words].copy_(self._buffers[position % len(self._buffers)][:words], non_blocking=True)

    def copied(self, count: int) -> None:
        """As `FeedSource.copied`."""
        self._lanes.publish(self._freed, count)

    def stop(self) -> None:
        """As `FeedSource.stop`."""
        self._lanes.stop()


class MappedSource:
    """The files' own pages, which the driver has locked (`fae.kernels.driver.RegisteredArrays`)."""

    def __init__(self, table: FeedTable) -> None:
        self._function = copy_function()
        self._headers = torch.from_numpy(table.headers).pin_memory()
        places = np.zeros((len(table.headers), 1, 3), np.int64)
        row_bytes = 4 * table.headers.shape[1]
        places[:, 0, 0] = self._headers.data_ptr() + row_bytes * np.arange(len(table.headers))
        places[:, 0, 2] = row_bytes
        self._pieces = np.concatenate([places, table.pieces], axis=1)

    @property
    def waited(self) -> float:
        """As `FeedSource.waited`."""
        return 0.0

    def has(self, position: int) -> bool:
        """As `FeedSource.has`."""
        return True

    def wait(self, position: int, meanwhile: Callable[[], None]) -> None:
        """As `FeedSource.wait`."""

    def start_copy(self, position: int, target: Tensor) -> None:
        """As `FeedSource.start_copy`."""
        stream = torch.cuda.current_stream(target.device).cuda_stream
        code = start_copies(self._function, stream, target.data_ptr(), self._pieces[position])
        if code != 0:
            raise RuntimeError(f"the driver refused a copy out of the packed files (CUDA error {code})")

    def copied(self, count: int) -> None:
        """As `FeedSource.copied`."""

    def stop(self) -> None:
        """As `FeedSource.stop`."""
