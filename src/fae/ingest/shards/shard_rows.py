"""Put the rows of all parts into the arrays of the log, each part in its place, with the ids of the whole log."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from fae.artifacts.checksums import join_checksums
from fae.core.npy import HEADER_BYTES, NpyRows, NpyWriter
from fae.core.progress import task
from fae.core.threads import run_jobs
from fae.ingest.numbering.part_ids import UNCHANGED, PartIds, PartMaps, Parts
from fae.ingest.provisional_ids import ColumnEncoder
from fae.ingest.resume import PART_MAPS, IngestProgress
from fae.ingest.shards.kept_parts import facts_checksum
from fae.ingest.shards.shard_values import JoinedIds

_BLOCK_BYTES = 4 * 2**20
_NUM_THREADS = 4
"""As many bring rows to their places while the log is read: they wait for the disk, most of the time."""


class JoinedRows:
    """Brings the rows of parts to their places while the log is read, but those of ids.

    A context manager: none of its threads runs behind the block.
    """

    def __init__(self, progress: IngestProgress) -> None:
        self._progress = progress
        self._threads = ThreadPoolExecutor(_NUM_THREADS, "fae-rows")
        self._writers: dict[str, NpyWriter] = {}
        self._checksums: dict[str, list[tuple[int, int]]] = {}
        self._copies: list[Future[str]] = []
        self._num_inputs = self._num_done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
        for writer in self._writers.values():
            writer.abandon()

    def add(self, path: Path, facts: dict[str, Any]) -> None:
        """Take the next part in log order; its rows are copied some time later.

        Raises
        ------
        OSError
            If rows of an earlier part could not be copied.
        """
        while self._num_done < len(self._copies) and self._copies[self._num_done].done():
            self._copies[self._num_done].result()
            self._num_done += 1
        first = self._num_inputs
        self._num_inputs += facts["num_inputs"]
        copies: list[tuple[Path, int, NpyWriter]] = []
        for name, (dtype, shape, num_rows, checksum) in facts["rows"].items():
            if name == "ids":
                continue
            if name not in self._writers:
                self._writers[name] = self._progress.open_rows(name, dtype, tuple(shape))
            writer = self._writers[name]
            self._checksums.setdefault(name, []).append((checksum, num_rows * writer.row_bytes))
            copies.append((path / f"{name}.npy", num_rows, writer))

        def work() -> str:
            for source, num_rows, writer in copies:
                _copy_rows(source, num_rows, writer, first)
            return facts_checksum(path)

        self._copies.append(self._threads.submit(work))

    def finish(self) -> tuple[list[NpyWriter], list[str]]:
        """Wait until all rows are in their places; return the closed writers, and `facts_checksum` of each part."""
        with task("ingest: joining rows", len(self._copies), "parts") as bar:
            are_done = [copy.done() for copy in self._copies]
            bar.find(sum(are_done))
            found = []
            for copy, is_done in zip(self._copies, are_done, strict=True):
                found.append(copy.result())
                bar.advance(0 if is_done else 1)
        for name, writer in self._writers.items():
            checksums, sizes = zip(*self._checksums[name], strict=True)
            writer.checksum = join_checksums(checksums, sizes)
            writer.close()
        return list(self._writers.values()), found


def join_ids(
    encoders: Sequence[ColumnEncoder], parts: Parts, joined: JoinedIds, progress: IngestProgress, *, with_rows: bool
) -> tuple[list[NpyWriter], tuple[int, int]]:
    """Write the maps of all parts, and the provisional ids of all rows where that is wanted.

    Returns
    -------
    list
        The closed writer of ``ids.npy``, if it is written.
    tuple
        Bytes and crc32 of the file of maps.

    Raises
    ------
    LogError
        If an id of a part has no value: the part was damaged meanwhile.
    """
    maps = progress.work / PART_MAPS
    facts = _write_maps(encoders, parts, joined, maps)
    if not with_rows:
        return [], facts
    ids = PartIds(encoders, parts, maps)
    checksums = [0] * len(parts)
    with (
        progress.open_rows("ids", np.int32, ids.shape[1:]) as writer,
        task("ingest: joining ids", len(ids)) as bar,
    ):

        def job(part: int) -> Callable[[], None]:
            def work() -> None:
                checksums[part] = _write_ids(ids, part, writer)
                bar.advance(ids.firsts[part + 1] - ids.firsts[part])

            return work

        run_jobs([job(part) for part in range(len(parts))])
        sizes = [(stop - first) * writer.row_bytes for first, stop in itertools.pairwise(ids.firsts)]
        writer.checksum = join_checksums(checksums, sizes)
    return [writer], facts


def _write_maps(encoders: Sequence[ColumnEncoder], parts: Parts, joined: JoinedIds, path: Path) -> tuple[int, int]:
    """Write what exchanges the ids of all parts; return bytes and crc32 of the file."""
    maps = PartMaps(encoders, parts)
    checksums = [0] * len(parts)
    with NpyWriter(path, np.int32) as writer:

        def job(part: int) -> Callable[[], None]:
            def work() -> None:
                pieces = [piece for column in maps.columns for piece in (joined.of_part(column, part), UNCHANGED)]
                if pieces:
                    found = np.concatenate(pieces)
                    writer.write(maps.firsts[part], found)
                    checksums[part] = zlib.crc32(found.view(np.uint8).data)

            return work

        run_jobs([job(part) for part in range(len(parts))])
        writer.write(maps.firsts[-1], UNCHANGED)  # a file without any cannot be mapped into memory
    sizes = [4 * (stop - first) for first, stop in itertools.pairwise(maps.firsts)]
    with path.open("rb") as file:
        header = zlib.crc32(file.read(HEADER_BYTES))
    ends = zlib.crc32(UNCHANGED.view(np.uint8).data)
    return writer.num_bytes, join_checksums([header, *checksums, ends], [HEADER_BYTES, *sizes, UNCHANGED.nbytes])


def _write_ids(ids: PartIds, part: int, writer: NpyWriter) -> int:
    """Write the provisional ids of a part to their place; return the crc32 of what was written."""
    checksum, step = 0, max(1, _BLOCK_BYTES // max(1, writer.row_bytes))
    for start in range(ids.firsts[part], ids.firsts[part + 1], step):
        block = ids.read(start, min(start + step, ids.firsts[part + 1]))
        checksum = zlib.crc32(block.reshape(-1).view(np.uint8).data, checksum)
        writer.write(start, block)
    return checksum


def _copy_rows(path: Path, num_rows: int, writer: NpyWriter, first: int) -> None:
    """Copy an array of rows to its place."""
    step = max(1, _BLOCK_BYTES // max(1, writer.row_bytes))
    if not num_rows:
        return
    with NpyRows(path) as rows:
        for start in range(0, num_rows, step):
            block = rows.read(start, min(start + step, num_rows))
            writer.write(first + start, block)
            writer.start_write_back(first + start, len(block))
