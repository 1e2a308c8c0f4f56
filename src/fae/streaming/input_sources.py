"""Input sources: where the bytes of an input buffer come from, pinned buffers or the mapped file itself.

`fae.streaming.input_ring` acquires one batch after the other and says which steps are launched. Copying straight from
the file takes no core; it needs a driver that locks mapped pages, and memory for all of them at once. The device gets
the same bytes from every source.
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
from fae.streaming.cuda_commands import command_table
from fae.streaming.driver_calls import COPY, RECORD, WAIT
from fae.streaming.input_layout import InputTable, fill_buffers
from fae.streaming.workers import CounterIds, WorkerGroup, last_turn


@dataclass(frozen=True, kw_only=True)
class InputTarget:
    """One of the ring's input buffers on the device, with its stream and events.

    Attributes
    ----------
    words
        The input buffer, int32.
    stream
        The stream of the copies; None on a CPU, where there are no events either.
    arrived
        Recorded behind the copy into the place.
    consumed
        Recorded behind the last step that reads the place.
    """

    words: Tensor
    stream: torch.cuda.Stream | None = None
    arrived: torch.cuda.Event | None = None
    consumed: torch.cuda.Event | None = None


class InputSource(Protocol):
    """Provides an input ring with the bytes of one batch after the other; positions in order."""

    @property
    def waited(self) -> float:
        """Seconds that the consumer has waited for bytes."""

    def acquire(self, position: int) -> None:
        """Wait for a batch's bytes; on a GPU only until their copy is started, and the computing stream waits."""

    def release(self, position: int) -> None:
        """Say that the step of this batch is launched."""

    def stop(self) -> None:
        """End the source's threads; copies may still be running on the device."""


def start_copies(
    workers: WorkerGroup,
    targets: Sequence[InputTarget],
    count: int,
    copies: Callable[[npt.NDArray[np.int64], int], Sequence[Sequence[Any]]],
    *,
    filled: CounterIds,
    freed: CounterIds,
) -> Copier:
    """Start the worker that copies the inputs of one pass to the ring's places in turn.

    Parameters
    ----------
    copies
        Returns the copy commands for ``(words, stream)``: int64 ``[count]``, the address of each batch's place on the
        device, and the stream's handle.
    filled, freed
        As `fae.streaming.copy_loops.copy_inputs` takes them.
    """
    assert targets[0].stream is not None
    places, stream = np.arange(count) % len(targets), targets[0].stream.cuda_stream
    words = np.array([target.words.data_ptr() for target in targets], np.int64)[places]
    arrived, consumed = (
        cuda_commands.handles([getattr(target, name) for target in targets]) for name in ("arrived", "consumed")
    )
    # Wait until the place is consumed, copy, record that the copy is done.
    commands = command_table(
        count, [(WAIT, stream, consumed[places]), *copies(words, stream), (RECORD, arrived[places], stream)]
    )
    device = targets[0].words.device
    return Copier(workers, device, arrived, consumed, copy_inputs, count, filled, freed, commands, arrived)


class BufferSource:
    """Worker threads copy each batch into one of several host buffers, from which it goes to the device.

    Parameters
    ----------
    buffers
        int32, pinned where the device is a GPU; as many as there are `targets`.
    num_workers
        Threads that fill buffers.
    targets
        The ring's places. Batch p is copied to buffer ``p % len(targets)``, then to the place of that number.
    """

    def __init__(
        self, table: InputTable, buffers: Sequence[Tensor], num_workers: int, targets: Sequence[InputTarget]
    ) -> None:
        assert len(buffers) == len(targets)
        self._workers, self._buffers, self._targets = WorkerGroup("input"), buffers, targets
        self._words = table.words.tolist()
        self._filled, self._freed = self._workers.add_counters(num_workers), self._workers.add_counters(1)
        addresses = np.array([buffer.data_ptr() for buffer in buffers], np.int64)
        self._copier: Copier | None = None
        try:
            for first, counter in enumerate(self._filled.tolist()):
                self._workers.start(
                    f"fill {first}", fill_buffers, counter, int(self._freed[0]), first, num_workers, table.headers,
                    table.pieces, addresses, end=last_turn(first, num_workers, len(table.headers)),
                )  # fmt: skip
            if targets[0].stream is not None:
                sources, sizes = addresses[np.arange(len(self._words)) % len(addresses)], 4 * table.words
                self._copier = start_copies(
                    self._workers, targets, len(self._words),
                    lambda words, stream: [(COPY, words, sources, sizes, stream)],
                    filled=self._filled, freed=self._freed,
                )  # fmt: skip
        except BaseException:  # the caller has no source to stop
            self._workers.stop()
            raise

    @property
    def waited(self) -> float:
        """As `InputSource.waited`."""
        return self._workers.waited

    def acquire(self, position: int) -> None:
        """As `InputSource.acquire`."""
        if self._copier is not None:
            self._copier.acquire(position)
            return
        worker = position % len(self._filled)
        self._workers.wait(self._filled[worker : worker + 1], position + 1)
        place, words = position % len(self._targets), self._words[position]
        self._targets[place].words[:words].copy_(self._buffers[place][:words])
        self._workers.publish(int(self._freed[0]), position + 1)

    def release(self, position: int) -> None:
        """As `InputSource.release`."""
        if self._copier is not None:
            self._copier.release(position)

    def stop(self) -> None:
        """As `InputSource.stop`."""
        self._workers.stop()


class MappedSource:
    """The device copies from the files' own pages, which are locked (`fae.streaming.cuda_commands.RegisteredArrays`).

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

        self._workers, none = WorkerGroup("input"), np.zeros(0, np.int64)
        self._copier = start_copies(self._workers, targets, count, copies, filled=none, freed=none)

    @property
    def waited(self) -> float:
        """As `InputSource.waited`."""
        return self._workers.waited

    def acquire(self, position: int) -> None:
        """As `InputSource.acquire`."""
        self._copier.acquire(position)

    def release(self, position: int) -> None:
        """As `InputSource.release`."""
        self._copier.release(position)

    def stop(self) -> None:
        """As `InputSource.stop`."""
        self._workers.stop()
