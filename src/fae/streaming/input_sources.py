"""Where the bytes of a feed come from: pinned buffers that lanes fill, or the mapped file itself.

Place in the flow: `fae.streaming.input_ring` asks for one batch after the other and says which steps are launched.
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

from fae.streaming import cuda_commands
from fae.streaming.copier import Copier
from fae.streaming.copy_loops import copy_inputs
from fae.streaming.cuda_commands import COPY, RECORD, WAIT, command_table
from fae.streaming.input_layout import InputTable, fill_buffers
from fae.streaming.workers import CounterIds, WorkerGroup, last_turn


@dataclass(frozen=True, kw_only=True)
class InputTarget:
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


class InputSource(Protocol):
    """What a ring of feeds asks for; positions in order."""

    @property
    def waited(self) -> float:
        """Seconds that the consumer has waited for bytes."""

    def acquire(self, position: int) -> None:
        """Wait for a batch's bytes (on a GPU: until their copy is started, and let the computing stream wait)."""

    def release(self, position: int) -> None:
        """The step of this batch is launched."""

    def stop(self) -> None:
        """End; copies may still be on their way."""


def start_copies(
    lanes: WorkerGroup,
    targets: Sequence[InputTarget],
    count: int,
    copies: Callable[[npt.NDArray[np.int64], int], Sequence[Sequence[Any]]],
    *,
    fed: CounterIds,
    freed: CounterIds,
) -> Copier:
    """Start the lane that sends the feeds of one pass to the ring's places in turn.

    Parameters
    ----------
    copies
        Those of ``(words, stream)``: int64 ``[count]``, where each batch's feed lies, and the stream's handle.
    fed, freed
        As `fae.streaming.copy_loops.copy_inputs` takes them.
    """
    assert targets[0].stream is not None
    places, stream = np.arange(count) % len(targets), targets[0].stream.cuda_stream
    words = np.array([target.words.data_ptr() for target in targets], np.int64)[places]
    arrived, consumed = (
        cuda_commands.handles([getattr(target, name) for target in targets]) for name in ("arrived", "consumed")
    )
    # Wait until the place is consumed, copy, record the arrival.
    commands = command_table(
        count, [(WAIT, stream, consumed[places]), *copies(words, stream), (RECORD, arrived[places], stream)]
    )
    device = targets[0].words.device
    return Copier(lanes, device, arrived, consumed, copy_inputs, count, fed, freed, commands, arrived)


class BufferSource:
    """WorkerGroup copy each batch into one of several host buffers (int32, pinned where the device is a GPU).

    Parameters
    ----------
    buffers
        As many as there are `targets`.
    targets
        The ring's places; batch p goes to place ``p % len(targets)``, and into the buffer of that number before.
    """

    def __init__(
        self, table: InputTable, buffers: Sequence[Tensor], num_workers: int, targets: Sequence[InputTarget]
    ) -> None:
        assert len(buffers) == len(targets)
        self._lanes, self._buffers, self._targets = WorkerGroup("feed"), buffers, targets
        self._words = table.words.tolist()
        self._fed, self._freed = self._lanes.cells(num_workers), self._lanes.cells(1)
        addresses = np.array([buffer.data_ptr() for buffer in buffers], np.int64)
        self._mover: Copier | None = None
        try:
            for first, cell in enumerate(self._fed.tolist()):
                self._lanes.start(
                    f"feed {first}", fill_buffers, cell, int(self._freed[0]), first, num_workers, table.headers,
                    table.pieces, addresses, end=last_turn(first, num_workers, len(table.headers)),
                )  # fmt: skip
            if targets[0].stream is not None:
                sources, sizes = addresses[np.arange(len(self._words)) % len(addresses)], 4 * table.words
                self._mover = start_copies(
                    self._lanes, targets, len(self._words),
                    lambda words, stream: [(COPY, words, sources, sizes, stream)], fed=self._fed, freed=self._freed,
                )  # fmt: skip
        except BaseException:  # nobody else knows of those that have started
            self._lanes.stop()
            raise

    @property
    def waited(self) -> float:
        """As `InputSource.waited`."""
        return self._lanes.waited

    def acquire(self, position: int) -> None:
        """As `InputSource.acquire`."""
        if self._mover is not None:
            self._mover.acquire(position)
            return
        lane = position % len(self._fed)
        self._lanes.wait(self._fed[lane : lane + 1], position + 1)
        place, words = position % len(self._targets), self._words[position]
        self._targets[place].words[:words].copy_(self._buffers[place][:words])
        self._lanes.publish(int(self._freed[0]), position + 1)

    def release(self, position: int) -> None:
        """As `InputSource.release`."""
        if self._mover is not None:
            self._mover.release(position)

    def stop(self) -> None:
        """As `InputSource.stop`."""
        self._lanes.stop()


class MappedSource:
    """The files' own pages, which the driver has locked (`fae.streaming.cuda_commands.RegisteredArrays`).

    Parameters
    ----------
    targets
        The ring's places; batch p goes to place ``p % len(targets)``.
    """

    def __init__(self, table: InputTable, targets: Sequence[InputTarget]) -> None:
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

        self._lanes, nobody = WorkerGroup("feed"), np.zeros(0, np.int64)
        self._mover = start_copies(self._lanes, targets, count, copies, fed=nobody, freed=nobody)

    @property
    def waited(self) -> float:
        """As `InputSource.waited`."""
        return self._lanes.waited

    def acquire(self, position: int) -> None:
        """As `InputSource.acquire`."""
        self._mover.acquire(position)

    def release(self, position: int) -> None:
        """As `InputSource.release`."""
        self._mover.release(position)

    def stop(self) -> None:
        """As `InputSource.stop`."""
        self._lanes.stop()
