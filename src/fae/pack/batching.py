"""From inputs in their final order to written batches, on all threads.

Inputs of a kind are a stream. Worker threads read them a block at a time and list their lookups of cold rows; the
calling thread alone cuts the stream into batches, from these lists; worker threads compose groups of batches and write
each to its place in the files. The calling thread never runs further ahead of the writing than `Batcher` allows, which
bounds memory. Where batches end depends on the inputs, their order and the staging rows alone, because the cut is
greedy: each batch takes inputs until it is full or the next one would bring it above the staging rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fae.core.compiled import Int64
from fae.core.progress import Task
from fae.core.threads import num_threads
from fae.pack.compose import Composer, GroupBuffers
from fae.pack.cut_kernels import (
    ColdLookups,
    cut_batches,
    make_cold_lookups,
    make_open_batch,
    make_seen_rows,
)
from fae.pack.log_reader import LogInputs
from fae.pack.writer import SplitWriter

IN_FLIGHT_BYTES = 512 * 2**20
"""Bytes of the buffers of all groups that are composed or written at the same time; one group is always allowed."""


class Block(NamedTuple):
    """Consecutive inputs of a stream that are to be cut.

    Attributes
    ----------
    ranks
        int32 ``[n, S]``: their storage ranks.
    lookups
        Their lookups of cold rows.
    """

    ranks: npt.NDArray[np.int32]
    lookups: ColdLookups


class Stream:
    """What is known of the batches of one kind so far.

    Attributes
    ----------
    num_batches, num_groups
        Batches and groups of them.
    closed_early
        Batches that are not full because the next input's cold rows would not have fitted.
    cold_rows
        int64 ``[G]``: sum of the unique cold rows of all batches.
    """

    def __init__(self, num_table_groups: int) -> None:
        self.num_batches = self.num_groups = self.closed_early = 0
        self.cold_rows = np.zeros(num_table_groups, np.int64)


class Batcher:
    """Cuts, composes and writes the batches of a split; a context manager that stops its threads.

    Parameters
    ----------
    writer
        Takes the batches.

    Attributes
    ----------
    streams
        `Stream` of ``"hot"`` and ``"cold"`` batches.
    """

    def __init__(self, composer: Composer, writer: SplitWriter, progress: Task) -> None:
        self._composer, self._writer, self._progress = composer, writer, progress
        self._threads = num_threads()
        self._most_groups = max(1, min(self._threads + 2, IN_FLIGHT_BYTES // composer.group_bytes))
        # With one thread everything runs in the calling thread, at once and in order.
        self._pool = ThreadPoolExecutor(self._threads, "fae-pack") if self._threads > 1 else None
        self._running: deque[tuple[Future[Int64], str, int, list[Block]]] = deque()
        self._buffers: list[GroupBuffers] = []  # threads take one and put it back
        self._blocks: list[Block] = []
        self.streams = {kind: Stream(len(composer.layout.groups)) for kind in ("hot", "cold")}
        limits = composer.limits
        # One more than the limit is put into the set before a batch is found to be too large.
        self._seen = make_seen_rows(0 if limits is None else int(limits.sum()) + 1)
        self._open = make_open_batch(len(composer.layout.groups))

    def make_batches(self, kind: str, inputs: LogInputs, positions: Int64, *, last: bool) -> int:
        """Make batches of the head of `positions`; returns how many inputs were taken.

        Parameters
        ----------
        kind
            ``"hot"`` where every input is hot: batches then end where they are full. Else ``"cold"``.
        positions
            int64: which of `inputs`, in order.
        last
            Whether a batch may be left unfilled at the end; else those inputs are not taken.
        """
        if kind == "cold" and self._composer.limits is not None:
            return self._make_cut_batches(inputs, positions, last)
        size = self._composer.batch_size
        bounds = np.arange(0, len(positions) + 1, size)
        if last and bounds[-1] < len(positions):
            bounds = np.append(bounds, len(positions))
        step = self._composer.group_batches
        for first in range(0, len(bounds) - 1, step):
            self._start_group(kind, inputs, positions, bounds[first : first + step + 1], [], 0, [])
        return int(bounds[-1])

    def _make_cut_batches(self, inputs: LogInputs, positions: Int64, last: bool) -> int:
        step, size = self._composer.group_batches, self._composer.batch_size
        block_inputs, stream = step * size, self.streams["cold"]
        starts = iter(range(0, len(positions), block_inputs))
        # A thread that looks for work finds a few groups first, and then a block: that many must be under way.
        ahead: deque[Future[Block]] = deque()
        most_ahead = 2 + self._threads // 4
        blocks: deque[Block] = deque()  # those that the batches from bounds[0] on are in
        first_block = 0  # number of the first of them
        bounds: list[int] = [0]
        closed = np.zeros(min(block_inputs, len(positions)), np.int64)
        self._open.begin[0] = 0
        self._open.counts[:] = 0
        self._open.stamp[0] += 1

        def start_group(num_batches: int) -> None:
            nonlocal first_block
            own = np.array(bounds[: num_batches + 1], np.int64)
            del bounds[:num_batches]
            needed = list(blocks)[: (int(own[-1]) - 1) // block_inputs - first_block + 1]
            place, done = first_block * block_inputs, []
            while blocks and (first_block + 1) * block_inputs <= own[-1]:
                done.append(blocks.popleft())
                first_block += 1
            self._start_group("cold", inputs, positions, own, needed, place, done)

        for start in range(0, len(positions), block_inputs):
            while len(ahead) <= most_ahead and (following := next(starts, None)) is not None:
                block = self._blocks.pop() if self._blocks else self._make_block(block_inputs)
                ahead.append(self._submit(self._read_block, inputs, positions[following:][:block_inputs], block))
            block = ahead.popleft().result()
            blocks.append(block)
            count = cut_batches(
                start, min(block_inputs, len(positions) - start), block.lookups, size, self._composer.limits,
                self._seen, self._open, closed,
            )  # fmt: skip
            before = bounds[-1]
            bounds += closed[:count].tolist()
            ends = np.array([before, *bounds[len(bounds) - count :]])
            stream.closed_early += int(np.count_nonzero(np.diff(ends) < size))
            while len(bounds) > step:
                start_group(step)
        if last and bounds[-1] < len(positions):
            bounds.append(len(positions))
        taken = bounds[-1]
        while len(bounds) > 1:
            start_group(min(step, len(bounds) - 1))
        self.drain()
        self._blocks += blocks
        return taken

    def _make_block(self, num_inputs: int) -> Block:
        num_slots = self._composer.layout.num_slots
        return Block(np.empty((num_inputs, num_slots), np.int32), make_cold_lookups(num_inputs, num_slots))

    def _read_block(self, inputs: LogInputs, positions: Int64, block: Block) -> Block:
        self._composer.read_block(inputs, positions, block.ranks, block.lookups)
        return block

    def _start_group(
        self, kind: str, inputs: LogInputs, positions: Int64, bounds: Int64, blocks: list[Block], place: int,
        done: list[Block],
    ) -> None:  # fmt: skip
        """Have a group composed and written.

        Parameters
        ----------
        bounds
            int64: where its batches begin and end in `positions`.
        blocks, place
            The blocks with its ranks, and the place in `positions` at which they begin; none where they are not read.
        done
            Those of them that no later group needs.
        """
        stream = self.streams[kind]
        if len(self._running) >= self._most_groups:
            self._finish_oldest()
        future = self._submit(
            self._make_group, kind, stream.num_groups, stream.num_batches, inputs,
            positions[bounds[0] : bounds[-1]], bounds - bounds[0], blocks, int(bounds[0]) - place,
        )  # fmt: skip
        stream.num_groups += 1
        stream.num_batches += len(bounds) - 1
        self._running.append((future, kind, int(bounds[-1] - bounds[0]), done))

    def _make_group(
        self, kind: str, group: int, first: int, inputs: LogInputs, positions: Int64, bounds: Int64,
        blocks: list[Block], skipped: int,
    ) -> Int64:  # fmt: skip
        """Compose and write a group; returns int64 ``[G]``, the sum of its batches' cold rows."""
        try:
            buffers = self._buffers.pop() if self._buffers else self._composer.make_buffers()
            ranks = buffers.ranks
            if not blocks:
                self._composer.gather_ranks(inputs, positions, ranks)
            elif len(blocks) == 1:
                ranks = blocks[0].ranks[skipped:]
            else:
                at = 0
                for block in blocks:
                    part = block.ranks[skipped : skipped + len(positions) - at]
                    ranks[at : at + len(part)] = part
                    at, skipped = at + len(part), 0
            self._composer.compose(buffers, ranks, inputs, positions, bounds, 0, len(bounds) - 1)
            arrays = self._composer.batch_arrays(buffers, bounds, weighted=inputs.weights is not None)
            self._writer.write(kind, group, first, arrays)
            self._buffers.append(buffers)
            return np.array(arrays.cold_offsets[-1])
        except BaseException as fault:
            self._writer.give_up(kind, fault)
            raise

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        if self._pool is not None:
            return self._pool.submit(function, *arguments)
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future

    def _finish_oldest(self) -> None:
        future, kind, num_inputs, done = self._running.popleft()
        self.streams[kind].cold_rows += future.result()
        self._blocks += done
        self._progress.advance(num_inputs, kind)

    def drain(self) -> None:
        """Wait until everything is written."""
        while self._running:
            self._finish_oldest()

    def __enter__(self) -> Batcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.drain()
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
