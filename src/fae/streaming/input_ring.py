"""InputRing: batches copied from mapped files to the device ahead of the step, on a stream of their own.

An `InputSource` provides the bytes of each batch. A worker thread starts one batch's copy after the other, as far ahead
as the ring has places, and the consumer gets a batch when the computing stream has been told to wait for its copy. A
buffer is written again only when the copy out of it (pinned) or the step that reads it (device) is done. Positions
decide, never timing.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Generator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fae.artifacts.packed import BatchSet, PackedBatch
from fae.core.host_memory import available_bytes
from fae.core.own_pages import owns_pages
from fae.core.threads import num_threads
from fae.kernels.input_views import InputViews
from fae.streaming.cuda_commands import RegisteredArrays, new_events
from fae.streaming.input_layout import InputLayout, InputTable
from fae.streaming.input_sources import BufferSource, InputSource, InputTarget, MappedSource
from fae.streaming.ready_batch import InputSlot

_SMALLEST_MAPPED = 2**18
"""Bytes from which a batch is copied out of the mapped file, piece by piece: some eight copies in place of one."""
_MEMORY_SHARE = 0.5
"""Files are locked up to this share of the available host memory."""


class InputRing:
    """A ring of `depth` input buffers on the device.

    Attributes
    ----------
    generation
        Grows when the buffers are replaced by larger ones.
    held
        How many batches before the current one are still read.
    num_workers
        Threads that fill host buffers, where the device does not copy from the files.
    source
        The source of the latest run.
    """

    source: InputSource

    def __init__(self, layout: InputLayout, depth: int, device: torch.device, *, held: int = 0) -> None:
        self.held = held
        self.layout, self._depth, self._device, self._on_gpu = layout, depth, device, device.type == "cuda"
        self.generation, self._num_words = 0, 0
        # A thread copies some 8 GB/s; a batch of 10 MB every half a millisecond needs three or four of them.
        self.num_workers = max(1, min(4, num_threads() // 4)) if self._on_gpu else 1
        self._host: list[Tensor] = []
        self._views: list[InputViews] = []
        self._targets: list[InputTarget] = []
        if self._on_gpu:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._arrived, self._consumed = (new_events(depth, self._stream) for _ in range(2))

    def reserve(self, batches: BatchSet, largest: Callable[[int], int] | None = None) -> None:
        """Make room for the largest of these batches; `largest` says what all ranks need, from what this one does."""
        words = self.layout.num_words(batches)
        if largest is not None:
            words = largest(words)
        if words <= self._num_words:
            return
        if self._on_gpu:
            torch.cuda.synchronize(self._device)
        self._num_words, self.generation = words, self.generation + 1
        # Freed before there are new ones: memory plans do not count both.
        self._host, self._views, self._targets = [], [], []
        self._views = [
            self.layout.views(torch.zeros(words, dtype=torch.int32, device=self._device)) for _ in range(self._depth)
        ]
        self._targets = [InputTarget(words=views.words) for views in self._views]
        if self._on_gpu:  # the computing stream fills them with zeros
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            self._targets = [
                InputTarget(words=views.words, stream=self._stream, arrived=arrived, consumed=consumed)
                for views, arrived, consumed in zip(self._views, self._arrived, self._consumed, strict=True)
            ]

    @property
    def device_bytes(self) -> int:
        """Bytes of the buffers on the device; host buffers of as many bytes, or the files, are pinned."""
        return 4 * self._num_words * self._depth

    def views_before(self, index: int) -> InputViews:
        """The buffer of the batch before the one in buffer `index`."""
        return self._views[index - 1]

    def run(
        self, batches: BatchSet, order: npt.NDArray[np.int64], table: InputTable
    ) -> Generator[tuple[PackedBatch, InputSlot], None, None]:
        """Yield each batch with its input buffer on the device.

        By taking the next batch the consumer says that the work of this one has been launched.

        Parameters
        ----------
        table
            `InputLayout.table` of the same batches.
        """
        source = self.source = self._open(batches, table)
        slots = [
            InputSlot(views=views, index=index, generation=self.generation) for index, views in enumerate(self._views)
        ]
        try:
            for position, index in enumerate(order.tolist()):
                source.acquire(position)
                try:
                    yield batches.batch(index), slots[position % self._depth]
                finally:
                    if position >= self.held:
                        source.release(position - self.held)
        finally:
            source.stop()
            if self._on_gpu:  # the next run may write memory that copies still read
                self._stream.synchronize()
            if self.held:
                self.follow_steps()

    def follow_steps(self) -> None:
        """Let copies of coming runs wait for what is launched: nothing else says so of batches that are held."""
        if self._on_gpu:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))

    def _open(self, batches: BatchSet, table: InputTable) -> InputSource:
        if self._on_gpu and 4 * self._num_words >= _SMALLEST_MAPPED and self._register(batches, table):
            return MappedSource(table, self._targets)
        if not self._host:
            self._host = [
                torch.zeros(self._num_words, dtype=torch.int32, pin_memory=self._on_gpu) for _ in range(self._depth)
            ]
        return BufferSource(table, self._host, self.num_workers, self._targets)

    def _register(self, batches: BatchSet, table: InputTable) -> bool:
        """Whether the device can copy from the files of these batches; they are locked once, for all rings."""
        if not all(map(owns_pages, table.sources)):  # batches in memory: their pages are others' too
            return False
        locked_with = batches.locked_with
        if locked_with not in _registered:
            _registered[locked_with] = RegisteredArrays()
            # Not at exit: the system unlocks the memory of a process that ends, and the driver may be gone by then.
            weakref.finalize(locked_with, _release, _registered[locked_with]).atexit = False
        registered = _registered[locked_with]
        # Memory that is locked already does not count as available, so only the missing bytes are compared.
        return registered.missing_bytes(table.sources) <= _MEMORY_SHARE * available_bytes() and registered.add(
            table.sources
        )


class InputRings:
    """A ring for each of several slices of a batch, which go round together; one ring where batches are whole.

    Parameters
    ----------
    count
        Slices.
    """

    def __init__(self, layout: InputLayout, depth: int, device: torch.device, *, held: int, count: int) -> None:
        self.layout = layout
        self._rings = [InputRing(layout, depth, device, held=held) for _ in range(count)]
        for ring in self._rings:
            ring.num_workers = max(1, ring.num_workers // count)

    @property
    def generation(self) -> int:
        """Grows when the buffers of a ring are replaced by larger ones."""
        return sum(ring.generation for ring in self._rings)

    @property
    def device_bytes(self) -> int:
        """As `InputRing.device_bytes`, of all."""
        return sum(ring.device_bytes for ring in self._rings)

    def reserve(self, parts: Sequence[BatchSet], largest: Callable[[int], int] | None = None) -> None:
        """As `InputRing.reserve`, of the batches of each slice."""
        for ring, part in zip(self._rings, parts, strict=True):
            ring.reserve(part, largest)

    def views_before(self, index: int) -> InputViews:
        """As `InputRing.views_before`, of the first slice."""
        return self._rings[0].views_before(index)

    def follow_steps(self) -> None:
        """As `InputRing.follow_steps`."""
        for ring in self._rings:
            ring.follow_steps()

    def run(
        self, parts: Sequence[BatchSet], order: npt.NDArray[np.int64], tables: Sequence[InputTable]
    ) -> Generator[tuple[tuple[PackedBatch, InputSlot], ...], None, None]:
        """As `InputRing.run`, all slices of a batch together."""
        with contextlib.ExitStack() as runs:
            streams = [
                runs.enter_context(contextlib.closing(ring.run(part, order, table)))
                for ring, part, table in zip(self._rings, parts, tables, strict=True)
            ]
            yield from zip(*streams, strict=True)


_registered: weakref.WeakKeyDictionary[object, RegisteredArrays] = weakref.WeakKeyDictionary()


def _release(arrays: RegisteredArrays) -> None:
    with contextlib.suppress(Exception):  # called by the garbage collector, where no caller could handle it
        arrays.release()
