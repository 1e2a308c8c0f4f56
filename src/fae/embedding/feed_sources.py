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

from fae.core.lanes import Lanes, last_turn
from fae.kernels import driver, turns
from fae.kernels.driver import COPY, RECORD, WAIT, command_table, require_success
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

    @property
    def waited(self) -> float:
        """Seconds that the consumer has waited for bytes."""

    def bring(self, position: int) -> bool:
        """Start copies as far ahead as places are free, now that all steps before `position` are launched.

        On a GPU the computing stream waits for that of `position`. False where its bytes are not there yet.
        """

    def wait(self, position: int) -> None:
        """Wait until they are."""

    def leave(self, count: int) -> None:
        """The steps of the first `count` batches are launched, and nobody brings another."""

    def stop(self) -> None:
        """End; copies may still be on their way."""


_NO_CELLS = np.zeros(0, np.int64)
_NO_COUNTERS = np.zeros((1, 8), np.int64)


class FeedCopies:
    """The copies of one pass to the ring's places in turn, as commands of the driver.

    Parameters
    ----------
    copies
        Those of ``(words, stream)``: int64 ``[count]``, where each batch's feed lies, and the stream's handle.
    counters, fed, freed
        Of lanes that fill buffers, where there are any: `fae.kernels.turns.bring_feed`.
    """

    def __init__(
        self,
        targets: Sequence[FeedTarget],
        count: int,
        copies: Callable[[npt.NDArray[np.int64], int], Sequence[Sequence[Any]]],
        *,
        counters: npt.NDArray[np.int64] = _NO_COUNTERS,
        fed: npt.NDArray[np.int64] = _NO_CELLS,
        freed: npt.NDArray[np.int64] = _NO_CELLS,
    ) -> None:
        assert targets[0].stream is not None
        places, stream = np.arange(count) % len(targets), targets[0].stream.cuda_stream
        words = np.array([target.words.data_ptr() for target in targets], np.int64)[places]
        self._arrived, self._consumed = (
            driver.handles([getattr(target, name) for target in targets]) for name in ("arrived", "consumed")
        )
        # Wait until the place is consumed, copy, record the arrival.
        self._commands = command_table(
            count,
            [
                (WAIT, stream, self._consumed[places]), *copies(words, stream),
                (RECORD, self._arrived[places], stream),
            ],
        )  # fmt: skip
        self._counters, self._fed, self._freed = counters, fed, freed
        self._device, self._functions = targets[0].words.device, driver.command_functions()
        self._progress = np.zeros(3, np.int64)

    def bring(self, position: int) -> bool:
        """As `FeedSource.bring`."""
        code = turns.bring_feed(
            self._functions, self._counters, self._fed, self._freed, self._commands, self._arrived, self._consumed,
            self._progress, position, driver.current_stream(self._device),
        )  # fmt: skip
        if code == turns.NOT_THERE:
            return False
        require_success(code)
        return True

    def see(self) -> None:
        """Tell the lanes which buffers are free again."""
        started = self._progress[turns.STARTED]
        require_success(turns.see(self._functions, self._counters, self._freed, self._arrived, self._progress, started))

    def leave(self, count: int) -> None:
        """As `FeedSource.leave`."""
        compute = driver.current_stream(self._device)
        require_success(turns.leave_feeds(self._functions, self._consumed, self._progress, count, compute))


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
        self._words, self._sent = table.words.tolist(), 0
        self._fed, self._freed = self._lanes.cells(num_lanes), self._lanes.cells(1)
        self._fed_by = [self._fed[lane : lane + 1] for lane in range(num_lanes)]
        addresses = np.array([buffer.data_ptr() for buffer in buffers], np.int64)
        self._copies: FeedCopies | None = None
        if targets[0].stream is not None:
            sources, sizes = addresses[np.arange(len(self._words)) % len(addresses)], 4 * table.words
            self._copies = FeedCopies(
                targets, len(self._words), lambda words, stream: [(COPY, words, sources, sizes, stream)],
                counters=self._lanes.counters, fed=self._fed, freed=self._freed,
            )  # fmt: skip
        try:
            for first, cell in enumerate(self._fed.tolist()):
                self._lanes.start(
                    f"feed {first}", feed_lane, cell, int(self._freed[0]), first, num_lanes, table.headers,
                    table.pieces, addresses, end=last_turn(first, num_lanes, len(table.headers)),
                )  # fmt: skip
        except BaseException:  # nobody else knows of those that have started
            self._lanes.stop()
            raise

    @property
    def waited(self) -> float:
        """As `FeedSource.waited`."""
        return self._lanes.waited

    def bring(self, position: int) -> bool:
        """As `FeedSource.bring`."""
        if self._copies is not None:
            return self._copies.bring(position)
        while self._sent < min(position + len(self._targets), len(self._words)):
            place = self._sent % len(self._targets)
            if not self._lanes.have(self._fed_by[self._sent % len(self._fed_by)], self._sent + 1):
                break
            words = self._words[self._sent]
            self._targets[place].words[:words].copy_(self._buffers[place][:words])
            self._sent += 1
            self._lanes.publish(int(self._freed[0]), self._sent)
        return self._sent > position

    def wait(self, position: int) -> None:
        """As `FeedSource.wait`."""
        meanwhile = {} if self._copies is None else {"meanwhile": self._copies.see}
        self._lanes.wait(self._fed_by[position % len(self._fed_by)], position + 1, **meanwhile)

    def leave(self, count: int) -> None:
        """As `FeedSource.leave`."""
        if self._copies is not None:
            self._copies.leave(count)

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

        self._copies = FeedCopies(targets, count, copies)

    @property
    def waited(self) -> float:
        """As `FeedSource.waited`."""
        return 0.0

    def bring(self, position: int) -> bool:
        """As `FeedSource.bring`."""
        return self._copies.bring(position)

    def wait(self, position: int) -> None:
        """As `FeedSource.wait`."""

    def leave(self, count: int) -> None:
        """As `FeedSource.leave`."""
        self._copies.leave(count)

    def stop(self) -> None:
        """As `FeedSource.stop`."""
