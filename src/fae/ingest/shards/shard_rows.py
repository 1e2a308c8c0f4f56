"""Put the rows of all parts into the arrays of the log, each part in its place, with the ids of the whole log."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from fae.artifacts.checksums import join_checksums
from fae.core.npy import HEADER_BYTES, NpyRows, NpyWriter
from fae.core.progress import task
from fae.core.threads import run_jobs
from fae.ingest.numbering.part_ids import UNCHANGED, PartIds, PartMaps, Parts
from fae.ingest.provisional_ids import ColumnEncoder
from fae.ingest.resume import PART_MAPS, IngestProgress
from fae.ingest.shards.shard_values import JoinedIds

_BLOCK_BYTES = 4 * 2**20


def join_rows(
    encoders: Sequence[ColumnEncoder],
    parts: Parts,
    joined: JoinedIds,
    progress: IngestProgress,
    *,
    with_ids: bool,
) -> None:
    """Write all arrays of rows of the unfinished log.

    Parameters
    ----------
    with_ids
        Whether ids are written too. Else they stay in the parts, to be written once, when they are final.

    Raises
    ------
    LogError
        If an id of a part has no value: the part was damaged meanwhile.
    """
    starts = [0, *itertools.accumulate(facts["num_inputs"] for _, facts in parts)]
    kinds: dict[str, tuple[str, list[int]]] = {}
    for _, facts in parts:
        kinds |= {name: (dtype, shape) for name, (dtype, shape, _, _) in facts["rows"].items() if name not in kinds}
    if not with_ids:
        del kinds["ids"]
    maps = progress.work / PART_MAPS
    maps_facts = _write_maps(encoders, parts, joined, maps)
    ids = PartIds(encoders, parts, maps)
    checksums: dict[tuple[str, int], int] = {}
    with ExitStack() as files, task("ingest: joining rows", starts[-1]) as bar:
        writers = {
            name: files.enter_context(progress.open_rows(name, dtype, tuple(shape)))
            for name, (dtype, shape) in kinds.items()
        }

        def job(index: int) -> Callable[[], None]:
            def work() -> None:
                path, facts = parts[index]
                for name, (_, _, num_rows, checksum) in facts["rows"].items():
                    if name == "ids" and with_ids:
                        checksums[name, index] = _write_ids(ids, index, writers[name])
                    elif name != "ids":
                        _copy_rows(path / f"{name}.npy", num_rows, writers[name], starts[index])
                        checksums[name, index] = checksum
                bar.advance(facts["num_inputs"])

            return work

        run_jobs([job(index) for index in range(len(parts))])
        for name, writer in writers.items():
            held = [index for index, (_, facts) in enumerate(parts) if name in facts["rows"]]
            sizes = [parts[index][1]["rows"][name][2] * writer.row_bytes for index in held]
            writer.checksum = join_checksums([checksums[name, index] for index in held], sizes)
        if not with_ids:
            progress.keep_ids_of(parts, maps_facts)
        progress.mark_read(encoders, list(writers.values()))


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
