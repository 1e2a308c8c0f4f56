"""Where the bytes of a feed come from: pinned buffers that lanes fill, or the mapped file itself.

Place in the flow: `fae.embedding.feed_ring` asks for one batch after the other and says which steps are launched.
Copying straight from the file takes no core; it needs a driver that locks mapped pages, and memory for
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

from fae.core.lanes import Cells, Lanes, last_turn
from fae.embedding.mover import Mover
from fae.kernels import driver
from fae.kernels.driver import COPY, RECORD, WAIT, command_table
from fae.kernels.feed import FeedTable, feed_lane
from fae.kernels.moves import move_feeds


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

    @property
    def waited(self) -> float:
        """Seconds that the consumer has waited for bytes."""

    def bring(self, position: int) -> None:
        """Wait for a batch's bytes (on a GPU: until their copy is started, and let the computing stream wait)."""

    def leave(self, position: int) -> None:
        """The step of this batch is launched."""

    def stop(self) -> None:
        """End; copies may still be on their way."""


def start_moves(
    lanes: Lanes,
    targets: Sequence[FeedTarget],
    count: int,
    copies: Callable[[npt.NDArray[np.int64], int], Sequence[Sequence[Any]]],
    *,
    fed: Cells,
    freed: Cells,
) -> Mover:
    """Start the lane that sends the feeds of one pass to the ring's places in turn.

    Parameters
    ----------
    copies
        Those of ``(words, stream)``: int64 ``[count]``, where each batch's feed lies, and the stream's handle.
    fed, freed
        As `fae.kernels.moves.move_feeds` takes them.
    """
    assert targets[0].stream is not None
    places, stream = np.arange(count) % len(targets), targets[0].stream.cuda_stream
    words = np.array([target.words.data_ptr() for target in targets], np.int64)[places]
    arrived, consumed = (
        driver.handles([getattr(target, name) for target in targets]) for name in ("arrived", "consumed")
    )
    # Wait until the place is consumed, copy, record the arrival.
    commands = command_table(
        count, [(WAIT, stream, consumed[places]), *copies(words, stream), (RECORD, arrived[places], stream)]
    )
    device = targets[0].words.device
    return Mover(lanes, device, arrived, consumed, move_feeds, count, fed, freed, commands, arrived)


class LaneSource:
    """Lanes copy each batch into one of several host buffers (int32, pinned where the device is a GPU).

    Parameters
    ----------
    buffers
        As many as there are `targets`.
    targets
        The ring's places; batch p goes to place ``p % len(targets)``, and into the buffer of that number before.
    """

    def __init__(
        self, table: FeedTable, buffers: Sequence[Tensor], num_lanes: int, targets: Sequence[FeedTarget]
    ) -> None:
        assert len(buffers) == len(targets)
        self._lanes, self._buffers, self._targets = Lanes("feed"), buffers, targets
        self._words = table.words.tolist()
        self._fed, self._freed = self._lanes.cells(num_lanes), self._lanes.cells(1)
        addresses = np.array([buffer.data_ptr() for buffer in buffers], np.int64)
        self._mover: Mover | None = None
        try:
            for first, cell in enumerate(self._fed.tolist()):
                self._lanes.start(
                    f"feed {first}", feed_lane, cell, int(self._freed[0]), first, num_lanes, table.headers,
                    table.pieces, addresses, end=last_turn(first, num_lanes, len(table.headers)),
                )  # fmt: skip
            if targets[0].stream is not None:
                sources, sizes = addresses[np.arange(len(self._words)) % len(addresses)], 4 * table.words
                self._mover = start_moves(
                    self._lanes, targets, len(self._words),
                    lambda words, stream: [(COPY, words, sources, sizes, stream)], fed=self._fed, freed=self._freed,
                )  # fmt: skip
        except BaseException:  # nobody else knows of those that have started
            self._lanes.stop()
            raise

    @property
    def waited(self) -> float:
        """As `FeedSource.waited`."""
        return self._lanes.waited

    def bring(self, position: int) -> None:
        """As `FeedSource.bring`."""
        if self._mover is not None:
            self._mover.bring(position)
            return
        lane = position % len(self._fed)
        self._lanes.wait(self._fed[lane : lane + 1], position + 1)
        place, words = position % len(self._targets), self._words[position]
        self._targets[place].words[:words].copy_(self._buffers[place][:words])
        self._lanes.publish(int(self._freed[0]), position + 1)

    def leave(self, position: int) -> None:
        """As `FeedSource.leave`."""
        if self._mover is not None:
            self._mover.leave(position)

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

    def __init__(self, table: FeedTable, targets: Sequence[FeedTarget]) -> None:
        count = len(table.headers)
        self._headers = torch.from_numpy(table.headers).pin_memory()
        row_bytes = 4 * table.headers.shape[1]
        header = self._headers.data_ptr() + row_bytes * np.arange(count)

        def copies(words: npt.NDArray[np.int64], stream: int) -> Sequence[Sequence[Any]]:
            pieces = np.transpose(table.pieces, (1, 2, 0))
            return [
                (COPY, words, header, row_bytes, stream),
                *((COPY, words + place, source, size, stream) for source, place, size in pieces),
            ]

        self._lanes, nobody = Lanes("feed"), np.zeros(0, np.int64)
        self._mover = start_moves(self._lanes, targets, count, copies, fed=nobody, freed=nobody)

    @property
    def waited(self) -> float:
        """As `FeedSource.waited`."""
        return self._lanes.waited

    def bring(self, position: int) -> None:
        """As `FeedSource.bring`."""
        self._mover.bring(position)

    def leave(self, position: int) -> None:
        """As `FeedSource.leave`."""
        self._mover.leave(position)

    def stop(self) -> None:
        """As `FeedSource.stop`."""
        self._lanes.stop()
