"""Where the bytes of a feed come from: pinned buffers that lanes fill, or the mapped file itself.

Place in the flow: `fae.embedding.feed_ring` asks whether a batch's bytes are there, starts its copy, and says when
copies are done. Copying straight from the file takes no core; it needs a driver that locks mapped pages, and memory for
all of them at once. Invariant: whatever the source, the device gets the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.core.lanes import Lanes, last_turn
from fae.kernels.driver import COPY, RECORD, WAIT, Commands, command_table
from fae.kernels.feed import FeedTable, feed_lane


@dataclass(frozen=True, kw_only=True)
class FeedTarget:
    """A place of the ring on the device.

    Attributes
    ----------
    words
        int32, the feed.
    stream
        Of the copies; None where the device is a CPU, which has no events either.
    arrived, consumed
        The copy is done; the last step that reads the place is.
    """

    words: Tensor
    stream: torch.cuda.Stream | None = None
    arrived: torch.cuda.Event | None = None
    consumed: torch.cuda.Event | None = None


class FeedSource(Protocol):
    """What a ring of feeds asks for; positions in order."""

    reuses_buffers: bool
    """Whether it wants to know (`copied`) which copies are done."""

    @property
    def waited(self) -> float:
        """Seconds that the consumer has waited for bytes."""

    def has(self, position: int) -> bool:
        """Whether the bytes of this batch are there."""

    def wait(self, position: int, meanwhile: Callable[[], None]) -> None:
        """Wait until they are."""

    def start_copy(self, position: int, target: FeedTarget) -> None:
        """Start the copy to a place of the ring, once that is consumed."""

    def copied(self, count: int) -> None:
        """The copies of so many batches are done."""

    def stop(self) -> None:
        """End; copies may still be on their way."""


def copy_commands(
    targets: Sequence[FeedTarget],
    count: int,
    copies: Callable[[npt.NDArray[np.int64], int], Sequence[Sequence[Any]]],
) -> npt.NDArray[np.int64]:
    """Of `count` batches, to the ring's places in turn: wait until the place is consumed, copy, record the arrival.

    Parameters
    ----------
    copies
        The copies of ``(words, stream)``: int64 ``[count]``, where each batch's feed lies, and the stream's handle.
    """
    places = np.arange(count) % len(targets)
    words = np.array([target.words.data_ptr() for target in targets], np.int64)[places]
    arrived, consumed = (
        np.array([getattr(target, name).cuda_event for target in targets], np.int64)[places]
        for name in ("arrived", "consumed")
    )
    assert targets[0].stream is not None
    stream = targets[0].stream.cuda_stream
    return command_table(count, [(WAIT, stream, consumed), *copies(words, stream), (RECORD, arrived, stream)])


class LaneSource:
    """Lanes copy each batch into one of several host buffers (int32, pinned where the device is a GPU).

    Parameters
    ----------
    buffers
        As many as there are `targets`.
    targets
        The ring's places; batch p goes to place ``p % len(targets)``, and into the buffer of that number before.
    """

    reuses_buffers = True

    def __init__(
        self, table: FeedTable, buffers: Sequence[Tensor], num_lanes: int, targets: Sequence[FeedTarget]
    ) -> None:
        assert len(buffers) == len(targets)
        self._lanes, self._buffers, self._words = Lanes("feed"), buffers, table.words.tolist()
        self._fed, self._freed = self._lanes.cells(num_lanes), self._lanes.cell()
        self._fed_by = [self._fed[lane : lane + 1] for lane in range(num_lanes)]
        addresses = np.array([buffer.data_ptr() for buffer in buffers], np.int64)
        self._driver = None if targets[0].stream is None else Commands()
        if self._driver is not None:  # from Python a copy with its wait and its record takes ten times as long
            sources, sizes = addresses[np.arange(len(self._words)) % len(addresses)], 4 * table.words
            self._commands = copy_commands(
                targets, len(self._words), lambda words, stream: [(COPY, words, sources, sizes, stream)]
            )
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
        return self._lanes.have(self._fed_by[position % len(self._fed_by)], position + 1)

    def wait(self, position: int, meanwhile: Callable[[], None]) -> None:
        """As `FeedSource.wait`."""
        self._lanes.wait(self._fed_by[position % len(self._fed_by)], position + 1, meanwhile)

    def start_copy(self, position: int, target: FeedTarget) -> None:
        """As `FeedSource.start_copy`."""
        if self._driver is not None:
            self._driver.run(self._commands[position])
            return
        words = self._words[position]
        target.words[:words].copy_(self._buffers[position % len(self._buffers)][:words])

    def copied(self, count: int) -> None:
        """As `FeedSource.copied`."""
        self._lanes.publish(self._freed, count)

    def stop(self) -> None:
        """As `FeedSource.stop`."""
        self._lanes.stop()


class MappedSource:
    """The files' own pages, which the driver has locked (`fae.kernels.driver.RegisteredArrays`).

    Parameters
    ----------
    targets
        The ring's places; batch p goes to place ``p % len(targets)``.
    """

    reuses_buffers = False

    def __init__(self, table: FeedTable, targets: Sequence[FeedTarget]) -> None:
        self._driver, count = Commands(), len(table.headers)
        self._headers = torch.from_numpy(table.headers).pin_memory()
        row_bytes = 4 * table.headers.shape[1]
        header = self._headers.data_ptr() + row_bytes * np.arange(count)

        def copies(words: npt.NDArray[np.int64], stream: int) -> Sequence[Sequence[Any]]:
            pieces = np.transpose(table.pieces, (1, 2, 0))
            return [
                (COPY, words, header, row_bytes, stream),
                *((COPY, words + place, source, size, stream) for source, place, size in pieces),
            ]

        self._commands = copy_commands(targets, count, copies)

    @property
    def waited(self) -> float:
        """As `FeedSource.waited`."""
        return 0.0

    def has(self, position: int) -> bool:
        """As `FeedSource.has`."""
        return True

    def wait(self, position: int, meanwhile: Callable[[], None]) -> None:
        """As `FeedSource.wait`."""

    def start_copy(self, position: int, target: FeedTarget) -> None:
        """As `FeedSource.start_copy`."""
        self._driver.run(self._commands[position])

    def copied(self, count: int) -> None:
        """As `FeedSource.copied`."""

    def stop(self) -> None:
        """As `FeedSource.stop`."""
